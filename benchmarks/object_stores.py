"""obstore against s3fs on the operations that a workspace needs, on one server.

    python -m benchmarks.object_stores [--rounds 200]

Both use the same S3 server on loopback (moto's, `tests/support/object_server.py`), so the clients are
compared: the server takes about 2 ms per request from either. Each library runs with its own default
retries. Prints a Markdown table; needs the extras `s3` and `dev`, and s3fs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import distribution, requires
from statistics import median
from typing import Any, Protocol

import numpy as np
from packaging.requirements import Requirement

from tests.support.object_server import ObjectServer

KILOBYTE, MEGABYTE = 1_000, 1_000_000
FAIL = 0.05
Row = tuple[str, list[str]]


class Store(Protocol):
    """One library."""

    name: str

    def put(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def get_range(self, key: str, start: int, length: int) -> bytes: ...
    def list(self, prefix: str) -> int: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def replace(self, key: str, data: bytes, etag: str) -> bool: ...
    def etag(self, key: str) -> str: ...


class Obstore:
    """The Rust object_store crate."""

    name = "obstore"

    def __init__(self, bucket: str) -> None:
        import obstore
        from obstore.store import from_url

        self._o = obstore
        self._s = from_url(
            f"s3://{bucket}",
            client_options={"allow_http": True},
            retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=60)},
        )

    def put(self, key: str, data: bytes) -> None:
        self._o.put(self._s, key, data)

    def get(self, key: str) -> bytes:
        return bytes(self._o.get(self._s, key).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return bytes(self._o.get_range(self._s, key, start=start, length=length))

    def list(self, prefix: str) -> int:
        return sum(len(batch) for batch in self._o.list(self._s, prefix))

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._o.put(self._s, key, data, mode="create")
        except self._o.exceptions.AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        try:
            self._o.put(self._s, key, data, mode={"e_tag": etag})
        except self._o.exceptions.PreconditionError:
            return False
        return True

    def etag(self, key: str) -> str:
        return str(self._o.head(self._s, key)["e_tag"])


class S3fs:
    """fsspec's S3 file system, over aiobotocore."""

    name = "s3fs"

    def __init__(self, bucket: str) -> None:
        import s3fs

        self._bucket = bucket
        self._fs = s3fs.S3FileSystem(
            endpoint_url=os.environ["AWS_ENDPOINT_URL"], use_listings_cache=False
        )

    def put(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self._bucket}/{key}", data)

    def get(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(f"{self._bucket}/{key}"))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return bytes(self._fs.cat_file(f"{self._bucket}/{key}", start=start, end=start + length))

    def list(self, prefix: str) -> int:
        return len(self._fs.find(f"{self._bucket}/{prefix}"))

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(f"{self._bucket}/{key}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._fs.call_s3("put_object", Bucket=self._bucket, Key=key, Body=data, IfMatch=etag)
        except (ClientError, OSError):
            return False
        return True

    def etag(self, key: str) -> str:
        return str(self._fs.info(f"{self._bucket}/{key}")["ETag"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with ObjectServer() as server:
        os.environ.update(server.environment)
        stores: list[Store] = [Obstore(server.bucket), S3fs(server.bucket)]
        rows = [*_timings(stores, rounds), *_conditions(stores), *_failures(stores, server, rounds)]
    rows.append(
        ("installed with all it needs, MB", [f"{_installed_mb(s.name):.0f}" for s in stores])
    )
    print(f"| | {' | '.join(store.name for store in stores)} |")
    print("|---|" + "---|" * len(stores))
    for what, cells in rows:
        print(f"| {what} | {' | '.join(cells)} |")


def _timings(stores: list[Store], rounds: int) -> list[Row]:
    small = np.random.default_rng(0).bytes(20 * KILOBYTE)
    large = np.random.default_rng(1).bytes(64 * MEGABYTE)
    for store in stores:
        store.put(f"{store.name}/large", large)
        for index in range(1000):
            store.put(f"{store.name}/many/{index:04d}", b"x")
    few = max(3, rounds // 50)
    work: list[tuple[str, int, Callable[[Store], Any]]] = [
        ("put 20 kB, ms", rounds, lambda s: s.put(f"{s.name}/small", small)),
        ("get 20 kB, ms", rounds, lambda s: s.get(f"{s.name}/small")),
        (
            "read 100 kB of 64 MB, ms",
            rounds,
            lambda s: s.get_range(f"{s.name}/large", 10**7, 10**5),
        ),
        ("list 1,000 objects, ms", few, lambda s: s.list(f"{s.name}/many")),
        ("get 64 MB, ms", few, lambda s: s.get(f"{s.name}/large")),
        ("put 64 MB, ms", few, lambda s: s.put(f"{s.name}/large", large)),
    ]
    return [(what, _medians(stores, times, act)) for what, times, act in work]


def _medians(stores: list[Store], times: int, act: Callable[[Store], Any]) -> list[str]:
    """Milliseconds of each library, its calls taking turns with the other's."""
    seconds: dict[str, list[float]] = {store.name: [] for store in stores}
    for _ in range(times):
        for store in stores:
            started = time.perf_counter()
            act(store)
            seconds[store.name].append(time.perf_counter() - started)
    return [f"{1000 * median(seconds[store.name]):.1f}" for store in stores]


def _conditions(stores: list[Store]) -> list[Row]:
    created, replaced = [], []
    for store in stores:
        key = f"{store.name}/conditional"
        only_once = store.create(key, b"1") and not store.create(key, b"2")
        created.append("yes" if only_once and store.get(key) == b"1" else "**no**")
        etag = store.etag(key)
        swapped = store.replace(key, b"3", etag) and not store.replace(key, b"4", etag)
        replaced.append("yes" if swapped and store.get(key) == b"3" else "**no**")
    return [("put only if absent", created), ("put only if unchanged", replaced)]


def _failures(stores: list[Store], server: ObjectServer, rounds: int) -> list[Row]:
    """Errors that reach the caller, and wrong bytes, while the server fails."""
    lost, wrong, seconds = [], [], []
    for store in stores:
        server.fail_from(7, FAIL)
        counts, started = {"lost": 0, "wrong": 0}, time.perf_counter()
        for index in range(rounds):
            data = str(index).encode() * 2000
            try:
                store.put(f"{store.name}/f{index}", data)
                counts["wrong"] += store.get(f"{store.name}/f{index}") != data
            except Exception:  # noqa: BLE001 any kind of error counts
                counts["lost"] += 1
        seconds.append(f"{time.perf_counter() - started:.1f}")
        server.fail_from(0, 0.0)
        lost.append(f"{counts['lost']} of {rounds}")
        wrong.append(str(counts["wrong"]))
    return [
        ("put and get with 5 % failing requests: errors", lost),
        ("... wrong bytes", wrong),
        ("... seconds in all", seconds),
    ]


def _installed_mb(name: str) -> float:
    """Size of a distribution and of what it requires, on this machine."""
    sizes: dict[str, float] = {}
    todo = [name]
    while todo:
        current = todo.pop()
        if current in sizes:
            continue
        try:
            files = distribution(current).files or []
        except ModuleNotFoundError:
            continue
        paths = [file.locate() for file in files]
        sizes[current] = sum(os.path.getsize(p) for p in paths if os.path.isfile(p)) / MEGABYTE
        needed = [Requirement(text) for text in requires(current) or []]
        todo += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return sum(sizes.values())


if __name__ == "__main__":
    main()
