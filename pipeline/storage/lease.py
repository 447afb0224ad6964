"""A lease: one process at a time, on one machine or many.

    with lease(path, wait=False): ...

On disk a lease is a lock on the file `path`, which the operating system releases when the process
ends; the file names the holder. In an object store it is the object `path`: holder, host, pid and a
counter that a thread raises every third of the time to live. An observer takes it over by a
conditional put when the counter stood still for a whole time to live on the observer's own
monotonic clock (no two clocks are ever compared), or when the holder was a process of this machine
that has ended. A holder whose renewals failed for that long must not write below the lease's folder
any more: every put there raises `LeaseLost`. `WorkspaceBusy` names the holder.
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
"""Seconds without a renewal after which a lease in an object store may be taken over."""
POLLS_PER_TTL = 10
LOCK = ".lock"
"""Name of the lock in a folder that one process at a time may write."""


@contextmanager
def locked(path: AnyPath, *, wait: bool) -> Iterator[None]:
    """`lease` with the default time to live; the caller must choose whether to wait."""
    with lease(path, wait=wait):
        yield


@contextmanager
def lease(path: AnyPath, *, ttl_s: float = TTL_S, wait: bool = True) -> Iterator[None]:
    """Hold `path` for the body. In an object store, writes beside and below it are guarded.

    `wait=False` raises `WorkspaceBusy` once the holder is known to be alive, at most `ttl_s` after
    the call; a dead holder's lease is taken over. `ttl_s` is ignored on disk.
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
        # The holder may be writing it: a partial text parses as no holder, and names nobody.
        holder = _parsed(os.pread(handle, 4096, 0))
        os.close(handle)
        raise _busy(path, holder) from None
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json_bytes(_own_process()), 0)
        yield
    finally:
        # Emptied, not deleted: a waiting process may hold this file open, and would then lock a file
        # that the next one no longer finds.
        os.ftruncate(handle, 0)
        os.close(handle)


@contextmanager
def _leased(path: RemotePath, ttl_s: float, wait: bool) -> Iterator[None]:
    # The id makes every holder's bytes unique: `write_if` recognises a put of ours by its data.
    own = _HeldLease(path, {**_own_process(), "id": uuid.uuid4().hex, "ttl_s": ttl_s})
    own.acquire(wait)
    ended = threading.Event()
    renewer = threading.Thread(target=own.renew_until, args=(ended,), daemon=True)
    renewer.start()
    try:
        with guarded(path, own.require):
            yield
            own.require()  # a body that wrote its last object before the loss must not report success
    finally:
        ended.set()
        renewer.join()  # so that no renewal follows the release
        own.release()


@dataclass
class _HeldLease:
    """One process's hold on a lease object."""

    path: RemotePath
    holder: Mapping[str, Any]
    counter: int = 0
    etag: str = ""
    renewed: float = 0.0
    """When, on our own monotonic clock, the last successful renewal was sent."""
    lost_to: Mapping[str, Any] | None = field(default=None)
    """The holder after us, once we know of one; empty if the object was deleted."""

    @property
    def ttl_s(self) -> float:
        """Seconds that the lease lives without renewal."""
        return float(self.holder["ttl_s"])

    def acquire(self, wait: bool) -> None:
        """Return once the lease is ours. With `wait` False, `WorkspaceBusy` if another one renews it."""
        seen, since = None, time.monotonic()
        while True:
            current = self.path.find_tagged()
            now = time.monotonic()
            if current is None or _is_free(current, now - since if current.etag == seen else 0.0):
                # Only over the version that was judged free: of several observers one wins, and a
                # holder that renewed in the meantime keeps its lease.
                if self._put(current.etag if current else None):
                    return
                continue
            if current.etag != seen:
                # A first sight proves nothing, the holder may be dead; a change proves that it lives.
                if seen is not None and not wait:
                    raise _busy(self.path, _parsed(current.data))
                seen, since = current.etag, now
            time.sleep(float(_parsed(current.data)["ttl_s"]) / POLLS_PER_TTL)

    def renew_until(self, ended: threading.Event) -> None:
        """Raise the counter three times per time to live, until `ended` is set or the lease is lost."""
        # A third: one renewal may fail and the next still arrives before an observer gives up on us.
        while not ended.wait(self.ttl_s / 3):
            try:
                if self._put(self.etag):
                    continue
            except StorageUnavailable:
                continue  # try again; by our clock, `require` decides when it is too late
            current = self.path.find_tagged()
            self.lost_to = _parsed(current.data) if current else {}
            return

    def require(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly ours."""
        if self._is_held():
            return
        raise LeaseLost(
            f"{self.path}: this process could not renew its lease for {self.ttl_s:g} s, and "
            f"{_described(self.lost_to or {})} may write here now. Nothing more was written; run "
            "again to resume."
        )

    def release(self) -> None:
        """Free the lease for the next holder; if that fails, it expires."""
        if self._is_held():
            try:
                self.path.write_if(self.etag, json_bytes({"free": self.counter}))
            except (StorageUnavailable, LeaseLost):
                return

    def _is_held(self) -> bool:
        return self.lost_to is None and time.monotonic() - self.renewed < self.ttl_s

    def _put(self, etag: str | None) -> bool:
        # Taken before the request: an observer's time to live starts when the put arrives, so ours
        # must start no later.
        sent = time.monotonic()
        value = {**self.holder, "counter": self.counter + 1}
        new_etag = self.path.write_if(etag, json_bytes(value))
        if new_etag is None:
            return False
        self.counter, self.etag, self.renewed = self.counter + 1, new_etag, sent
        return True


def _is_free(current: Tagged, unchanged_s: float) -> bool:
    """Whether a lease that did not change for `unchanged_s` seconds may be taken."""
    holder = _parsed(current.data)
    if "ttl_s" not in holder:  # released, or not a lease at all
        return True
    # The holder's time to live, not ours: it renews at a third of that.
    return unchanged_s >= float(holder["ttl_s"]) or _is_dead(str(holder["process"]))


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _own_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _process(pid: int) -> str:
    """`<boot id> <pid namespace> <pid> <start time>`; empty where the system has no `/proc`.

    Unlike a host name and a pid it is never reused, not by containers on one host either.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = os.readlink("/proc/self/ns/pid")
        # After the command's closing bracket, because a command may contain blanks and brackets.
        start = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {namespace} {pid} {start}"


def _is_dead(process: str) -> bool:
    """Whether a process of this boot and pid namespace has certainly ended; False for any other."""
    namespace_and_pid, _, _ = process.rpartition(" ")
    namespace, _, pid = namespace_and_pid.rpartition(" ")
    own_namespace = _process(os.getpid()).rsplit(" ", 2)[0]
    return bool(process) and namespace == own_namespace and _process(int(pid)) != process


def _busy(path: AnyPath, holder: Mapping[str, Any]) -> WorkspaceBusy:
    return WorkspaceBusy(
        f"{path.parent}: another process is writing here: {_described(holder)}. Wait for it to end, "
        "then run again."
    )


def _described(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
