"""An S3 server on loopback that can fail: moto's, with errors at a seeded share of the requests.

    python tests/support/object_server.py --bucket bucket --fail 0.05      prints its URL, runs until killed

Nothing is stored on disk. A failing request is answered 500 or 503 without being done, or it is
done and its answer is cut off in the middle, or lost altogether. Requests are done one at a time,
so that conditional puts are atomic, as they are on S3.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

FAILURES = ("500", "503", "cut", "lost")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_REGION": "us-east-1",
}
StartResponse = Callable[..., Any]


class Cut(ConnectionError):
    """Ends the connection in the middle of an answer."""


class _Handler(WSGIRequestHandler):
    """Keeps connections open, logs nothing, and drops the connection of a `Cut`."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Requests are counted, not printed."""

    def connection_dropped(self, *_: Any) -> None:
        """After a `Cut`."""
        self.close_connection = True


class ObjectServer:
    """`with ObjectServer(fail=0.05) as server: ... server.url`; the bucket `bucket` exists."""

    def __init__(self, fail: float = 0.0, seed: int = 0, bucket: str = "bucket") -> None:
        self.fail = fail
        self.requests: Counter[str] = Counter()
        """Requests by method, and failures by kind."""
        self.bucket = bucket
        self._random = random.Random(seed)
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=_Handler)
        self._server.daemon_threads = True  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        """The endpoint, for `AWS_ENDPOINT_URL`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def fail_from(self, seed: int, share: float) -> None:
        """Let this share of the requests fail from now on."""
        self.fail, self._random = share, random.Random(seed)

    def __enter__(self) -> ObjectServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._make_bucket()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _make_bucket(self) -> None:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        buckets = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if self.bucket not in buckets.buckets:  # moto's store is the process's
            buckets.create_bucket(self.bucket, "us-east-1")

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        failure = self._draw(environ["REQUEST_METHOD"])
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if failure in {"500", "503"}:
            start(f"{failure} Failed", [("Content-Length", "0")])
            return [b""]
        status, headers, answer = self._done(environ, body)
        if failure == "lost" or (failure == "cut" and not answer):
            raise Cut
        start(status, headers)
        return _cut_off(answer) if failure == "cut" else [answer]

    def _draw(self, method: str) -> str:
        with self._one_at_a_time:
            failure = self._random.choice(FAILURES) if self._random.random() < self.fail else ""
            self.requests.update([method, failure] if failure else [method])
        return failure

    def _done(
        self, environ: dict[str, Any], body: bytes
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        import io

        seen: list[Any] = []
        environ["wsgi.input"] = io.BytesIO(body)
        with self._one_at_a_time:
            answer = self._app(environ, lambda status, headers, *_: seen.extend((status, headers)))
            data = b"".join(answer)
        status, headers = seen
        if environ["REQUEST_METHOD"] == "HEAD":
            return status, list(headers), b""
        others = [(k, v) for k, v in headers if k.lower() != "content-length"]
        return status, [*others, ("Content-Length", str(len(data)))], data


def _cut_off(answer: bytes) -> Iterator[bytes]:
    yield answer[: len(answer) // 2]
    raise Cut


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", default="bucket")
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with ObjectServer(options.fail, options.seed, options.bucket) as server:
        print(server.url, os.getpid(), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
