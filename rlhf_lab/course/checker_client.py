"""The grader's side of the checker: starts its process, and asks it."""

import atexit
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any


class GradingError(ValueError):
    """Grading cannot begin; the message says what to mend."""


class CheckerProcess:
    """The process that judges; it loads PyTorch once and serves one submission after the other."""

    def __init__(self) -> None:
        """Start it; it ends with this process."""
        command = [sys.executable, "-m", "rlhf_lab.course.checker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lock = threading.Lock()

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Its reply to a command.

        Raises:
            GradingError: It cannot do what is asked, or it is gone.
        """
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(command) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError:
                line = ""
        if not line:
            raise GradingError("the checker's process ended; run the same command again.")
        reply = json.loads(line)
        if "error" in reply:
            raise GradingError(str(reply["error"]))
        return reply

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        self._process.communicate()


_mine: list[CheckerProcess] = []


def own_checker() -> CheckerProcess:
    """This process' checker."""
    if not _mine or not _mine[0].is_alive:
        _mine[:] = [CheckerProcess()]
        atexit.register(_mine[0].close)
    return _mine[0]
