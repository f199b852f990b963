"""Ours and a peer's program, kept loaded, and timed in turns."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import Settings, write

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / "peers"
PYTHONS = {"ppo": ROOT / ".venv-trl/bin/python", "trl": ROOT / ".venv-peers/bin/python"}


ALIKE = {
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    # As `make` sets them: without these, glibc hands large blocks back and fetches them anew, which costs TRL half.
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}
"""The same for both sides."""


class Side:
    """A program that does a measured run on each request."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        """Start it, and wait until it is ready."""
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the program runs
        environment = os.environ | ALIKE
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self._answer()

    def measure(self) -> dict[str, Any]:
        """One run's figures."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self.log.seek(0)
            raise RuntimeError(f"{self._process.args} stopped ({self._process.returncode}):\n{self.log.read()[-4000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Let the program end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self.log.close()


@dataclass(frozen=True)
class Peer:
    """A program to compare with."""

    name: str
    python: str
    script: str
    options: tuple[str, ...] = ()


def measure(settings: Settings, peer: Peer | None, pairs: int) -> dict[str, list[dict[str, Any]]]:
    """`pairs` runs of each side, in alternating order, after one of each that is thrown away."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "work")
        write(settings, folder)
        sides = {"ours": Side([sys.executable, "-m", "benchmarks.ours", folder])}
        try:
            if peer:
                sides[peer.name] = Side([PYTHONS[peer.python], PEERS / peer.script, folder, *peer.options])
            return _in_turns(sides, pairs)
        finally:
            for side in sides.values():
                side.close()


def _in_turns(sides: dict[str, Side], pairs: int) -> dict[str, list[dict[str, Any]]]:
    # Memory is read from the first run: later ones start with what it left in the process.
    first = {name: side.measure() for name, side in sides.items()}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for pair in range(pairs):
        for name in list(sides)[:: 1 if pair % 2 else -1]:
            row = sides[name].measure()
            rows[name].append(row | {key: first[name][key] for key in ("peak_mb", "loaded_mb")})
    return rows


def median(rows: Sequence[dict[str, Any]], name: str) -> float:
    """The middle of one figure over the runs."""
    return statistics.median(row[name] for row in rows)
