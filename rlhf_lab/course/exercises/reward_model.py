"""Notebook 03: can a model learn what people prefer? From two scores to a probability, and to a loss.

Its other exercises are in `reward_model_reading` and `reward_model_rankings`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.reward_model_rankings import PAIR_LOSSES, RANKING
from rlhf_lab.course.exercises.reward_model_reading import CALIBRATION, READ_SCORE
from rlhf_lab.equations.preference import bradley_terry_loss

Probs = Tensor | float


def _loss_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, chosen: np.ndarray, rejected: np.ndarray, probs: Sequence[float] | np.ndarray = ()) -> Case:
        soft = (torch.tensor(np.array(probs)),) if len(probs) else ()
        args = (torch.tensor(chosen), torch.tensor(rejected), *soft)
        return Case(title=title, args=args, part="soft" if soft else "plain", gradient_of=(0, 1))

    def drawn(num: int) -> tuple[np.ndarray, np.ndarray]:
        chosen, rejected = rng.normal(scale=2.0, size=(2, num))
        return chosen, rejected

    same = rng.normal(size=3)
    far = np.array([1000.0, 0.0, -800.0])
    return [
        case("four comparisons", *drawn(4)),
        case("one comparison", *drawn(1)),
        case("equal scores", same, same.copy()),
        case("margins of 1,000, right and wrong", far, far[::-1].copy()),
        case("labels that are not sure", *drawn(4), rng.uniform(0.5, 1.0, size=4)),
        case("a tie, a sure label, and one that is nearly sure", *drawn(3), [0.5, 1.0, 0.9375]),
        case("margins of 1,000 with soft labels", far, far[::-1].copy(), [0.75, 0.5, 0.75]),
    ]


def _margin(chosen: Tensor, rejected: Tensor) -> Tensor:
    return chosen - rejected


def _swapped(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """The pair is swapped: with this loss the model learns to score the rejected response higher."""
    return bradley_terry_loss(rejected, chosen, chosen_prob)


def _log_of_zero(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """The sigmoid of a large negative margin is rounded to 0, and log 0 is infinite: take both in one (logsigmoid)."""
    prob = torch.sigmoid(_margin(chosen, rejected))
    return -chosen_prob * torch.log(prob) - (1 - chosen_prob) * torch.log(1 - prob)


def _large_powers(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """The power e^1000 is infinite: write the probability with the difference of the scores alone."""
    prob = chosen.exp() / (chosen.exp() + rejected.exp())
    return -chosen_prob * torch.log(prob) - (1 - chosen_prob) * torch.log(1 - prob)


def _softplus_by_hand(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """log(1 + e^-m) is right, but e^-m overflows for a margin far below 0: PyTorch has it as softplus."""
    margin = _margin(chosen, rejected)
    return torch.log(1 + torch.exp(-margin)) + (1 - chosen_prob) * margin


def _chance_of_error(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """That is the probability of being wrong. Its gradient vanishes just where the model is most wrong: take -log."""
    prob = torch.sigmoid(_margin(chosen, rejected))
    return chosen_prob * (1 - prob) + (1 - chosen_prob) * prob


def _hinge(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """That is a hinge loss: it stops to push at a margin of 1, and its scores say nothing of probabilities."""
    margin = _margin(chosen, rejected)
    return chosen_prob * functional.relu(1 - margin) + (1 - chosen_prob) * functional.relu(1 + margin)


def _bits(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """These are bits. The course counts in nats, with the natural logarithm."""
    return bradley_terry_loss(chosen, rejected, chosen_prob) / math.log(2)


def _mean(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """One number for each comparison is asked for: in this kit equations do not reduce, the trainer does."""
    return bradley_terry_loss(chosen, rejected, chosen_prob).mean()


def _no_gradient(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """The numbers are right, but no gradient reaches the rejected scores: both responses are to learn from a label."""
    return bradley_terry_loss(chosen, rejected.detach(), chosen_prob)


def _always_sure(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """`chosen_prob` plays no part: a labeler who is not sure says both, with the weights q and 1 - q."""
    return bradley_terry_loss(chosen, rejected)


def _half_of_it(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """You weigh the first surprise with q and leave out the other: a tie would still pull the scores apart."""
    return bradley_terry_loss(chosen, rejected) * chosen_prob


def _times_sureness(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    """You multiply the margin by how sure the label is. q weighs the two surprises; the margin is the model's own."""
    return -functional.logsigmoid((2 * chosen_prob - 1) * _margin(chosen, rejected))


def _as_cross_entropy(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    margin = _margin(chosen, rejected)
    target = torch.as_tensor(chosen_prob, dtype=margin.dtype).expand_as(margin)
    return functional.binary_cross_entropy_with_logits(margin, target, reduction="none")


def _as_softmax(chosen: Tensor, rejected: Tensor, chosen_prob: Probs = 1.0) -> Tensor:
    logprobs = torch.stack([chosen, rejected]).log_softmax(0)
    return -chosen_prob * logprobs[0] - (1 - chosen_prob) * logprobs[1]


PREFERENCE_LOSS = Exercise(
    id="preference-loss",
    title="The loss of a comparison",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=1,
    reference=bradley_terry_loss,
    cases=_loss_cases,
    mistakes=(
        _swapped,
        _log_of_zero,
        _large_powers,
        _softplus_by_hand,
        _chance_of_error,
        _hinge,
        _bits,
        _mean,
        _no_gradient,
        _always_sure,
        _half_of_it,
        _times_sureness,
    ),
    variants=(_as_cross_entropy, _as_softmax),
    parts={"plain": 2, "soft": 1},
    masked=PAIR_LOSSES,
)

MARGIN = 2.0
"""Of the scores 3 and 1."""


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _odds() -> list[float]:
    """Probability, loss, loss of the swapped pair, probability 5 higher up, derivative by the chosen score."""
    prob = _sigmoid(MARGIN)
    return [prob, -math.log(prob), -math.log(1 - prob), prob, prob - 1]


def _ratio_of_scores() -> list[float]:
    """You divide the scores. They are logarithms of strengths: divide e^3 by e^3 + e^1."""
    return [0.75, -math.log(0.75), -math.log(0.25), 8 / 14, -0.25]


def _higher_up() -> list[float]:
    """Both scores are 5 higher, so their difference is what it was: scores have no zero of their own."""
    prob, loss, swapped, _, slope = _odds()
    return [prob, loss, swapped, _sigmoid(MARGIN + 5), slope]


def _mirrored_loss() -> list[float]:
    """A swapped pair does not turn the loss's sign. The loss is a surprise: -log of what is now improbable."""
    prob, loss, _, higher, slope = _odds()
    return [prob, loss, -loss, higher, slope]


def _one_minus_prob() -> list[float]:
    """The loss is -log P, not 1 - P, which could never be above 1."""
    prob, _, _, higher, slope = _odds()
    return [prob, 1 - prob, prob, higher, slope]


def _slope_up() -> list[float]:
    """The loss falls when the chosen response's score rises: its derivative is negative."""
    *first, slope = _odds()
    return [*first, -slope]


def _slope_of_prob() -> list[float]:
    """That is the slope of the probability, P (1 - P). The loss is -log P: divide by P once more."""
    *first, slope = _odds()
    return [*first, slope * first[0]]


def _slope_of_right() -> list[float]:
    """The pull is how wrong the model was, 1 - P: a pair that it has right already hardly pulls any more."""
    *first, _ = _odds()
    return [*first, -first[0]]


def _bits_of_odds() -> list[float]:
    """These losses are bits. The course counts in nats, with the natural logarithm: -ln P."""
    prob, loss, swapped, higher, slope = _odds()
    return [prob, loss / math.log(2), swapped / math.log(2), higher, slope]


ODDS = Exercise(
    id="odds",
    title="Three points against one",
    kind="predict",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_odds,
    cases=lambda rng: [Case(title="your five numbers")],
    mistakes=(
        _ratio_of_scores,
        _higher_up,
        _mirrored_loss,
        _one_minus_prob,
        _slope_up,
        _slope_of_prob,
        _slope_of_right,
        _bits_of_odds,
    ),
    variants=(lambda: [0.88, 0.13, 2.13, 0.88, -0.12], lambda: [0.8808, 0.1269, 2.1269, 0.8808, -0.1192]),
    tolerance=0.006,
)

READ_THE_ACCURACY = Written(
    id="read-the-accuracy",
    title="What 70 % is worth",
    points=3,
    minutes=12,
    difficulty=3,
    rubric={
        "Reads off what more comparisons and a larger model bring, with numbers, and where neither helps": 1,
        "Says why no model of these labels can reach 100 %, and which lines tell what one could reach": 1,
        "Says why the own point lies above the curves though the own model is no better, and how to find out": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    PREFERENCE_LOSS,
    ODDS,
    READ_SCORE,
    RANKING,
    CALIBRATION,
    READ_THE_ACCURACY,
)
