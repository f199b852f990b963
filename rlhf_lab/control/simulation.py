"""Several copies of a Gymnasium task side by side, cut into fragments, and the pictures of what happened there.

A task here never ends: where it would, it stands still for a moment, without reward, and begins anew, and nobody is
told. An end is a hint about the reward that an agent without one must not have (Christiano et al. 2017, appendix A).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import one_hot

from rlhf_lab.control.tasks import make_task

Act = Callable[[Tensor], Tensor]
"""From the observations of all copies to an action each."""


@dataclass(frozen=True)
class Fragment:
    """What all copies saw and did over some steps."""

    observations: Float[Tensor, "batch next_step size"]
    """One more than there are actions: the last is what they see now."""
    actions: Float[Tensor, "batch step action"]
    """As they were drawn: numbers may lie outside of [-1, 1]; a finite choice is a one in a row of zeros."""
    rewards: Float[Tensor, "batch step"]
    """Of the task itself."""
    states: Float[np.ndarray, "batch step state"]
    """Of the simulator before each step, for pictures."""


class Simulation:
    """Copies of a task, spread over the time of an episode, so that a fragment of all shows every part of it."""

    def __init__(
        self, task: str, *, num_copies: int, horizon: int, fragment: int, rest: int = 10, seed: int = 0
    ) -> None:
        """Begin the first episodes.

        Args:
            task: A name of Gymnasium.
            num_copies: Side by side.
            horizon: Steps of an episode.
            fragment: Steps that are run at once; a divisor of `horizon`.
            rest: Steps that a copy stands still after what would have ended it.
            seed: Of where episodes begin.

        Raises:
            ValueError: There is no such task, it needs a library that is not installed, or it has other spaces.
        """
        if num_copies < 1 or fragment < 1 or horizon < 1 or horizon % fragment:
            raise ValueError(
                f"num_copies ({num_copies}) and fragment ({fragment}) must be at least 1, and horizon ({horizon}) a "
                "multiple of fragment."
            )
        self._tasks = [make_task(task, disable_env_checker=True) for _ in range(num_copies)]
        self.action_space, self.observation_space = _checked_spaces(task, self._tasks[0])
        seeds = np.random.SeedSequence(seed).generate_state(num_copies)
        self._now = [copy.reset(seed=int(seed))[0] for copy, seed in zip(self._tasks, seeds, strict=True)]
        self._horizon, self._fragment, self._pause = horizon, fragment, rest
        self._pauses = [0] * num_copies
        self._ages = [index % (horizon // fragment) * fragment for index in range(num_copies)]

    @property
    def now(self) -> Float[Tensor, "batch size"]:
        """What each copy sees."""
        return torch.as_tensor(np.stack(self._now), dtype=torch.float32)

    @property
    def num_actions(self) -> int:
        """Numbers in a row of `Fragment.actions`."""
        return int(self.action_space.n) if isinstance(self.action_space, Discrete) else self.action_space.shape[0]

    def run(self, act: Act) -> Fragment:
        """Let all copies act; those whose episode is then over begin a new one.

        Args:
            act: Gives an action for each copy: an index, or numbers in [-1, 1] that are spread over the bounds.
        """
        seen, actions, rewards, states = [self.now], [], [], []
        for _ in range(self._fragment):
            chosen = act(seen[-1])
            states.append(np.stack([_state(task) for task in self._tasks]))
            rewards.append([self._advance(index, action) for index, action in enumerate(self._native(chosen))])
            is_choice = isinstance(self.action_space, Discrete)
            actions.append(one_hot(chosen, self.num_actions).float() if is_choice else chosen)
            seen.append(self.now)
        for index, age in enumerate(self._ages):
            self._ages[index] = (age + self._fragment) % self._horizon
            if not self._ages[index]:
                self._begin(index)
        both = torch.stack(seen, 1), torch.stack(actions, 1)
        return Fragment(*both, torch.tensor(rewards).T.contiguous(), np.stack(states, 1))

    def _advance(self, index: int, action: Any) -> float:
        if self._pauses[index]:
            self._pauses[index] -= 1
            if not self._pauses[index]:
                self._begin(index)
            return 0.0
        self._now[index], reward, ended, _, _ = self._tasks[index].step(action)
        self._pauses[index] = self._pause if ended else 0
        return float(reward)

    def _begin(self, index: int) -> None:
        self._now[index], _ = self._tasks[index].reset()
        self._pauses[index] = 0

    def _native(self, actions: Tensor) -> Any:
        if isinstance(self.action_space, Discrete):
            return actions.tolist()
        low, high = self.action_space.low, self.action_space.high
        return low + (actions.clamp(-1.0, 1.0).numpy() + 1.0) / 2.0 * (high - low)


def _checked_spaces(name: str, task: gymnasium.Env[Any, Any]) -> tuple[Discrete | Box, Box]:
    actions, seen = task.action_space, task.observation_space
    if not isinstance(actions, Discrete) and not (
        isinstance(actions, Box) and len(actions.shape) == 1 and actions.is_bounded()
    ):
        raise ValueError(
            f"the actions of {name} must be a finite set (Discrete) or a bounded Box of one dimension, not {actions}."
        )
    if not isinstance(seen, Box) or len(seen.shape) != 1:
        raise ValueError(f"the observations of {name} must be a Box of one dimension, not {seen}.")
    return actions, seen


def _state(task: gymnasium.Env[Any, Any]) -> np.ndarray:
    """The simulator's state: MuJoCo's positions and velocities, or what Gymnasium's own tasks call so."""
    inner: Any = task.unwrapped
    if hasattr(inner, "data"):
        return np.concatenate([inner.data.qpos, inner.data.qvel])
    if not hasattr(inner, "state"):
        raise ValueError(f"{inner} does not show its state, which clips are made of; give it an attribute `state`.")
    return np.array(inner.state, dtype=float)


def pictures(
    task: gymnasium.Env[Any, Any], states: Float[np.ndarray, "step state"]
) -> UInt8[np.ndarray, "step height width 3"]:
    """What the simulator looked like at each of `states`.

    Args:
        task: Made with `render_mode="rgb_array"`, of the kind that the states are of.
        states: A row of `Fragment.states`.

    Raises:
        ValueError: The task makes no pictures.
    """
    if task.render_mode != "rgb_array":
        raise ValueError(
            f'the task makes no pictures (render_mode is {task.render_mode!r}); make it with render_mode="rgb_array".'
        )
    task.reset(seed=0)
    inner: Any = task.unwrapped
    frames = []
    for state in states:
        if hasattr(inner, "data"):
            inner.set_state(state[: inner.model.nq], state[inner.model.nq :])
        else:
            inner.state = state
        frames.append(task.render())
    return np.stack(frames).astype(np.uint8)
