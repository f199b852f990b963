"""From a response's score to the losses of policy and critic.

The mask of a response is one run of True, from its first sampled token to its last (EOS, or where it was cut).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from rlhf_lab.equations.sequence import kl_k1


def kl_shaped_rewards(
    scores: Float[Tensor, " batch"],
    logprobs: Float[Tensor, "batch response"],
    ref_logprobs: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    kl_coef: float,
) -> Float[Tensor, "batch response"]:
    """Reward of each token: the price of its drift, and the score on the last one; zero outside the mask.

        r_t = -beta (log pi(y_t) - log pi_ref(y_t)) + [t is the last masked token] score

    A row's rewards sum to score - beta * KL(policy || reference), KL in its k1 estimate. A row without a masked token
    gets no score.

    Args:
        scores: One for each response.
        logprobs: Of the policy that sampled, without a graph.
        kl_coef: beta, price of one nat in units of `scores`.

    Reference:
        Ouyang et al. 2022, arXiv:2203.02155, eq. 2, without its pretraining term; Ziegler et al. 2019,
        arXiv:1909.08593, eq. 2. Huang et al. 2024, arXiv:2403.17031, and TRL put the score one step later, on the
        first padding token.

    Example:
        >>> mask = torch.tensor([[True, True, False]])
        >>> logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-3.0, -1.0, 0.0]])
        >>> kl_shaped_rewards(torch.tensor([5.0]), logprobs, ref_logprobs, mask, kl_coef=0.5)
        tensor([[-1.0000,  5.5000,  0.0000]])
    """
    masked_after = mask.flip(-1).cumsum(-1).flip(-1)
    is_last = mask & (masked_after == 1)
    rewards = -kl_coef * kl_k1(logprobs, ref_logprobs) + scores.unsqueeze(-1) * is_last
    return rewards.masked_fill(~mask, 0.0)


def replace_missing_eos_score(
    scores: Float[Tensor, "*batch"], finished: Bool[Tensor, "*batch"], missing_eos_score: float
) -> Float[Tensor, "*batch"]:
    """The scores, with a fixed one for responses that were cut before EOS.

    The score is *replaced*, so that a good text that does not stop earns no more than a bad one. TRL's
    `missing_eos_penalty` is instead subtracted from the reward model's score.

    Args:
        finished: The response ends with EOS.
        missing_eos_score: Below what finished responses earn; -1 where references score 0 on average.

    Reference:
        Huang et al. 2024, arXiv:2403.17031, detail 23.3.

    Example:
        >>> replace_missing_eos_score(torch.tensor([2.0, 3.0]), torch.tensor([True, False]), -1.0)
        tensor([ 2., -1.])
    """
    return scores.masked_fill(~finished, missing_eos_score)


def gae(
    rewards: Float[Tensor, "batch response"],
    values: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "batch response"]:
    """Generalized advantage estimates, zero outside the mask.

        A_t = sum_l (gamma * lambda)^l delta_{t+l},   delta_t = r_t + gamma V_{t+1} - V_t

    The response ends at its last masked token: the value after it is 0.

    Args:
        rewards: Reward of each response token, KL penalty included.
        values: Critic's estimate *before* each token, in the units of `rewards`.
        discount: gamma, in [0, 1].
        gae_lambda: lambda, in [0, 1]; 0 is the one-step TD error, 1 is Monte Carlo.

    Reference:
        Schulman et al. 2015, arXiv:1506.02438, eq. 16.

    Example:
        >>> ones = torch.ones(1, 3)
        >>> mask = torch.tensor([[True, True, False]])
        >>> gae(ones, 0 * ones, mask, discount=1.0, gae_lambda=1.0)
        tensor([[2., 1., 0.]])
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    delta = rewards + discount * functional.pad(values[:, 1:], (0, 1)) - values
    advantage = torch.zeros_like(delta[:, 0])
    advantages = torch.zeros_like(delta)
    for t in reversed(range(delta.shape[1])):
        advantage = delta[:, t] + discount * gae_lambda * advantage
        advantages[:, t] = advantage
    return advantages.masked_fill(~mask, 0.0)


def clipped_surrogate(
    logprobs: Float[Tensor, "batch response"],
    old_logprobs: Float[Tensor, "batch response"],
    advantages: Float[Tensor, "batch response"],
    *,
    clip_range: float,
) -> Float[Tensor, "batch response"]:
    """PPO's loss of each token, to be minimized.

        L_t = -min( rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t ),   rho_t = pi(y_t) / pi_old(y_t)

    The minimum clips one side only: a token that has already moved the way its advantage points gets no gradient; one
    that has moved the wrong way keeps it, without bound. Not reduced and not masked.

    Args:
        logprobs: Of the policy that is being trained; carries the gradient.
        old_logprobs: Of the policy that sampled.
        clip_range: epsilon.

    Reference:
        Schulman et al. 2017, arXiv:1707.06347, eq. 7, with its sign changed.

    Example:
        >>> logprobs = torch.tensor([[0.5, 1.0, 2.0]]).log()
        >>> clipped_surrogate(logprobs, torch.zeros(1, 3), torch.ones(1, 3), clip_range=0.2)
        tensor([[-0.5000, -1.0000, -1.2000]])
        >>> clipped_surrogate(logprobs, torch.zeros(1, 3), -torch.ones(1, 3), clip_range=0.2)
        tensor([[0.8000, 1.0000, 2.0000]])
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped_ratio = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(ratio * advantages, clipped_ratio * advantages)


def clipped_value_error(
    values: Float[Tensor, "batch response"],
    old_values: Float[Tensor, "batch response"],
    returns: Float[Tensor, "batch response"],
    *,
    clip_range: float,
) -> Float[Tensor, "batch response"]:
    """The critic's loss of each token, to be minimized.

        L_t = 0.5 max( (V_t - R_t)^2, (clip(V_t, V_old - epsilon, V_old + epsilon) - R_t)^2 )

    The 0.5 is inside, as in OpenAI's code and TRL: a value coefficient of 0.1 weighs the squared error by 0.05. A
    value that has left the range toward its return gets no gradient, as with the clipped surrogate.

    Args:
        values: Of the critic that is being trained; carries the gradient.
        old_values: Of the critic that assessed the rollout.
        returns: Targets, advantage (not whitened) plus old value.
        clip_range: epsilon, in the units of the values, so it depends on the scale of the reward.

    Reference:
        Huang et al. 2024, arXiv:2403.17031 (not in the PPO paper; from OpenAI's code).

    Example:
        >>> values, zeros = torch.tensor([[0.1, 2.0]]), torch.zeros(1, 2)
        >>> clipped_value_error(values, zeros, zeros + 1.0, clip_range=0.2)
        tensor([[0.4050, 0.5000]])
    """
    clipped_values = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped_values - returns).square())


def policy_gradient_loss(
    logprobs: Float[Tensor, "batch response"], advantages: Float[Tensor, "batch response"]
) -> Float[Tensor, "batch response"]:
    """A2C's loss of each token, to be minimized: the surrogate of PPO without the ratio.

        L_t = -A_t log pi(y_t)

    Its value says nothing; its gradient is that of the expected return. It is the gradient of `clipped_surrogate` too,
    as long as the policy is the one that sampled: there the ratio is 1, and d rho_t = d log pi(y_t). Not reduced and
    not masked.

    Args:
        logprobs: Of the policy that sampled and is being trained; carries the gradient.
        advantages: Without a graph.

    Reference:
        Mnih et al. 2016, arXiv:1602.01783, section 4, with its sign changed; there, without the entropy bonus.

    Example:
        >>> logprobs = torch.tensor([[0.5, 0.25]]).log().requires_grad_()
        >>> loss = policy_gradient_loss(logprobs, torch.tensor([[3.0, -1.0]]))
        >>> torch.exp(loss)  # (1 / 0.5)^3 and (1 / 0.25)^-1
        tensor([[8.0000, 0.2500]], grad_fn=<ExpBackward0>)
        >>> loss.sum().backward()
        >>> logprobs.grad
        tensor([[-3.,  1.]])
    """
    return -advantages * logprobs


def value_error(
    values: Float[Tensor, "batch response"], returns: Float[Tensor, "batch response"]
) -> Float[Tensor, "batch response"]:
    """A2C's loss of the critic at each token, to be minimized: that of PPO without the clipping.

        L_t = 0.5 (V_t - R_t)^2

    Args:
        values: Of the critic that is being trained; carries the gradient.
        returns: Targets, advantage (not whitened) plus old value.

    Reference:
        Mnih et al. 2016, arXiv:1602.01783, algorithm S3, where the 0.5 is in the learning rate.

    Example:
        >>> value_error(torch.tensor([[0.1, 2.0]]), torch.ones(1, 2))
        tensor([[0.4050, 0.5000]])
    """
    return 0.5 * (values - returns).square()


def adaptive_kl_coef(kl_coef: float, kl: float, *, target: float, num_steps: int, horizon: int = 10_000) -> float:
    """The KL coefficient of the next rollout: higher where KL was above its target, lower where below.

        e = clip(KL / target - 1, -0.2, 0.2),   beta' = beta (1 + e * num_steps / horizon)

    Args:
        kl_coef: beta of the rollout just seen.
        kl: Its mean KL(policy || reference) of a response [nats].
        target: KL to hold [nats].
        num_steps: Responses in the rollout, over all processes.
        horizon: Responses over which the coefficient can change by a fifth; smaller is faster.

    Raises:
        ValueError: `target` or `horizon` is not above 0, or `num_steps` is 5 horizons or more, which could turn the
            coefficient to 0 or below, for good.

    Reference:
        Ziegler et al. 2019, arXiv:1909.08593, section 2.2. There the gain is a constant K_beta = 0.1; `num_steps /
        horizon` is that of OpenAI's released code.

    Example:
        >>> round(adaptive_kl_coef(0.15, 9.0, target=6.0, num_steps=500), 6)  # 0.15 * (1 + 0.2 * 0.05)
        0.1515
    """
    if target <= 0 or horizon <= 0:
        raise ValueError(f"target ({target}) and horizon ({horizon}) must be above 0.")
    if num_steps >= 5 * horizon:
        raise ValueError(f"num_steps ({num_steps}) must be below 5 * horizon ({5 * horizon}); raise horizon.")
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * num_steps / horizon)
