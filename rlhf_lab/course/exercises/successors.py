"""Notebook 11: what came after? DPO, RLOO and GRPO, and a model that is asked in place of people."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.successors_direct import DIRECT_PREFERENCE, WHERE_IT_RESTS
from rlhf_lab.course.exercises.successors_groups import LEAVE_ONE_OUT, LONG_AND_WRONG, WHOSE_GRADIENT


def _in_both_orders(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """Probability that the first answer is the better one, whichever was shown first."""
    return (torch.sigmoid(first_ahead) + torch.sigmoid(-second_ahead)) / 2


def _order_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, number: int, bias: float, spread: float = 1.0) -> Case:
        better = torch.tensor(spread * rng.normal(size=number))
        noise = torch.tensor(0.3 * rng.normal(size=number))
        return Case(title=title, args=(better + bias, -better + noise + bias))

    odds = torch.tensor([3.0, 1.0], dtype=torch.float64).log()
    return [
        Case(title="odds of 3 to 1 for what is shown first, whatever it is", args=(odds[:1], odds[:1])),
        Case(title="odds of 3 to 1, then even ones", args=(odds[:1], odds[1:])),
        case("a judge without bias", 5, 0.0),
        case("a judge who likes what comes first", 6, 1.5),
        case("a judge who is very sure", 4, 0.5, spread=20.0),
    ]


def _asked_once(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """One order alone: what the judge likes about the first place is in every label."""
    return torch.sigmoid(first_ahead)


def _not_turned(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """The second time the log-odds are those of the *other* answer: turn them round before you average."""
    return (torch.sigmoid(first_ahead) + torch.sigmoid(second_ahead)) / 2


def _mean_of_odds(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """You have averaged log-odds: then whoever is surest once decides alone. Average the probabilities."""
    return torch.sigmoid((first_ahead - second_ahead) / 2)


def _by_votes(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """Two votes, 0, one half or 1: how sure the judge was is lost. A soft label keeps it."""
    return ((first_ahead > 0).to(first_ahead.dtype) + (second_ahead < 0).to(first_ahead.dtype)) / 2


def _of_the_second(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """That is the probability that the second answer is the better one."""
    return (torch.sigmoid(-first_ahead) + torch.sigmoid(second_ahead)) / 2


def _product(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    """A product: two readings by one judge are not two independent witnesses. Average them."""
    return torch.sigmoid(first_ahead) * torch.sigmoid(-second_ahead)


def _by_odds(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    return 0.5 / (1.0 + torch.exp(-first_ahead)) + 0.5 * (1.0 - torch.sigmoid(second_ahead))


def _stacked(first_ahead: Tensor, second_ahead: Tensor) -> Tensor:
    return torch.stack([first_ahead, -second_ahead]).sigmoid().mean(0)


BOTH_ORDERS = Exercise(
    id="asked-twice",
    title="Asked twice",
    kind="implement",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_in_both_orders,
    cases=_order_cases,
    mistakes=(_asked_once, _not_turned, _mean_of_odds, _by_votes, _of_the_second, _product),
    variants=(_by_odds, _stacked),
)

WHICH_METHOD = Written(
    id="which-method",
    title="Your own help line, again",
    points=3,
    minutes=15,
    difficulty=3,
    rubric={
        "Chooses a method from what the figures show per nat and per second, and says what they do not show.": 1,
        "Says who gives the feedback, people or a model, with the figures of agreement, cost and what came of it.": 1,
        "Says how to find out that it goes wrong: what is measured that the method does not optimize.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    DIRECT_PREFERENCE,
    WHERE_IT_RESTS,
    LEAVE_ONE_OUT,
    LONG_AND_WRONG,
    WHOSE_GRADIENT,
    BOTH_ORDERS,
    WHICH_METHOD,
)
