"""TAMER: a person says good or bad while an agent acts, and the agent does what it expects to be called good.

What is learnt is H(s, a), what the person would say of an action, by regression; the agent takes the action of the
largest H. There is no return and no discount: the person has looked ahead already.

Reference: Knox and Stone 2009, 'Interactively Shaping Agents via Human Reinforcement: The TAMER Framework'.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium
import torch
from jaxtyping import Float
from torch import Tensor

from rlhf_lab.control.tasks import Features, Opinion
from rlhf_lab.equations.preference import feedback_credit
from rlhf_lab.seams import Equation, checked


@dataclass(frozen=True, kw_only=True)
class TAMERConfig:
    """TAMER; the window is that of Knox's code, the rest is ours."""

    learning_rate: float = 0.5
    earliest: float = 0.2
    """Of a press after what it is about [s]."""
    latest: float = 0.8
    """And at most [s]. Where both are 0, a press is about the step that it falls into: no credit assignment."""
    steps_per_second: float = 10.0
    memory: float = 2.0
    """Steps that ended longer ago than this are forgotten [s]."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 <= self.earliest <= self.latest <= self.memory:
            raise ValueError(
                f"0 <= earliest <= latest <= memory must hold, not {self.earliest}, {self.latest}, {self.memory} s."
            )
        if not self.learning_rate > 0 or not self.steps_per_second > 0:
            raise ValueError(
                f"learning_rate ({self.learning_rate}) and steps_per_second ({self.steps_per_second}) must be above 0."
            )


@dataclass(frozen=True)
class Press:
    """What a person said, and when."""

    time: float
    """[s]"""
    value: float
    """1 is good, -1 bad."""


@dataclass(frozen=True)
class _Step:
    start: float
    end: float
    features: Float[Tensor, " size"]


@runtime_checkable
class Trainer(Protocol):
    """Who watches an agent, and presses."""

    def watch(self, observation: Any, action: int, start: float, end: float) -> None:
        """See a step, from `start` to `end` [s]."""
        ...

    def presses(self, until: float) -> Sequence[Press]:
        """What was pressed up to then, and not handed over yet; in the order of time."""
        ...


class TAMERAgent:
    """H(s, a) = w . features(s, a), learnt from presses, and acted on greedily."""

    def __init__(
        self,
        features: Features,
        config: TAMERConfig | None = None,
        *,
        seed: int = 0,
        credit: Equation = feedback_credit,
    ) -> None:
        """Begin without knowing anything.

        Args:
            features: Of each action, for an observation.
            config: Settings.
            seed: Breaks ties between actions.
            credit: What a press says about each step, such as one's own `feedback_credit`.
        """
        self.config = config or TAMERConfig()
        self.weights: Float[Tensor, " size"] | None = None
        self.clock = 0.0
        """When its last step ended [s]."""
        self._features, self._rng = features, torch.Generator().manual_seed(seed)
        self._credit = checked("credit", credit, feedback_credit, lambda starts, *_: starts.shape, "step")
        self._steps: deque[_Step] = deque()

    def expected(self, observation: Any) -> Float[Tensor, " actions"]:
        """H of each action: what the person is expected to say."""
        rows = self._features(observation)
        return rows.new_zeros(len(rows)) if self.weights is None else rows @ self.weights

    def act(self, observation: Any, start: float) -> int:
        """The action that is expected to be liked best, from the moment `start` on [s].

        Raises:
            ValueError: H has become infinite.
        """
        rows = self._features(observation)
        if self.weights is None:
            self.weights = torch.zeros(rows.shape[1])
        expected = rows @ self.weights
        if not expected.isfinite().all():
            raise ValueError(
                f"what the agent expects to hear became {expected.tolist()}; lower learning_rate (now "
                f"{self.config.learning_rate}), or make the features smaller."
            )
        best = (expected == expected.max()).nonzero()[:, 0]
        action = int(best[torch.randint(len(best), (), generator=self._rng)])
        self.clock = start + 1.0 / self.config.steps_per_second
        self._steps.append(_Step(start, self.clock, rows[action].clone()))
        while self._steps[0].end < start - self.config.memory:
            self._steps.popleft()
        return action

    def hear(self, press: Press) -> None:
        """Move H of the steps that the press may be about, one after the other, each by its credit.

            w <- w + alpha c (h - w . phi) phi

        So did the first TAMER; a later one of its authors adds up all that was said of a step, and learns it once.

        Args:
            press: Its time is on the agent's clock.
        """
        weights = self.weights
        if not self._steps or weights is None:
            return
        # Before the press: an hour of seconds would not be exact enough in single precision.
        starts, ends = (
            torch.tensor([getattr(step, name) - press.time for step in self._steps]) for name in ("start", "end")
        )
        credits = self._credit(starts, ends, 0.0, earliest=self.config.earliest, latest=self.config.latest)
        for step, credit in zip(self._steps, credits.tolist(), strict=True):
            if credit > 0:
                error = press.value - weights @ step.features
                weights += self.config.learning_rate * credit * error * step.features


class SimulatedTrainer:
    """Watches as a person does: not every step, and late. It lives on the agent's clock, so nothing has to wait."""

    def __init__(self, judge: Opinion, *, attention: float = 0.5, seed: int = 0) -> None:
        """Know the task.

        Args:
            judge: What it thinks of an action.
            attention: Share of the steps that it says something about.
            seed: Of its attention and its delays.

        Raises:
            ValueError: `attention` is no share.
        """
        if not 0 <= attention <= 1:
            raise ValueError(f"attention must lie in [0, 1], not {attention}.")
        self._judge, self._attention = judge, attention
        self._rng = torch.Generator().manual_seed(seed)
        self._waiting: list[Press] = []

    def watch(self, observation: Any, action: int, start: float, end: float) -> None:
        """Perhaps look at some moment of it, and press 0.2 s and two exponential times of 0.15 s later."""
        attention, moment = torch.rand(2, generator=self._rng).tolist()
        delay = 0.2 + torch.empty(2).exponential_(1 / 0.15, generator=self._rng).sum().item()
        if attention < self._attention and (opinion := self._judge(observation, action)):
            self._waiting.append(Press(start + moment * (end - start) + delay, opinion))

    def presses(self, until: float) -> Sequence[Press]:
        """Those that have been made by then."""
        made = sorted((press for press in self._waiting if press.time <= until), key=lambda press: press.time)
        self._waiting = [press for press in self._waiting if press.time > until]
        return made


def tamer(
    task: gymnasium.Env[Any, Any],
    agent: TAMERAgent,
    trainer: Trainer,
    *,
    num_episodes: int,
    max_steps: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Let the trainer shape the agent, which changes; returns `episode`, `steps`, `return`, `presses` of each episode.

    Args:
        task: With a finite set of actions.
        agent: Goes on from what it knows, and from the time on its clock.
        trainer: Of this agent alone: its presses are on the agent's clock. It is asked after every step; one who lives
            in real time waits there.
        num_episodes: To play.
        max_steps: An episode ends there, if the task does not end it before.
        seed: Of where episodes begin.
    """
    rows = []
    for episode in range(num_episodes):
        observation, _ = task.reset(seed=seed + episode)
        steps, presses, total, ended, truncated = 0, 0, 0.0, False, False
        while not (ended or truncated) and steps < max_steps:
            start = agent.clock
            action = agent.act(observation, start)
            trainer.watch(observation, action, start, agent.clock)
            observation, reward, ended, truncated, _ = task.step(action)
            steps, total = steps + 1, total + float(reward)
            for press in trainer.presses(agent.clock):
                agent.hear(press)
                presses += 1
        rows.append({"episode": episode, "steps": steps, "return": total, "presses": presses})
    return rows
