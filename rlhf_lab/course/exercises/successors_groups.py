"""Notebook 11: no critic: what a prompt's other responses say of one, and what becomes of the KL penalty."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise


def _leave_one_out(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """The penalized reward of each response, above the mean of its prompt's others."""
    rewards = scores - kl_coef * kl
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


def _leave_one_out_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, prompts: int, responses: int, kl_coef: float, level: float = 0.0) -> Case:
        scores, kl = (torch.tensor(rng.normal(size=(prompts, responses)) + level) for _ in range(2))
        return Case(title=title, args=(scores, kl), kwargs={"kl_coef": kl_coef})

    by_hand = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    return [
        Case(title="three responses, no penalty", args=(by_hand, 0 * by_hand), kwargs={"kl_coef": 0.0}),
        Case(title="alike but for their KL", args=(0 * by_hand, by_hand), kwargs={"kl_coef": 0.5}),
        case("two responses to each prompt", 3, 2, 0.1),
        case("as many prompts as responses", 4, 4, 0.5),
        case("scores far from zero", 3, 5, 0.05, level=20.0),
    ]


def _mean_of_all(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """Its own reward is in the mean that it is compared with, so that all advantages are too small by (K - 1) / K."""
    rewards = scores - kl_coef * kl
    return rewards - rewards.mean(1, keepdim=True)


def _divided_by_all(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """The others are K - 1: divided by K their mean is too small, and every response seems better than it is."""
    rewards = scores - kl_coef * kl
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / rewards.shape[1]


def _free_drift(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """Where is the penalty? The reward of a response is its score less beta times its KL."""
    return _leave_one_out(scores, kl, kl_coef=0.0)


def _paid_drift(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """The sign of the penalty: this pays for drift."""
    return _leave_one_out(scores, kl, kl_coef=-kl_coef)


def _own_penalty_alone(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """The others have a KL too: penalize first, and then compare the rewards."""
    return _leave_one_out(scores, kl, kl_coef=0.0) - kl_coef * kl


def _over_prompts(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """Compared with responses to other prompts: the same prompt's stand in a row. An easy prompt is no merit."""
    return _leave_one_out(scores.T, kl.T, kl_coef=kl_coef).T


def _over_everything(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """Compared with all other responses of the batch: an easy prompt is no merit of a response."""
    rewards = scores - kl_coef * kl
    return rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)


def _in_deviations(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """Divided by the group's standard deviation: that is GRPO's, and it counts each prompt alike."""
    rewards = scores - kl_coef * kl
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def _above_the_best(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    """Compared with the best of the others: the policy gradient stays unbiased, but the mean varies less."""
    rewards = scores - kl_coef * kl
    others = rewards.unsqueeze(1).masked_fill(torch.eye(rewards.shape[1], dtype=torch.bool), -torch.inf)
    return rewards - others.amax(2)


def _by_a_factor(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    rewards, count = scores - kl_coef * kl, scores.shape[1]
    return count / (count - 1) * (rewards - rewards.mean(1, keepdim=True))


def _one_by_one(scores: Tensor, kl: Tensor, *, kl_coef: float) -> Tensor:
    rewards, places = scores - kl_coef * kl, range(scores.shape[1])
    columns = [rewards[:, place] - rewards[:, [o for o in places if o != place]].mean(1) for place in places]
    return torch.stack(columns, dim=1)


LEAVE_ONE_OUT = Exercise(
    id="leave-one-out",
    title="Compared with the others",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=_leave_one_out,
    cases=_leave_one_out_cases,
    mistakes=(
        _mean_of_all,
        _divided_by_all,
        _free_drift,
        _paid_drift,
        _own_penalty_alone,
        _over_prompts,
        _over_everything,
        _in_deviations,
        _above_the_best,
    ),
    variants=(_by_a_factor, _one_by_one),
    masked=("rlhf_lab.equations.groups.leave_one_out", "rlhf_lab.equations.groups.group_normalized"),
)


def _group_loss(losses: Tensor, mask: Tensor) -> Tensor:
    """The mean over all tokens: none counts for more because its response is short."""
    return losses[mask].mean()


def _group_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, lengths: list[int], width: int) -> Case:
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        losses = torch.tensor(rng.normal(size=mask.shape)).masked_fill(~mask, 7.0)
        return Case(title=title, args=(losses, mask), gradient_of=(0,))

    return [
        case("a long response beside a short one", [9, 1], 9),
        case("four lengths", [2, 6, 3, 5], 6),
        case("padding behind all", [2, 3], 6),
        case("responses of one token", [1, 1, 1], 4),
    ]


def _by_response(losses: Tensor, mask: Tensor) -> Tensor:
    """Still a mean for each response: a token of a long one counts less, so that long and wrong is the cheaper way."""
    return ((losses * mask).sum(1) / mask.sum(1)).mean()


def _summed(losses: Tensor, mask: Tensor) -> Tensor:
    """A sum has no bias either, but grows with the batch: the learning rate would mean another thing each time."""
    return losses[mask].sum()


def _of_responses(losses: Tensor, mask: Tensor) -> Tensor:
    """All tokens weigh alike, and up to a constant this is Dr. GRPO's loss; the mean over the tokens is asked for."""
    return (losses * mask).sum() / len(losses)


def _with_padding(losses: Tensor, mask: Tensor) -> Tensor:
    """Padding is counted: what stands there is no loss, and is not to be divided by."""
    return losses.mean()


def _divided_by_places(losses: Tensor, mask: Tensor) -> Tensor:
    """Divided by all places, padding too: tokens weigh alike, but the less the longer the longest text is."""
    return (losses * mask).mean()


def _by_weights(losses: Tensor, mask: Tensor) -> Tensor:
    return (losses * mask / mask.sum()).sum()


def _by_hand(losses: Tensor, mask: Tensor) -> Tensor:
    total = sum((row[kept].sum() for row, kept in zip(losses, mask, strict=True)), torch.zeros((), dtype=losses.dtype))
    return total / float(mask.sum())


LONG_AND_WRONG = Exercise(
    id="long-and-wrong",
    title="Long and wrong",
    kind="find the bug",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_group_loss,
    cases=_group_cases,
    mistakes=(_by_response, _summed, _of_responses, _with_padding, _divided_by_places),
    variants=(_by_weights, _by_hand),
)

FORWARD, REVERSE, NOTHING = "KL(pi||ref)", "KL(ref||pi)", "nothing"


def _gradients() -> list[str]:
    return [FORWARD, NOTHING, FORWARD, REVERSE]


def _all_the_same() -> list[str]:
    """All three have the right size, or nearly. But a gradient through the loss treats the samples as given.

    Write the mean as a sum over texts, each with its probability, and derive only what stands in the loss.
    """
    return [FORWARD, FORWARD, FORWARD, FORWARD]


def _k1_is_fine() -> list[str]:
    """Question 2: the derivative of log pi - log ref is that of log pi, and its mean over pi's own texts is 0."""
    return [FORWARD, FORWARD, FORWARD, REVERSE]


def _k3_is_fine() -> list[str]:
    """Question 4: the derivative of k3 is (1 - ref / pi) times that of log pi.

    Averaged over the policy's texts, the 1 gives nothing, and the rest is a mean over the *reference's* texts.
    """
    return [FORWARD, NOTHING, FORWARD, FORWARD]


def _k2_is_biased() -> list[str]:
    """Question 3: k2 is biased as a value. Its derivative is (log pi - log ref) times that of log pi: exactly right."""
    return [FORWARD, NOTHING, NOTHING, REVERSE]


def _k2_turned_round() -> list[str]:
    """Question 3: k2's derivative is (log pi - log ref) times that of log pi. Which KL's gradient is its mean?"""
    return [FORWARD, NOTHING, REVERSE, REVERSE]


WHOSE_GRADIENT = Exercise(
    id="whose-gradient",
    title="Whose gradient is it?",
    kind="predict",
    points=2,
    minutes=10,
    difficulty=3,
    reference=_gradients,
    cases=lambda rng: [Case(title="your four answers")],
    mistakes=(_all_the_same, _k1_is_fine, _k3_is_fine, _k2_is_biased, _k2_turned_round),
    variants=(lambda: [FORWARD, NOTHING, FORWARD, REVERSE], lambda: [*_gradients()]),
)
