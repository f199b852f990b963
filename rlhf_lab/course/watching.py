"""A process that is not trusted, followed from its start to its end: what it prints, what it takes, when to stop it."""

import contextlib
import os
import re
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import IO, NamedTuple

MIB = 2**20
_TICK_S = 0.05
_MEMORY = re.compile(rb"^(?:RssAnon|RssShmem|VmPTE):\s*(\d+) kB", re.MULTILINE)
_QUEUES = re.compile(rb" ([0-9A-F]{8}):([0-9A-F]{8}) ")
"""Bytes that wait to be sent and to be read, in the kernel's list of sockets."""
_SOCKET_BYTES = 208 * 1024
"""The kernel's own size of a socket's buffer (net.core.wmem_default); `seccomp` refuses to enlarge it."""
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")
"""What colors a terminal, or names its window."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a graded notebook may take. The defaults suit one that trains the laptop's models for a minute."""

    wall_s: float = 120.0
    cell_s: float = 60.0
    """After which a cell is interrupted; those that follow still run."""
    cpu_s: int = 240
    """Of all its processes together."""
    memory_mb: int = 3072
    """Of all its processes together."""
    processes: int = 256
    """Threads count as well."""
    file_mb: int = 128
    disk_mb: int = 256
    """In its home, and as much in /tmp. It is memory, but not counted as such."""
    files: int = 20_000
    output_kb: int = 32
    """Kept of the start of what it prints, and of the end."""
    output_mb: int = 64
    """Printed at all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be more than 0, not {getattr(self, field.name)}.")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a run went, such as Ran(seconds=4.2, stopped="more than 3072 MB of memory", log="...", returncode=-9)."""

    seconds: float
    stopped: str | None
    """What it was stopped for; None if it came to its own end."""
    log: str
    """What it printed: plain text, and whatever the student's code put there."""
    returncode: int


class Usage(NamedTuple):
    """What the processes of a sandbox hold."""

    memory: int = 0
    """Bytes."""
    cpu_s: float = 0.0
    files: int = 0


class Census:
    """Counts what a sandbox holds, in its own /proc, which lists its processes and no others.

    Args:
        init: The first process in the sandbox.
        folders: Where it can write.

    Raises:
        OSError: The sandbox is not ready yet, or gone.
    """

    def __init__(self, init: int, folders: Sequence[str]) -> None:
        """Open the folders that are read later: a number of a process may be given again, what is open stays."""
        self._folders: list[int] = []
        self._processes = os.open(f"/proc/{init}/root/proc", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.fstat(self._processes).st_dev == os.stat("/proc").st_dev:
                raise OSError(f"process {init} still sees the machine's /proc.")
            for folder in folders:
                self._folders.append(os.open(f"/proc/{init}/root{folder}", os.O_RDONLY | os.O_DIRECTORY))
            if not self._is_guarded():
                raise OSError(f"process {init} does not wait for its child yet.")
        except OSError:
            self.close()
            raise

    def _is_guarded(self) -> bool:
        """Whether the first process sleeps, as it does from when it has asked to be ended with its parent."""
        numbers = [name for name in os.listdir(self._processes) if name.isdigit()]
        return len(numbers) > 1 and self._read("1/stat").rpartition(b")")[2].split()[0] == b"S"

    def close(self) -> None:
        """Let go of the sandbox."""
        for descriptor in (self._processes, *self._folders):
            os.close(descriptor)

    def look(self) -> Usage:
        """What it holds now; memory that processes share is counted for each."""
        memory, ticks = 0, 0
        for name in os.listdir(self._processes):
            if name.isdigit():
                with contextlib.suppress(OSError):  # It ended meanwhile.
                    memory += _memory(self._read(f"{name}/status"))
                    # After the name, which may hold spaces: utime, stime, cutime, cstime.
                    ticks += sum(map(int, self._read(f"{name}/stat").rpartition(b")")[2].split()[11:15]))
        filled = [os.fstatvfs(folder) for folder in self._folders]
        memory += self._sockets()
        return Usage(memory, ticks / os.sysconf("SC_CLK_TCK"), sum(one.f_files - one.f_ffree for one in filled))

    def _sockets(self) -> int:
        """Bytes that may wait in sockets: of a Unix socket not listed, so each counts as full; of others as listed."""
        waiting = 0
        for name in ("unix", "tcp", "tcp6", "udp", "udp6"):
            with contextlib.suppress(OSError):  # A machine without IPv6, or all of it has ended.
                listed = self._read(f"1/net/{name}")
                waiting += max(0, listed.count(b"\n") - 1) * _SOCKET_BYTES if name == "unix" else _waiting(listed)
        return waiting

    def _read(self, name: str) -> bytes:
        with open(os.open(name, os.O_RDONLY, dir_fd=self._processes), "rb", buffering=65536) as file:
            return file.read()


def _waiting(listed: bytes) -> int:
    return sum(int(sent, 16) + int(received, 16) for sent, received in _QUEUES.findall(listed))


def _memory(status: bytes) -> int:
    """Bytes that a process holds, and the tables that list them; those of files are left out: they can be dropped."""
    return 1024 * sum(map(int, _MEMORY.findall(status)))


class Output:
    """What a process prints: all of it is read, the start and the end are kept.

    Args:
        kept: Bytes of each.
    """

    def __init__(self, kept: int) -> None:
        """Nothing is read yet."""
        self.total = 0
        self._kept = kept
        self._head = b""
        self._tail = b""

    def read(self, pipe: IO[bytes]) -> None:
        """Read to the end."""
        # Closed under its hands where a process that has left its group holds the other end.
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(pipe.fileno(), 65536):
                self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Keep of the next bytes what is to be kept."""
        self.total += len(chunk)
        room = self._kept - len(self._head)
        self._head += chunk[:room]
        self._tail = (self._tail + chunk[room:])[-self._kept :]

    def text(self) -> str:
        """The start and the end as plain text, with a line between them that says how much is left out."""
        missing = self.total - len(self._head) - len(self._tail)
        gap = f"\n[... {missing / 1024:,.0f} KiB left out ...]\n".encode() if missing else b""
        return plain((self._head + gap + self._tail).decode(errors="replace"))


def plain(text: str) -> str:
    r"""`text` without what could steer a terminal or hide other text.

    Example:
        >>> plain("\x1b[31mred\x1b[0m\r\n10%\r20%\x07")
        'red\n10%\n20%'
    """
    text = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter)[0] != "C")


def follow(
    process: subprocess.Popen[bytes],
    limits: Limits,
    *,
    look: Callable[[], Usage],
    kill: Callable[[], None],
    stop: Callable[[], str | None] | None = None,
) -> Ran:
    """Wait until a process ends, or goes beyond its limits, or `stop` gives a reason to stop it.

    Args:
        process: Just started; its output is a pipe.
        look: What it holds.
        kill: Ends it and every process that it started. Called in every case, so that nothing is left behind.
        stop: Asked all the time.
    """
    output, started, stopped = Output(limits.output_kb * 1024), time.monotonic(), None
    assert process.stdout is not None
    # Only what reads is in another thread: when the thread that started bubblewrap ends, the kernel ends the sandbox.
    reader = threading.Thread(target=output.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        while process.poll() is None and stopped is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TICK_S)
            stopped = _excess(limits, time.monotonic() - started, look(), output.total) or (stop() if stop else None)
    finally:
        seconds = time.monotonic() - started
        kill()
        reader.join(timeout=5.0)
        process.stdout.close()
    return Ran(seconds=seconds, stopped=stopped, log=output.text(), returncode=process.wait())


def _excess(limits: Limits, seconds: float, usage: Usage, printed: int) -> str | None:
    taken = {
        f"{limits.wall_s:g} s": seconds > limits.wall_s,
        f"{limits.memory_mb} MB of memory": usage.memory > limits.memory_mb * MIB,
        f"{limits.cpu_s} s of processor time": usage.cpu_s > limits.cpu_s,
        f"{limits.files} files": usage.files > limits.files,
        f"{limits.output_mb} MB of output": printed > limits.output_mb * MIB,
    }
    return next((f"more than {limit}" for limit, is_passed in taken.items() if is_passed), None)
