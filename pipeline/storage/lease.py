"""A lease: one process at a time, on one machine or many.

    with lease(path, wait=False) as held: ...

On disk a lease is a lock on the file `path`, which dies with its process; the file tells who holds
it and is emptied afterwards. In an object store it is the object `path`: holder, host, pid and a
counter that a thread raises every third of the time to live. An observer takes it over by a
conditional put when the counter stood still for a whole time to live on the observer's own
monotonic clock (no two clocks are ever compared), or when its holder's process is known to be dead
here. A holder whose renewals did not get through for that long may write no more below the
lease's folder: every put there raises `LeaseLost`. `WorkspaceBusy` names the holder.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import LeaseLost, StorageUnavailable, WorkspaceBusy
from pipeline.storage.files import AnyPath, json_bytes, make_folder
from pipeline.storage.remote_path import RemotePath, Tagged, guarded

TTL_S = 30.0
"""Seconds of silence after which a holder in an object store counts as gone."""
POLLS_PER_TTL = 10
LOCK = ".lock"
"""Name of the lock in a folder that one process at a time may write."""


@contextmanager
def locked(path: AnyPath, *, wait: bool) -> Iterator[None]:
    """`lease` with the usual time to live, where the caller must say whether it waits."""
    with lease(path, wait=wait):
        yield


@contextmanager
def lease(path: AnyPath, *, ttl_s: float = TTL_S, wait: bool = True) -> Iterator[None]:
    """Hold `path` for the body. Everything beside and below it in an object store is guarded.

    `wait=False` raises `WorkspaceBusy` as soon as the holder is seen to live, at most `ttl_s` after
    the call; a dead holder's lease is taken over. On disk `ttl_s` means nothing.
    """
    with _leased(path, ttl_s, wait) if isinstance(path, RemotePath) else _flocked(path, wait):
        yield


@contextmanager
def _flocked(path: Path, wait: bool) -> Iterator[None]:
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = _parsed(os.pread(handle, 4096, 0))
        os.close(handle)
        raise _busy(path, holder) from None
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json_bytes(_myself()), 0)
        yield
    finally:
        os.ftruncate(handle, 0)
        os.close(handle)


@contextmanager
def _leased(path: RemotePath, ttl_s: float, wait: bool) -> Iterator[None]:
    held = _HeldLease(path, {**_myself(), "id": uuid.uuid4().hex, "ttl_s": ttl_s})
    held.acquire(wait)
    ended = threading.Event()
    renewer = threading.Thread(target=held.renew_until, args=(ended,), daemon=True)
    renewer.start()
    try:
        with guarded(path, held.require):
            yield
            held.require()
    finally:
        ended.set()
        renewer.join()
        held.release()


@dataclass
class _HeldLease:
    """One process's hold on a lease object."""

    path: RemotePath
    holder: Mapping[str, Any]
    counter: int = 0
    etag: str = ""
    renewed: float = 0.0
    """When, on our own monotonic clock, the last renewal that got through was sent."""
    lost_to: Mapping[str, Any] | None = field(default=None)

    @property
    def ttl_s(self) -> float:
        """Seconds that the lease lives without renewal."""
        return float(self.holder["ttl_s"])

    def acquire(self, wait: bool) -> None:
        """Return once the lease is ours. Raises `WorkspaceBusy` if it lives and `wait` is False."""
        seen, since = None, time.monotonic()
        while True:
            found = self.path.find_tagged()
            now = time.monotonic()
            if found is None or _is_free(found, now - since if found.etag == seen else 0.0):
                if self._put(found.etag if found else None):
                    return
                continue
            if found.etag != seen:
                if seen is not None and not wait:
                    raise _busy(self.path, _parsed(found.data))
                seen, since = found.etag, now
            time.sleep(float(_parsed(found.data)["ttl_s"]) / POLLS_PER_TTL)

    def renew_until(self, ended: threading.Event) -> None:
        """Raise the counter three times a time to live, until told to end or until it is lost."""
        while not ended.wait(self.ttl_s / 3):
            try:
                if self._put(self.etag):
                    continue
            except StorageUnavailable:
                continue  # `require` decides by our clock
            found = self.path.find_tagged()
            self.lost_to = _parsed(found.data) if found else {}
            return

    def require(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly ours."""
        if self._is_held():
            return
        raise LeaseLost(
            f"{self.path}: this process could not renew its lease for {self.ttl_s:g} s, and "
            f"{_described(self.lost_to or {})} may write here now. Nothing more was written; run "
            "again to go on."
        )

    def release(self) -> None:
        """Let the next one have it at once; if that fails, the time to live does it."""
        if self._is_held():
            try:
                self.path.write_if(self.etag, json_bytes({"free": self.counter}))
            except (StorageUnavailable, LeaseLost):
                return

    def _is_held(self) -> bool:
        return self.lost_to is None and time.monotonic() - self.renewed < self.ttl_s

    def _put(self, etag: str | None) -> bool:
        sent = time.monotonic()
        value = {**self.holder, "counter": self.counter + 1}
        put = self.path.write_if(etag, json_bytes(value))
        if put is None:
            return False
        self.counter, self.etag, self.renewed = self.counter + 1, put, sent
        return True


def _is_free(found: Tagged, unchanged_s: float) -> bool:
    """Whether a lease may be taken that was seen not to change for so long."""
    holder = _parsed(found.data)
    if "ttl_s" not in holder:
        return True
    return unchanged_s >= float(holder["ttl_s"]) or _is_dead(str(holder["process"]))


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _process(pid: int) -> str:
    """A process in one word: kernel's boot, pid namespace, pid, start; empty where that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = os.readlink("/proc/self/ns/pid")
        start = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {namespace} {pid} {start}"


def _is_dead(process: str) -> bool:
    """Whether a process of this machine is gone for certain."""
    place, _, _ = process.rpartition(" ")
    here, _, pid = place.rpartition(" ")
    mine = _process(os.getpid()).rsplit(" ", 2)[0]
    return bool(process) and here == mine and _process(int(pid)) != process


def _busy(path: AnyPath, holder: Mapping[str, Any]) -> WorkspaceBusy:
    return WorkspaceBusy(
        f"{path.parent}: another process is writing here: {_described(holder)}. Wait for it to end, "
        "then run again."
    )


def _described(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
