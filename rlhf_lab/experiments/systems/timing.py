"""Seconds of training, where other programs run on the same machine."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf_lab.runs import Run


class TimedRun(Run):
    """Notes the processor's time of each step, which other programs on the machine do not change much."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """As a run does, with `seconds` of the processor since the process began."""
        super().log(step, {**metrics, "seconds": time.process_time()})


def seconds_of_step(history: Sequence[Mapping[str, Any]]) -> float:
    """The median of the steps without a look at held-out posts, of which there must be some.

    Example:
        >>> seconds_of_step([{"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 9.0, "held_out/kl": 0.1}])
        2.0
    """
    stamps = [row["seconds"] for row in history]
    steps = zip(stamps, stamps[1:], history[1:], strict=False)
    return float(np.median([after - before for before, after, row in steps if "held_out/kl" not in row]))
