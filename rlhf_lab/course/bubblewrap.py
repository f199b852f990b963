"""Starts a program in bubblewrap, follows it, and ends every process that it leaves."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lab.course import launching, seccomp
from rlhf_lab.course.enclosure import WRITABLE, enclose
from rlhf_lab.course.watching import MIB, Census, Limits, Ran, follow

_LAUNCHER = "/run/launching.py"
_START_S = 20.0
_END_S = 10.0
_FIRST_USER = 1_900_000_000
"""Above the numbers that people and systemd's containers have."""


class SandboxError(ValueError):
    """There is no sandbox here; the message says why, and what to do."""


class _Process(NamedTuple):
    number: int
    handle: int
    """A pidfd, which stays this process's when the number is given to another."""


def run_enclosed(
    program: Sequence[str],
    *,
    python: Path,
    shown: Mapping[str, Path],
    environment: Mapping[str, str],
    limits: Limits,
    stop: Callable[[], str | None] | None = None,
) -> Ran:
    """Run a program in bubblewrap to its end or to a limit; no process of it is left.

    Args:
        program: A path inside, and arguments.
        python: Whose environment is there to read.
        shown: Files and folders to read, by their paths inside.
        environment: All of it.
        stop: Asked all the time; the program is stopped when it gives a reason.

    Raises:
        SandboxError: bubblewrap is missing, or did not start.
    """
    bubblewrap = _bubblewrap()
    with contextlib.ExitStack() as stack:
        filters, (status, said), (waiting, go) = _filter(), os.pipe(), os.pipe()
        for descriptor in (status, go):
            stack.callback(os.close, descriptor)
        try:
            command = enclose(
                launched(program, _LAUNCHER, limits, {"RLIMIT_NPROC": limits.processes}, sandbox_user(), waits=True),
                bubblewrap=bubblewrap,
                python=python,
                shown={**shown, _LAUNCHER: Path(launching.__file__)},
                environment=environment,
                limits=limits,
                descriptors={"seccomp": filters, "json-status-fd": said},
            )
            process = start(command, stdin=waiting, pass_fds=(filters, said))
        finally:
            for descriptor in (filters, said, waiting):
                os.close(descriptor)
        stack.callback(_abandon, process)
        init = _first_process(process, status)
        stack.callback(os.close, init.handle)
        # bubblewrap's inner half waits for the outer one, and for ever where that is killed too soon.
        stack.callback(_kill, process, init.handle)
        census = stack.enter_context(contextlib.closing(_census(process, init)))
        # Nothing of the program runs before it is watched; nor ever, if the grader dies before this.
        os.write(go, b"1")
        return follow(process, limits, look=census.look, kill=lambda: _kill(process, init.handle), stop=stop)


def launched(
    program: Sequence[str],
    launcher: str,
    limits: Limits,
    more: Mapping[str, int] | None = None,
    user: int | None = None,
    *,
    waits: bool = False,
) -> list[str]:
    """The command that takes on limits before it becomes `program`, which starts with the path of a Python.

    Args:
        launcher: Path of the module `launching`.
        more: Limits of the process, by the names of the module `resource`.
        user: Who to become.
        waits: Until a byte comes from the standard input.
    """
    resources = {
        "RLIMIT_CPU": limits.cpu_s,
        "RLIMIT_FSIZE": limits.file_mb * MIB,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 512,
        **(more or {}),
    }
    settings = json.dumps({"limits": resources, "user": user, "waits": waits})
    return [program[0], "-I", "-S", launcher, settings, *program]


def start(command: Sequence[str], stdin: int = subprocess.DEVNULL, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that an interrupt from the keyboard reaches only the grader."""
    return subprocess.Popen[bytes](
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **options,
    )


def sandbox_user() -> int | None:
    """Who root becomes in a sandbox that this thread starts; None for others, who stay who they are.

    Each sandbox has a user of its own, because the kernel counts processes by user.
    """
    return _FIRST_USER + threading.get_native_id() if os.geteuid() == 0 else None


def _is_ready(descriptor: int, seconds: float) -> bool:
    """Whether a pipe can be read, or a process has ended, before the time is up."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _filter() -> int:
    try:
        return seccomp.open_program()
    except ValueError as error:
        raise SandboxError(str(error)) from error


def _bubblewrap() -> str:
    if sys.platform != "linux":
        raise SandboxError("the sandbox needs Linux; on macOS grade in a virtual machine, on Windows in WSL 2.")
    found = shutil.which("bwrap")
    if not found:
        raise SandboxError("bubblewrap is missing; install it, as by `apt-get install bubblewrap`.")
    return found


def _first_process(process: subprocess.Popen[bytes], status: int) -> _Process:
    """The first process in the sandbox, with which all others end."""
    said, end = b"", time.monotonic() + _START_S
    while not said.endswith(b"\n") and _is_ready(status, end - time.monotonic()):
        part = os.read(status, 4096)
        if not part:
            break
        said += part
    try:
        number = int(json.loads(said)["child-pid"])
        return _Process(number, os.pidfd_open(number))
    except (ValueError, OSError):
        raise _failure(process) from None


def _census(process: subprocess.Popen[bytes], init: _Process) -> Census:
    """A census of the sandbox, as soon as it stands."""
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            return Census(init.number, WRITABLE)
        except OSError:
            time.sleep(0.002)
    _kill(process, init.handle)
    raise _failure(process)


def _failure(process: subprocess.Popen[bytes]) -> SandboxError:
    """What bubblewrap's own message means."""
    process.kill()
    try:
        said = " ".join(process.communicate(timeout=_END_S)[0].decode(errors="replace").split())
    except subprocess.TimeoutExpired:
        said = ""
    if "nknown option" in said:
        return SandboxError(f"bubblewrap is too old ({said}); install version 0.8 or later.")
    if "namespace" in said or "uid map" in said or "not permitted" in said or "RTM_NEWADDR" in said:
        return SandboxError(
            f"bubblewrap may not make a sandbox here ({said}); on Ubuntu 24.04 or later run "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, and do not grade inside a container."
        )
    return SandboxError(f"bubblewrap did not start ({said or 'it says nothing'}).")


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Let go of a sandbox that may not have begun; what waits in it for a byte ends without one."""
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _kill(process: subprocess.Popen[bytes], init: int) -> None:
    """End the sandbox: when its first process is dead, the kernel has ended all the others."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(init, signal.SIGKILL)
    _is_ready(init, _END_S)
    process.kill()
    process.wait()
