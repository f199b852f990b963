"""Advantages of a prompt's K responses from each other's rewards: what stands in the critic's place.

Each response is one action with one reward, so it has one advantage, which all of its tokens share.
"""

from jaxtyping import Float
from torch import Tensor

ALMOST_EQUAL = 1e-4
"""Added to a group's standard deviation, so that nearly equal rewards are not blown up; TRL 1.16.0's number."""


def leave_one_out(rewards: Float[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
    """RLOO's advantages: the reward of each response above the mean of its prompt's other responses.

        A_i = R_i - (1 / (K - 1)) sum_{j != i} R_j = (K / (K - 1)) (R_i - mean R)

    The others' mean does not depend on response i, so as a baseline it leaves the policy gradient unbiased; the mean of
    all K does, and shrinks the gradient by (K - 1) / K.

    Args:
        rewards: R, one for each response, KL penalty included.

    Raises:
        ValueError: A prompt has one response only, and nothing to compare it with.

    Reference:
        Ahmadian et al. 2024, arXiv:2402.14740, section 2 (RLOO); Kool et al. 2019, 'Buy 4 REINFORCE samples, get a
        baseline for free!'.

    Example:
        >>> import torch
        >>> leave_one_out(torch.tensor([[1.0, 2.0, 6.0]]))  # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2
        tensor([[-3.0000, -1.5000,  4.5000]])
    """
    count = _count(rewards)
    others = (rewards.sum(-1, keepdim=True) - rewards) / (count - 1)
    return rewards - others


def group_normalized(
    rewards: Float[Tensor, "batch candidates"], *, scale_by_std: bool = True
) -> Float[Tensor, "batch candidates"]:
    """GRPO's advantages: each reward above its group's mean, in standard deviations of the group.

        A_i = (R_i - mean R) / (std R + 1e-4)      or, as in Dr. GRPO,      A_i = R_i - mean R

    The division makes each prompt count alike, the one whose responses hardly differ as much as any other: a bias
    toward prompts that are nearly always, or nearly never, answered well. Without it they are RLOO's times (K - 1) / K.

    Args:
        rewards: R, one for each response. GRPO's have no KL penalty in them: it is a term of the loss.
        scale_by_std: False leaves the division out.

    Raises:
        ValueError: A prompt has one response only, and nothing to compare it with.

    Reference:
        Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, section 4.1.2; without the division Liu et al. 2025 (Dr.
        GRPO), arXiv:2503.20783. The unbiased variance and the 1e-4 are TRL's.

    Example:
        >>> import torch
        >>> rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
        >>> group_normalized(rewards, scale_by_std=False)
        tensor([[-1.,  0.,  1.],
                [ 0.,  0.,  0.]])
        >>> group_normalized(10 * rewards)  # 10 / (10 + 1e-4); equal rewards teach nothing
        tensor([[-1.0000,  0.0000,  1.0000],
                [ 0.0000,  0.0000,  0.0000]])
    """
    _count(rewards)
    above = rewards - rewards.mean(-1, keepdim=True)
    return above / (rewards.std(-1, keepdim=True) + ALMOST_EQUAL) if scale_by_std else above


def _count(rewards: Float[Tensor, "batch candidates"]) -> int:
    count = rewards.shape[-1]
    if count < 2:
        raise ValueError(
            f"a response is compared with its prompt's others, so each prompt needs 2 or more, not {count}."
        )
    return count
