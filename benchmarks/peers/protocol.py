"""A measured run on request: each line on standard input makes one, and its result is one line of JSON.

Ours and the peers' programs share this file, whatever environment they run in. So a pair of them stays loaded and is
timed in turns, with nothing but the work between two clock readings.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], dict[str, Any]]


def serve(prepare: Callable[[], Work]) -> None:
    """Answer each request with `work`'s own figures and `seconds`, `peak_mb` and `loaded_mb`.

    Args:
        prepare: Makes fresh models, data and trainer, and returns the work that is timed. It is called for every run.
    """
    # Libraries print; the answers must stay readable.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers)
    for _ in sys.stdin:
        work = prepare()
        loaded = _reset_peak()
        start = time.perf_counter()
        figures = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        row = {**figures, "seconds": seconds, "peak_mb": _peak(), "loaded_mb": loaded}
        print(json.dumps(row), file=answers)


def _reset_peak() -> float:
    """Megabytes held now; from here on the peak counts."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024
