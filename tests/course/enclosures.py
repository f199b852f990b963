"""Runs small programs and notebooks in the sandbox, for the tests of it."""

import json
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lab.course.bubblewrap import run_enclosed
from rlhf_lab.course.masking import data_folder
from rlhf_lab.course.sandbox import Limits, Ran, run_notebook
from tests.capabilities import ROOT

REPORT = """
import json, os, socket

def report(**values):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["RLHF_LAB_CHECK_SOCKET"])
        connection.sendall(json.dumps(values).encode())
"""


def enclosed(code: str, *, stop: Callable[[], str | None] | None = None, **limits: Any) -> Ran:
    """Run a few lines of Python in bubblewrap, without a notebook."""
    return run_enclosed(
        [sys.executable, "-I", "-c", code],
        python=Path(sys.executable),
        shown={},
        environment={"PATH": "/usr/bin:/bin"},
        limits=Limits(**{"wall_s": 60.0, **limits}),
        stop=stop,
    )


@dataclass
class Notebook:
    """A run of a notebook whose cells can call `report(...)`."""

    ran: Ran
    reports: list[dict[str, Any]]


def run_cells(
    cells: Sequence[str],
    view: Path,
    *,
    trusted: bool = False,
    stop: Callable[[list[dict[str, Any]]], str | None] = lambda reports: None,
    **limits: Any,
) -> Notebook:
    """Run cells under nbval in the sandbox; a socket takes in what they report."""
    reports: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/check.sock")
        server.listen()
        threading.Thread(target=_take_in, args=(server, reports), daemon=True).start()
        path = Path(folder, "graded.ipynb")
        path.write_text(json.dumps(notebook_of([REPORT, *cells])), encoding="utf-8")
        ran = run_notebook(
            path,
            view,
            Path(folder, "check.sock"),
            data=data_folder(),
            limits=Limits(**limits),
            trusted=trusted,
            stop=lambda: stop(reports),
        )
    return Notebook(ran, reports)


def notebook_of(cells: Sequence[str]) -> dict[str, Any]:
    fields = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {
        "cells": [{**fields, "id": f"cell-{place}", "source": cell} for place, cell in enumerate(cells)],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _take_in(server: socket.socket, reports: list[dict[str, Any]]) -> None:
    try:
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as file:
                reports.append(json.loads(file.read()))
    except OSError:
        pass


@dataclass
class Sleeper:
    """A process that bears a name by which it is found from outside of the sandbox."""

    name: str

    @property
    def code(self) -> str:
        """Lines that start it apart from its parent, its session, and its group."""
        return f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv('/usr/bin/sleep', ['{self.name}', '1000'])
    os._exit(0)
"""

    def is_alive(self) -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes().startswith(self.name.encode() + b"\0"):
                    return True
            except OSError:
                pass
        return False

    def wait_until(self, alive: bool, seconds: float = 20.0) -> bool:
        end = time.monotonic() + seconds
        while self.is_alive() is not alive and time.monotonic() < end:
            time.sleep(0.05)
        return self.is_alive() is alive


def sleeper() -> Sleeper:
    return Sleeper(f"sleeper-{uuid.uuid4().hex}")


def without_rights() -> list[str]:
    """The start of a command that is run by a user who owns nothing, if we are root; nothing if we are not.

    Where only root may pass on the way to the checkout or to Python, the way is opened for this command alone.
    """
    if os.geteuid() != 0:
        return []
    paths = [ROOT, *map(Path, dict.fromkeys([sys.prefix, sys.base_prefix]))]
    closed = {parent for path in paths for parent in path.parents if not parent.stat().st_mode & 0o001}
    options = [part for path in sorted(closed) for part in ("--tmpfs", str(path))]
    for path in paths:
        if closed & set(path.parents):
            for parent in reversed([parent for parent in path.parents if closed & set(parent.parents)]):
                options += ["--perms", "0755", "--dir", str(parent)]
            options += ["--ro-bind", str(path), str(path)]
    drop = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--")
    return ["bwrap", "--dev-bind", "/", "/", *options, "--", *drop]
