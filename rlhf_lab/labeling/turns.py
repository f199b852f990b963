"""Turns at writing to a SQLite store, first come, first served.

SQLite lets one program write at a time, and those that wait look again at ever longer intervals: of sixty labelers some
would wait for seconds while others are served over and over. Here each takes the next number from the file
`STORE-queue` and waits for the one before. The queue only orders those who write; the lock on the store is SQLite's.
"""

import contextlib
import importlib
import os
import struct
import threading
from collections.abc import Generator
from typing import Any

try:
    fcntl: Any = importlib.import_module("fcntl")
except ImportError:  # Windows: SQLite's own waiting must do.
    fcntl = None

WAIT_SECONDS = 4.0
"""Longest wait for a turn; then SQLite is asked, which says whether the store is in use."""
_NUMBER = struct.Struct("q")
_HAS_QUEUE = hasattr(fcntl, "F_OFD_SETLKW")
"""Locks that belong to an open file, not to a process, which may have two kernels' threads; Linux has them."""


@contextlib.contextmanager
def turn(store: str) -> Generator[None]:
    """Hold the turn at writing to the SQLite file `store` while the block runs.

    Whoever dies loses it; where the system or the disk has no such locks, everybody has it at once.
    """
    try:
        place = _Place(store) if _HAS_QUEUE else None
    except OSError:
        place = None
    if place is None:
        yield
        return
    try:
        place.wait()
        yield
    finally:
        place.leave()


class _Place:
    """A place in the queue: a lock on the byte of its own number, which whoever is next waits for."""

    def __init__(self, store: str) -> None:
        self.file = os.open(f"{store}-queue", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.is_waiting, self.guard = False, threading.Lock()
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.number = _NUMBER.unpack(os.pread(self.file, _NUMBER.size, 0) or _NUMBER.pack(0))[0] + 1
            os.pwrite(self.file, _NUMBER.pack(self.number), 0)
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, self.number)
            fcntl.flock(self.file, fcntl.LOCK_UN)
        except OSError:
            os.close(self.file)
            raise

    def _lock(self, command: int, kind: int, number: int) -> None:
        # struct flock of 64-bit Linux: kind, whence, start, length, process (0 for locks of an open file).
        fcntl.fcntl(self.file, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, number, 1, 0))

    def wait(self) -> None:
        try:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, self.number - 1)
        except BlockingIOError:
            # The system's wait has no time limit, so a thread waits, and is left alone if it takes too long.
            self.is_waiting = True
            thread = threading.Thread(target=self._wait, daemon=True)
            thread.start()
            thread.join(WAIT_SECONDS)

    def _wait(self) -> None:
        with contextlib.suppress(OSError):
            self._lock(fcntl.F_OFD_SETLKW, fcntl.F_RDLCK, self.number - 1)
        with self.guard:
            if not self.is_waiting:  # Nobody wants it any more.
                os.close(self.file)
            self.is_waiting = False

    def leave(self) -> None:
        with self.guard:
            if not self.is_waiting:
                os.close(self.file)
            self.is_waiting = False
