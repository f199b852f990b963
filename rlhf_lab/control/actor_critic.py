"""A small actor-critic for control tasks: PPO with the equations of the policies that write.

Differences from PPO on text (`training/ppo.py`):
- actions are choices or numbers, and a fragment of an episode stands where a response did;
- there is no reference, and so no KL penalty: nothing was there before that should be kept;
- the critic's value of what comes after the fragment is added to its last reward, as the task goes on there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers.utils import RunningMeanStd
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal
from tqdm.auto import tqdm

from rlhf_lab.control.simulation import Fragment, Simulation
from rlhf_lab.equations.policy_gradient import clipped_surrogate, gae
from rlhf_lab.equations.sequence import masked_whiten

Rewards = Callable[[Fragment], Float[Tensor, "batch step"]]
"""What each step of a fragment is worth."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """PPO on control tasks."""

    num_steps: int = 100_000
    """Of all copies, until the learning rate has fallen to 0."""
    num_copies: int = 16
    """Of the task, side by side."""
    fragment: int = 50
    """Steps of each copy between two updates."""
    horizon: int = 200
    """Steps of an episode."""
    num_epochs: int = 6
    minibatches: int = 4
    """In an epoch, each of whole fragments."""
    learning_rate: float = 1e-3
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_coef: float = 0.0
    hidden_size: int = 64

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.horizon % self.fragment:
            raise ValueError(f"horizon ({self.horizon}) must be a multiple of fragment ({self.fragment}).")
        if self.num_copies % self.minibatches:
            raise ValueError(f"num_copies ({self.num_copies}) must be a multiple of minibatches ({self.minibatches}).")


def _network(inputs: int, outputs: int, hidden: int, scale: float) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, outputs)
    )
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.zero_()
    return layers


class ActorCritic(nn.Module):
    """Who acts, and who expects; what they see is standardized by all that was seen so far."""

    def __init__(self, simulation: Simulation, config: ControlConfig, *, seed: int = 0) -> None:
        """Begin without knowing anything; first actions hardly depend on what is seen."""
        super().__init__()
        self._space: Discrete | Box = simulation.action_space
        size = simulation.observation_space.shape[0]
        self.seen = RunningMeanStd(shape=(size,))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = _network(size, simulation.num_actions, config.hidden_size, 0.01)
            self.critic = _network(size, 1, config.hidden_size, 1.0)
        self.log_std = nn.Parameter(torch.full((simulation.num_actions,), -0.5))

    def _standardized(self, observations: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows size"]:
        mean, spread = (torch.as_tensor(value, dtype=torch.float32) for value in (self.seen.mean, self.seen.var**0.5))
        return ((observations - mean) / (spread + 1e-6)).clamp(-10.0, 10.0)

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "batch size"], rng: torch.Generator | None = None) -> Tensor:
        """An action for each row: drawn, or without `rng` the likeliest."""
        distribution = self.distribution(observations)
        if rng is None:
            return distribution.mode
        if isinstance(distribution, Categorical):
            return torch.multinomial(distribution.probs, 1, generator=rng).squeeze(-1)
        return distribution.mean + distribution.stddev * torch.randn(distribution.mean.shape, generator=rng)

    def distribution(self, observations: Float[Tensor, "*rows size"]) -> Categorical | Independent:
        """Over actions."""
        outputs = self.actor(self._standardized(observations))
        if isinstance(self._space, Discrete):
            return Categorical(logits=outputs, validate_args=False)
        return Independent(
            Normal(outputs, self.log_std.exp().expand_as(outputs), validate_args=False), 1, validate_args=False
        )

    def values(self, observations: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows"]:
        """What is still to come, discounted."""
        return self.critic(self._standardized(observations)).squeeze(-1)


def _logprobs(
    distribution: Categorical | Independent, actions: Float[Tensor, "batch step action"]
) -> Float[Tensor, "batch step"]:
    return distribution.log_prob(actions.argmax(-1) if isinstance(distribution, Categorical) else actions)


class Learner:
    """An actor-critic in its task, learning from whatever rewards it is given."""

    def __init__(self, task: str, config: ControlConfig | None = None, *, seed: int = 0) -> None:
        """Begin.

        Args:
            task: A name of Gymnasium.
            config: Settings.
            seed: Of the networks, the episodes and the actions.
        """
        self.config, self._task = config or ControlConfig(), task
        shape = {name: getattr(self.config, name) for name in ("num_copies", "horizon", "fragment")}
        self.simulation = Simulation(task, seed=seed, **shape)
        self.network = ActorCritic(self.simulation, self.config, seed=seed)
        self._optimizer = torch.optim.Adam(self.network.parameters(), self.config.learning_rate, eps=1e-5)
        self._rng = torch.Generator().manual_seed(seed)
        self._scale = RunningMeanStd()
        self.num_steps = 0
        """Of all copies, so far."""

    def collect(self) -> Fragment:
        """What happens over the next steps."""
        fragment = self.simulation.run(lambda seen: self.network.act(seen, self._rng))
        self.num_steps += fragment.rewards.numel()
        return fragment

    def learn(self, fragment: Fragment, rewards: Float[Tensor, "batch step"]) -> dict[str, float]:
        """Update both networks: the actions that earned more than expected become likelier.

        Args:
            fragment: What `collect` gave last.
            rewards: What each step was worth; they are standardized by all that were seen so far.
        """
        config, network = self.config, self.network
        self._scale.update(rewards.flatten().double().numpy())
        scaled = (rewards - float(self._scale.mean)) / (float(self._scale.var) ** 0.5 + 1e-6)
        seen, mask = fragment.observations[:, :-1], torch.ones_like(scaled, dtype=torch.bool)
        with torch.no_grad():
            values = network.values(fragment.observations)
            old_logprobs = _logprobs(network.distribution(seen), fragment.actions)
        # The task goes on after the fragment; `gae` ends there with a value of 0.
        scaled[:, -1] += config.discount * values[:, -1]
        settings = {"discount": config.discount, "gae_lambda": config.gae_lambda}
        advantages = gae(scaled, values[:, :-1], mask, **settings)
        returns, whitened = advantages + values[:, :-1], masked_whiten(advantages, mask)
        left = 1.0 - self.num_steps / config.num_steps
        self._optimizer.param_groups[0]["lr"] = config.learning_rate * max(left, 0.0)
        losses = []
        for _ in range(config.num_epochs):
            for rows in torch.randperm(len(seen), generator=self._rng).chunk(config.minibatches):
                distribution = network.distribution(seen[rows])
                logprobs = _logprobs(distribution, fragment.actions[rows])
                policy_loss = clipped_surrogate(
                    logprobs, old_logprobs[rows], whitened[rows], clip_range=config.clip_range
                ).mean()
                value_loss = 0.5 * (network.values(seen[rows]) - returns[rows]).square().mean()
                entropy = distribution.entropy().mean()
                self._optimizer.zero_grad()
                (policy_loss + value_loss - config.entropy_coef * entropy).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                self._optimizer.step()
                losses.append([policy_loss.item(), value_loss.item(), entropy.item()])
        network.seen.update(seen.flatten(0, 1).double().numpy())
        return dict(zip(("policy_loss", "value_loss", "entropy"), torch.tensor(losses).mean(0).tolist(), strict=True))

    def train(self, num_steps: int) -> None:
        """Learn from the task's own reward."""
        end = self.num_steps + num_steps
        with tqdm(total=num_steps, desc=self._task, unit="step") as bar:
            while self.num_steps < end:
                fragment = self.collect()
                self.learn(fragment, fragment.rewards)
                bar.update(fragment.rewards.numel())

    def play(self, num_episodes: int = 20, *, seed: int = 12345) -> Fragment:
        """Whole episodes by the likeliest actions, each copy one; where the task would end, the copy stands still."""
        times = dict.fromkeys(("horizon", "fragment", "rest"), self.config.horizon)
        return Simulation(self._task, num_copies=num_episodes, seed=seed, **times).run(self.network.act)
