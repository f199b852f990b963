"""Learning a behavior from comparisons of short clips, where nobody could write the reward down.

People, the rewards that are learnt from them, and the policy go on together: the policy gets to where nobody was asked
about yet, and there people are asked again, most of all where the rewards' ensemble disagrees.

Reference: Christiano et al. 2017, 'Deep reinforcement learning from human preferences', arXiv:1706.03741.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rlhf_lab.control.actor_critic import ControlConfig, Learner
from rlhf_lab.control.ensemble import EnsembleConfig, Pair, RewardEnsemble, Segment
from rlhf_lab.control.simulation import Fragment
from rlhf_lab.equations.preference import segment_loss
from rlhf_lab.seams import Equation

People = Callable[[Sequence[Pair]], Sequence[float | None]]
"""Who compares: how sure it is that the first of each pair is the better, 1, 0, or 0.5; None where they cannot tell."""


def by_true_return(pairs: Sequence[Pair]) -> list[float | None]:
    """The comparisons of somebody who knows the task's reward, and never errs (Christiano et al. 2017, section 3.1)."""
    return [float(np.heaviside(one.true_return - two.true_return, 0.5)) for one, two in pairs]


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Preference RL; what is not of the paper's section 2.2 is ours."""

    num_labels: int = 700
    at_once: int = 10
    """Labels that are asked for together, at least."""
    first_share: float = 0.25
    """Of the labels, asked about before the policy has learnt anything."""
    decay: float = 0.25
    """Share of `control.num_steps` after which labels come half as often."""
    segment: int = 25
    """Steps of a clip."""
    candidates: int = 10
    """Pairs looked at for each that is asked about: those on which the members disagree most; 1 asks about any."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    control: ControlConfig = field(default_factory=ControlConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 1 <= self.segment <= self.control.fragment:
            raise ValueError(
                f"segment ({self.segment}) must be between 1 and control.fragment ({self.control.fragment}) steps."
            )
        if not 0 < self.first_share <= 1 or self.num_labels < 1:
            raise ValueError(
                f"num_labels ({self.num_labels}) must be at least 1, first_share ({self.first_share}) in (0, 1]."
            )
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {self.candidates}.")

    def labels_by(self, num_steps: int) -> int:
        """Labels that are to have been asked for after so many steps: the rate falls as 1 / (1 + steps / decay)."""
        first = self.first_share * self.num_labels
        whole = self.control.num_steps
        slowed = [np.log1p(steps / (self.decay * whole)) for steps in (num_steps, whole)]
        return round(first + (self.num_labels - first) * min(slowed[0] / slowed[1], 1.0))


class PreferenceLearner:
    """A policy that learns what people mean, from what they say of pairs of its own segments."""

    def __init__(
        self, task: str, config: PreferenceConfig | None = None, *, seed: int = 0, loss: Equation = segment_loss
    ) -> None:
        """Begin without knowing anything.

        Args:
            task: A name of Gymnasium.
            config: Settings.
            seed: Of everything that is drawn.
            loss: Of each comparison, such as one's own `segment_loss`.
        """
        self.config = config or PreferenceConfig()
        self.learner = Learner(task, self.config.control, seed=seed)
        size = self.learner.simulation.observation_space.shape[0] + self.learner.simulation.num_actions
        self.ensemble = RewardEnsemble(size, self.config.ensemble, seed=seed + 1, loss=loss)
        self.num_asked = 0
        """Pairs that people were asked about by `train`."""
        self.history: list[dict[str, Any]] = []
        """What each fragment brought."""
        self._recent: deque[Fragment] = deque(maxlen=5)
        self._rng = np.random.default_rng(seed + 2)
        self._watch(self.learner.collect())

    def _watch(self, fragment: Fragment) -> None:
        self._recent.append(fragment)
        self.ensemble.see(fragment)

    def questions(self, number: int) -> list[Pair]:
        """Pairs of segments of what happened lately: those on which the ensemble disagrees most.

        Args:
            number: Of pairs.
        """
        pairs = [(self._segment(), self._segment()) for _ in range(number * self.config.candidates)]
        if self.config.candidates == 1:
            return pairs
        return [pairs[index] for index in self.ensemble.disagreement(pairs).topk(number).indices.tolist()]

    def _segment(self) -> Segment:
        fragment = self._recent[self._rng.integers(len(self._recent))]
        copy, steps = self._rng.integers(len(fragment.rewards)), self.config.segment
        start = self._rng.integers(fragment.rewards.shape[1] - steps + 1)
        part = (copy, slice(start, start + steps))
        return Segment(
            fragment.observations[part],
            fragment.actions[part],
            fragment.rewards[part].sum().item(),
            fragment.states[part],
        )

    def tell(self, pairs: Sequence[Pair], answers: Sequence[float | None]) -> None:
        """Learn from comparisons.

        Args:
            pairs: From `questions`.
            answers: How sure it is that the first is the better, in [0, 1]; None is left out.

        Raises:
            ValueError: There are not as many answers as pairs, one is no share, or a pair's segments differ in length.
        """
        _check_answers(pairs, answers, self.config.segment)
        told = [(pair, answer) for pair, answer in zip(pairs, answers, strict=True) if answer is not None]
        if told:
            self.ensemble.add([pair for pair, _ in told], [float(answer) for _, answer in told])
            self.ensemble.fit()

    def train(self, num_steps: int, people: People | None = None) -> None:
        """Let the policy learn from the rewards, as far as they are known.

        Args:
            num_steps: Of all copies of the task; whole fragments.
            people: Asked as the config says; without them the rewards stay as they are.

        Raises:
            ValueError: Nobody has told anything yet.
        """
        learner = self.learner
        if not people and not len(self.ensemble):
            raise ValueError("nobody has compared anything yet; answer some `questions` with `tell`, or give people.")
        end = learner.num_steps + num_steps
        with tqdm(total=num_steps, desc="preferences", unit="step") as bar:
            while learner.num_steps < end:
                if people:
                    self._ask(people)
                fragment = learner.collect()
                self._watch(fragment)
                metrics = learner.learn(fragment, self.ensemble.rewards(fragment))
                self.history.append(
                    {"steps": learner.num_steps, "labels": len(self.ensemble)}
                    | {"true_reward": fragment.rewards.mean().item(), **metrics}
                )
                bar.update(fragment.rewards.numel())

    def _ask(self, people: People) -> None:
        number = self.config.labels_by(self.learner.num_steps) - self.num_asked
        if number >= min(self.config.at_once, self.config.num_labels - self.num_asked) > 0:
            pairs = self.questions(number)
            self.tell(pairs, people(pairs))
            self.num_asked += number


def _check_answers(pairs: Sequence[Pair], answers: Sequence[float | None], num_steps: int) -> None:
    if len(answers) != len(pairs):
        raise ValueError(f"there are {len(answers)} answers to {len(pairs)} pairs; give one for each, or None.")
    for (one, two), answer in zip(pairs, answers, strict=True):
        if {len(one.actions), len(two.actions)} != {num_steps}:
            raise ValueError(
                f"segments of {len(one.actions)} and {len(two.actions)} steps were compared; both must have "
                f"{num_steps}, as the config says."
            )
        if answer is not None and not 0 <= answer <= 1:
            raise ValueError(f"an answer must lie in [0, 1], or be None for 'can't tell', not {answer}.")
