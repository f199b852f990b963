"""Notebook 09: what else can people tell us? Bits in a label, thumbs beside comparisons, and what to keep."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.telling_edits import KEEP_THE_BEST, STRUCK_TOKENS

_RIGHT = 0.84


def _entropy(prob: float) -> float:
    return -prob * math.log2(prob) - (1 - prob) * math.log2(1 - prob)


def _bits() -> list[float]:
    """Of a comparison, a rating of seven, a ranking of four, and a comparison by people who are right in 84 %."""
    return [1.0, math.log2(7), math.log2(24), 1.0 - _entropy(_RIGHT)]


def _options() -> list[float]:
    """These are the numbers of possible answers: a bit is a factor of two, so take the logarithm to base 2."""
    return [2.0, 7.0, 24.0, 1.0 - _entropy(_RIGHT)]


def _nats() -> list[float]:
    """In nats: a bit is log 2 nats. Use the logarithm to base 2."""
    return [math.log(2), math.log(7), math.log(24), math.log(2) * (1.0 - _entropy(_RIGHT))]


def _places() -> list[float]:
    """A ranking is an order of the whole: four answers have 4 times 3 times 2 orders, not four places."""
    return [1.0, math.log2(7), 2.0, 1.0 - _entropy(_RIGHT)]


def _pairs() -> list[float]:
    """A ranking of four has six pairs, but not six bits: if A beats B and B beats C, the third is known."""
    return [1.0, math.log2(7), 6.0, 1.0 - _entropy(_RIGHT)]


def _share_right() -> list[float]:
    """The last one: 84 % right does not leave 84 % of a bit, as nobody says which answers are the wrong ones.

    What is left is 1 less the entropy of being right.
    """
    return [1.0, math.log2(7), math.log2(24), _RIGHT]


def _entropy_itself() -> list[float]:
    """The last one is what noise takes. What it leaves of the one bit is the rest."""
    return [1.0, math.log2(7), math.log2(24), _entropy(_RIGHT)]


BITS_A_LABEL = Exercise(
    id="bits-a-label",
    title="How much is in a label?",
    kind="predict",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_bits,
    cases=lambda rng: [Case(title="your four numbers")],
    mistakes=(_options, _nats, _places, _pairs, _share_right, _entropy_itself),
    variants=(lambda: [1.0, 2.807, 4.585, 0.366], lambda: [*_bits()]),
    tolerance=1e-2,
)


def _both_kinds(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """The mean surprise over all labels, comparisons and thumbs: one score explains both."""
    compared = -functional.logsigmoid(chosen - rejected)
    above = rated - bars
    thumbs = -functional.logsigmoid(torch.where(is_up, above, -above))
    return torch.cat([compared, thumbs]).mean()


def _both_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, num_compared: int, num_rated: int, part: str) -> Case:
        chosen, rejected = (torch.tensor(rng.normal(size=num_compared)) for _ in range(2))
        rated, bars = (torch.tensor(rng.normal(size=num_rated)) for _ in range(2))
        is_up = torch.tensor(rng.random(num_rated) < 0.5)
        sizes = {0: num_compared, 1: num_compared, 2: num_rated, 4: num_rated}
        there = tuple(place for place, size in sizes.items() if size)
        return Case(title=title, args=(chosen, rejected, rated, is_up, bars), part=part, gradient_of=there)

    odds = torch.tensor([3.0], dtype=torch.float64).log()
    none, empty = torch.zeros(1, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    up, nobody = torch.tensor([True]), torch.zeros(0, dtype=torch.bool)
    return [
        Case(title="one comparison, odds of 3 to 1", args=(odds, none, empty, nobody, empty), part="compared"),
        case("comparisons alone", 5, 0, "compared"),
        Case(title="one thumb up, odds of 3 to 1", args=(empty, empty, odds, up, none), part="thumbs"),
        case("thumbs alone, each with a bar of its own", 0, 6, "thumbs"),
        case("more thumbs than comparisons", 2, 7, "thumbs"),
        Case(title="so wrong that a probability rounds to 0", args=_far(), part="thumbs"),
    ]


def _far() -> tuple[Tensor, ...]:
    """Single precision, whose smallest number is above e^-104."""
    low, none = torch.tensor([-150.0]), torch.zeros(1)
    return low, none, low, torch.tensor([True]), none


def _same_bar(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """Where is the bar? A thumb says that a score is above *its* labeler's bar, which is not 0."""
    return _both_kinds(chosen, rejected, rated, is_up, torch.zeros_like(bars) + 0 * bars)


def _bar_added(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """The bar is taken away: who has a high one lifts the thumb less often."""
    return _both_kinds(chosen, rejected, rated, is_up, -bars)


def _all_up(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """All thumbs are up here: where one is down, the probability is that of the score lying *below* the bar."""
    return _both_kinds(chosen, rejected, rated, torch.ones_like(is_up), bars)


def _two_means(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """A mean of each kind, added up: each kind then has the same say, however few labels of it there are.

    All labels are answers about the same score: take one mean over all of them.
    """
    above = rated - bars
    parts = [-functional.logsigmoid(chosen - rejected), -functional.logsigmoid(torch.where(is_up, above, -above))]
    return sum((part.mean() for part in parts if len(part)), torch.zeros((), dtype=chosen.dtype))


def _summed(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """A sum grows with the labels: the mean is wanted."""
    return _both_kinds(chosen, rejected, rated, is_up, bars) * (len(chosen) + len(rated))


def _by_sigmoid(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """Minus the probability instead of minus its logarithm: it is flat where the model is most wrong.

    (KTO's loss has that shape, for a model of what people value. Here a log-likelihood is asked for.)
    """
    above = rated - bars
    return -torch.cat([torch.sigmoid(chosen - rejected), torch.sigmoid(torch.where(is_up, above, -above))]).mean()


def _log_of_sigmoid(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    """log(sigmoid(x)) is -inf where sigmoid(x) rounds to 0: use logsigmoid."""
    above = rated - bars
    probs = torch.cat([torch.sigmoid(chosen - rejected), torch.sigmoid(torch.where(is_up, above, -above))])
    return -probs.log().mean()


def _by_softplus(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    signs = 2.0 * is_up.to(rated.dtype) - 1.0
    return functional.softplus(torch.cat([rejected - chosen, signs * (bars - rated)])).mean()


def _by_cross_entropy(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    odds = torch.cat([chosen - rejected, rated - bars])
    said = torch.cat([torch.ones_like(chosen), is_up.to(rated.dtype)])
    return functional.binary_cross_entropy_with_logits(odds, said)


def _where_there_are_some(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    parts = [-functional.logsigmoid(chosen - rejected)] if len(chosen) else []
    if len(rated):
        parts.append(-functional.logsigmoid(torch.where(is_up, rated - bars, bars - rated)))
    return torch.cat(parts).mean()


def _label_by_label(chosen: Tensor, rejected: Tensor, rated: Tensor, is_up: Tensor, bars: Tensor) -> Tensor:
    losses = [-functional.logsigmoid(one - other) for one, other in zip(chosen, rejected, strict=True)]
    for score, up, bar in zip(rated, is_up, bars, strict=True):
        losses.append(-functional.logsigmoid(score - bar if up else bar - score))
    return torch.stack(losses).mean()


THUMBS_AND_PAIRS = Exercise(
    id="thumbs-and-pairs",
    title="Two kinds of labels, one score",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=_both_kinds,
    cases=_both_cases,
    mistakes=(_same_bar, _bar_added, _all_up, _two_means, _summed, _by_sigmoid, _log_of_sigmoid),
    variants=(_by_softplus, _by_cross_entropy, _where_there_are_some, _label_by_label),
    parts={"compared": 1, "thumbs": 2},
    masked=("rlhf_lab.equations.preference.bradley_terry_loss", "rlhf_lab.equations.preference.thumb_loss"),
)

FOUR_HOURS = Written(
    id="four-hours",
    title="Four hours of people",
    points=3,
    minutes=15,
    difficulty=3,
    rubric={
        "Spends the hours by the figure: which kinds, how many labels of each, and what they should bring.": 1,
        "Says for which of the assumed seconds the choice would change, and tries it.": 1,
        "Says what the figure leaves out: who can answer what, what people like to do, other uses of a label.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    BITS_A_LABEL,
    THUMBS_AND_PAIRS,
    STRUCK_TOKENS,
    KEEP_THE_BEST,
    FOUR_HOURS,
)
