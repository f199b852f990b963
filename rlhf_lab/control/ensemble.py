"""Rewards of an agent's steps, learnt from comparisons of segments by several networks.

Differences from a reward model of texts (`training/reward_model.py`):
- what is compared are segments of behavior, and the reward of a segment is the sum of its steps' rewards;
- each member learns from a bootstrap of the comparisons, and is looked at on those that it did not draw;
- a label is taken to be random in one case of ten.

Reference: Christiano et al. 2017, 'Deep reinforcement learning from human preferences', arXiv:1706.03741, section 2.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from rlhf_lab.control.simulation import Fragment
from rlhf_lab.equations.preference import segment_loss
from rlhf_lab.seams import Equation, checked


@dataclass(frozen=True)
class Segment:
    """A short piece of behavior, as it is compared."""

    observations: Float[Tensor, "step size"]
    actions: Float[Tensor, "step action"]
    true_return: float
    """Of the task's own reward, where it has one; the learner does not look at it."""
    states: Float[np.ndarray, "step state"]
    """Of the simulator, for `pictures`."""


Pair = tuple[Segment, Segment]


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Learning rewards from comparisons; the sizes are Christiano et al. 2017's for MuJoCo, or else ours."""

    num_members: int = 3
    error_rate: float = 0.1
    """Share of the answers that are taken to be random."""
    learning_rate: float = 1e-3
    updates: int = 40
    """Each time that comparisons come."""
    batch_size: int = 64
    """Comparisons in an update."""
    hidden_size: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.num_members < 1:
            raise ValueError(f"num_members must be at least 1, not {self.num_members}.")
        if not 0 <= self.error_rate < 1:
            raise ValueError(f"error_rate must lie in [0, 1), not {self.error_rate}.")


class _Members(nn.Module):
    """Networks of one shape, computed at once."""

    def __init__(self, num_members: int, inputs: int, hidden: int) -> None:
        super().__init__()
        sizes = [(inputs, hidden), (hidden, hidden), (hidden, 1)]
        # As `nn.Linear` draws them.
        self.weights = nn.ParameterList(
            torch.empty(num_members, *size).uniform_(-1, 1) / math.sqrt(size[0]) for size in sizes
        )
        self.biases = nn.ParameterList(torch.zeros(num_members, 1, size[1]) for size in sizes)

    def forward(self, inputs: Float[Tensor, "members rows size"]) -> Float[Tensor, "members rows"]:
        hidden = inputs
        for weight, bias in zip(self.weights, self.biases, strict=True):
            # Leaky, as theirs: the identity before the first layer would not be.
            hidden = torch.baddbmm(bias, hidden if hidden is inputs else leaky_relu(hidden, 0.01), weight)
        return hidden.squeeze(-1)


class RewardEnsemble:
    """Rewards of steps, learnt from comparisons of segments by several networks."""

    def __init__(self, size: int, config: EnsembleConfig, *, seed: int = 0, loss: Equation = segment_loss) -> None:
        """Begin without knowing anything.

        Args:
            size: Of an observation and an action, together.
            config: Settings.
            seed: Of the networks, the bootstraps and the batches.
            loss: Of each comparison, such as one's own `segment_loss`.
        """
        self._loss = checked("loss", loss, segment_loss, lambda returns, *_: returns.shape, "comparison")
        self._config, self._rng = config, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._members = _Members(config.num_members, size, config.hidden_size)
        self._optimizer = torch.optim.Adam(self._members.parameters(), config.learning_rate)
        self._seen = RunningMeanStd(shape=(size,))
        self._scales = [RunningMeanStd() for _ in range(config.num_members)]
        self.regularization = 1e-4
        """Weight of the squared weights; it follows the gap between the losses on known and on held-out comparisons."""
        self._inputs = torch.empty(0, 2, 0, size)
        self._first_prob = torch.empty(0)
        self._weights = torch.empty(config.num_members, 0)

    def __len__(self) -> int:
        """Comparisons that it knows."""
        return len(self._first_prob)

    def see(self, fragment: Fragment) -> None:
        """Know what observations and actions, and the members' rewards, are like by now."""
        inputs = _inputs(fragment.observations[:, :-1], fragment.actions).flatten(0, 1)
        self._seen.update(inputs.double().numpy())
        for scale, rewards in zip(self._scales, self._raw(inputs), strict=True):
            scale.update(rewards.double().numpy())

    def rewards(self, fragment: Fragment) -> Float[Tensor, "batch step"]:
        """Mean of the members' rewards, each with mean 0 and standard deviation 1 over what was seen."""
        return self._normalized(_inputs(fragment.observations[:, :-1], fragment.actions)).mean(0)

    def disagreement(self, pairs: Sequence[Pair]) -> Float[Tensor, " pairs"]:
        """Variance of the members' opinions on which is better."""
        returns = self._raw(torch.stack([_of_pair(pair) for pair in pairs])).sum(-1)
        return torch.sigmoid(returns[..., 0] - returns[..., 1]).var(0, correction=0)

    def add(self, pairs: Sequence[Pair], first_prob: Sequence[float]) -> None:
        """Know more comparisons; each is new to a member, or held out of it, as a bootstrap has it."""
        new = torch.stack([_of_pair(pair) for pair in pairs])
        self._inputs = torch.cat([self._inputs, new]) if len(self) else new
        self._first_prob = torch.cat([self._first_prob, torch.tensor(first_prob)])
        # A bootstrap draws each row Poisson(1) times, in the limit; 1 / e of the rows are not drawn.
        times = torch.poisson(torch.ones(len(self._scales), len(pairs)), generator=self._rng)
        self._weights = torch.cat([self._weights, times], dim=1)

    def fit(self) -> dict[str, float]:
        """Some updates of each member; returns mean losses on comparisons that members learn from, and on others."""
        if not bool(self._weights.any(1).all()):
            return {"loss": math.nan, "held_out_loss": math.nan}  # Some member has drawn nothing yet.
        for _ in range(self._config.updates):
            rows = torch.multinomial(self._weights, self._config.batch_size, replacement=True, generator=self._rng)
            self._optimizer.param_groups[0]["weight_decay"] = self.regularization
            self._optimizer.zero_grad()
            # The members share no weights: the sum trains each as if it were alone.
            self._losses(rows).mean(1).sum().backward()
            self._optimizer.step()
        with torch.no_grad():
            losses = self._losses(torch.arange(len(self)).expand(len(self._weights), -1))
        known = ((losses * self._weights).sum() / self._weights.sum()).item()
        held_out = losses[self._weights == 0].mean().item()
        if math.isfinite(held_out):
            ratio = held_out / known
            self.regularization *= 1.1 if ratio > 1.5 else 1 / 1.1 if ratio < 1.1 else 1.0
        return {"loss": known, "held_out_loss": held_out}

    def _losses(self, rows: Int[Tensor, "members batch"]) -> Float[Tensor, "members batch"]:
        inputs = self._standardized(self._inputs[rows])
        returns = self._members(inputs.flatten(1, 3)).view(inputs.shape[:-1]).sum(-1)
        error_rate = self._config.error_rate
        return self._loss(returns[..., 0], returns[..., 1], self._first_prob[rows], error_rate=error_rate)

    def _standardized(self, inputs: Tensor) -> Tensor:
        mean, spread = (torch.as_tensor(value, dtype=torch.float32) for value in (self._seen.mean, self._seen.var**0.5))
        return ((inputs - mean) / (spread + 1e-6)).clamp(-10.0, 10.0)

    @torch.no_grad()
    def _raw(self, inputs: Float[Tensor, "*rows size"]) -> Float[Tensor, "members ..."]:
        """Of each member, as they come."""
        standardized = self._standardized(inputs).flatten(0, -2)
        return self._members(standardized.expand(len(self._scales), -1, -1)).view(-1, *inputs.shape[:-1])

    def _normalized(self, inputs: Tensor) -> Tensor:
        mean, spread = (
            torch.tensor([float(getattr(scale, name)) for scale in self._scales]).view(-1, 1, 1)
            for name in ("mean", "var")
        )
        return (self._raw(inputs) - mean) / (spread.sqrt() + 1e-6)


def _inputs(
    observations: Float[Tensor, "*rows size"], actions: Float[Tensor, "*rows action"]
) -> Float[Tensor, "*rows both"]:
    # What lies outside of the bounds is done as if it were on them, and looks the same.
    return torch.cat([observations, actions.clamp(-1.0, 1.0)], dim=-1)


def _of_pair(pair: Pair) -> Float[Tensor, "2 step both"]:
    return torch.stack([_inputs(segment.observations, segment.actions) for segment in pair])
