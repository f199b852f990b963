"""Gymnasium tasks, seen as TAMER sees them: a row of features for each action, and what a good trainer would say."""

import os
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float
from torch import Tensor

Features = Callable[[Any], Float[Tensor, "actions size"]]
"""From an observation to a row for each action."""
Opinion = Callable[[Any, int], float]
"""What somebody who knows the task thinks of an action: 1 is good, -1 bad, 0 neither."""


def make_task(name: str, **settings: Any) -> gymnasium.Env[Any, Any]:
    """A task of Gymnasium by its name, without its limit on steps.

    Raises:
        ValueError: There is no such task, or it needs a library that is not installed.
    """
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        # Pictures need no screen; SDL, which draws them, looks for one all the same, and complains of its absence.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        return gymnasium.make(name, max_episode_steps=-1, **settings)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(
            f"the task {name} needs more than Gymnasium ({error}); install it with: pip install 'rlhf-lab[control]'."
        ) from error
    except gymnasium.error.Error as error:
        raise ValueError(
            f"Gymnasium has no task {name!r} ({error}); `gymnasium.pprint_registry()` lists them."
        ) from error


def radial_features(task: gymnasium.Env[Any, Any], *, grid: int = 10) -> Features:
    """Gaussian bumps over the observations, a set of them for each action; each row has length 1.

    Args:
        task: Its observations are a bounded box, its actions a finite set.
        grid: Centres along each dimension; a bump's standard deviation is the distance between two.

    Raises:
        ValueError: The task has other spaces, `grid` is below 2, or there would be over 10,000 bumps.
    """
    seen, actions = task.observation_space, task.action_space
    if not isinstance(actions, Discrete):
        raise ValueError(f"the actions must be a finite set (Discrete), not {actions}.")
    if not isinstance(seen, Box) or len(seen.shape) != 1 or not seen.is_bounded():
        raise ValueError(f"the observations must be a bounded Box of one dimension, not {seen}.")
    if grid < 2:
        raise ValueError(f"grid must be at least 2, not {grid}.")
    if grid ** seen.shape[0] > 10_000:
        raise ValueError(f"{grid} bumps along each of {seen.shape[0]} dimensions are too many; lower grid.")
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (seen.low, seen.high))
    centers = torch.cartesian_prod(*[torch.linspace(0.0, 1.0, grid)] * len(low)).view(-1, len(low))
    count = int(actions.n)

    def features(observation: Any) -> Float[Tensor, "actions size"]:
        place = (torch.as_tensor(np.asarray(observation), dtype=torch.float32) - low) / (high - low)
        bumps = torch.exp(-0.5 * ((place - centers) * (grid - 1)).square().sum(-1))
        return torch.block_diag(*[bumps / bumps.norm()] * count)

    return features


def judge_mountain_car(observation: Any, action: int) -> float:
    """Whether an action of MountainCar-v0 gives the car energy: it pushes the way that the car moves."""
    velocity = float(observation[1])
    if abs(velocity) < 1e-3:
        return -1.0 if action == 1 else 1.0
    return 1.0 if action == (2 if velocity > 0 else 0) else -1.0
