"""Notebook 07: what did others change? Two means in one loss, fines for rules, PPO's ratio, and who spends when."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.variations_distilling import DISTILLED_CONTEXT
from rlhf_lab.course.exercises.variations_spending import ANSWER_WHEN_SURE, PAID_BACK
from rlhf_lab.equations.sequence import masked_mean


def _mixed(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """The surrogate's mean over response tokens, plus the weight times the text's mean over its own."""
    return masked_mean(surrogate, response_mask) + pretraining_coef * masked_mean(text_losses, text_mask)


def _mixed_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, responses: list[list[int]], texts: list[list[int]], pretraining_coef: float) -> Case:
        masks = [torch.tensor(rows, dtype=torch.bool) for rows in (responses, texts)]
        values = [torch.tensor(rng.normal(size=mask.shape) + level) for mask, level in zip(masks, (0, 3), strict=True)]
        args = (values[0], masks[0], values[1], masks[1])
        return Case(title=title, args=args, kwargs={"pretraining_coef": pretraining_coef}, gradient_of=(0, 2))

    full = [[1] * 6] * 4
    return [
        case("as many tokens of text as of responses", [[1, 1]], [[1, 1]], 0.5),
        case("a short response beside long texts", [[1, 1, 0]], full, 0.05),
        case("texts of unequal length", [[1, 1, 1], [1, 0, 0]], [[1] * 5, [1, 0, 0, 0, 0]], 1.0),
        case("a weight of 0", [[1, 1], [1, 0]], full, 0.0),
    ]


def _one_mean(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """Still one mean over all tokens: the more text there is, the less a response counts. Take two means."""
    return torch.cat([surrogate[response_mask], pretraining_coef * text_losses[text_mask]]).mean()


def _over_all_places(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """Two means, but over padding too: only what its mask counts is to be added up, and counted."""
    return surrogate.mean() + pretraining_coef * text_losses.mean()


def _subtracted(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """The sign of the text's part.

    Equation 2 of the paper adds log-likelihoods, as it is maximized. These are losses already, to be minimized.
    """
    return masked_mean(surrogate, response_mask) - pretraining_coef * masked_mean(text_losses, text_mask)


def _row_by_row(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """A mean of each row's mean: a token of a short text then counts for more than one of a long text."""
    parts = [
        torch.stack([masked_mean(row, kept) for row, kept in zip(values, mask, strict=True)]).mean()
        for values, mask in ((surrogate, response_mask), (text_losses, text_mask))
    ]
    return parts[0] + pretraining_coef * parts[1]


def _weighted_both(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """The weight is the text's alone; the surrogate keeps a weight of 1."""
    return _mixed(surrogate, response_mask, text_losses, text_mask, pretraining_coef=1.0) * pretraining_coef


def _text_summed(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    """The text's losses are added up here, not averaged: twice the text would have twice the say."""
    return masked_mean(surrogate, response_mask) + pretraining_coef * text_losses[text_mask].sum()


def _by_counts(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    earned = (surrogate * response_mask).sum() / response_mask.sum()
    read = (text_losses * text_mask).sum() / text_mask.sum()
    return earned + pretraining_coef * read


def _by_selection(
    surrogate: Tensor, response_mask: Tensor, text_losses: Tensor, text_mask: Tensor, *, pretraining_coef: float
) -> Tensor:
    return torch.mean(surrogate[response_mask]) + torch.mean(pretraining_coef * text_losses[text_mask])


TWO_MEANS = Exercise(
    id="two-means",
    title="A bookworm",
    kind="find the bug",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_mixed,
    cases=_mixed_cases,
    mistakes=(_one_mean, _over_all_places, _subtracted, _row_by_row, _weighted_both, _text_summed),
    variants=(_by_counts, _by_selection),
)


def _fined(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """What is liked, less the fine for every rule that is probably broken."""
    return liked - fine * torch.sigmoid(log_odds).sum(-1)


def _fine_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, log_odds: Tensor, fine: float) -> Case:
        liked = torch.tensor(rng.normal(size=len(log_odds)))
        return Case(title=title, args=(liked, log_odds), kwargs={"fine": fine})

    def drawn(responses: int, rules: int) -> Tensor:
        return torch.tensor(2 * rng.normal(size=(responses, rules)))

    sure = torch.tensor([[40.0, -40.0], [-40.0, -40.0], [40.0, 40.0]], dtype=torch.float64)
    return [
        case("three responses, two rules, nothing in doubt", sure, 1.0),
        case("odds of 3 to 1", torch.tensor([[math.log(3.0)]], dtype=torch.float64), 2.0),
        case("as many responses as rules", drawn(4, 4), 0.5),
        case("twelve rules", drawn(5, 12), 2.0),
    ]


def _by_log_odds(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """These are log-odds: a rule that is surely kept would earn a bonus without end. Turn them into probabilities."""
    return liked - fine * log_odds.sum(-1)


def _by_the_worst(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """Only the worst rule costs here: who breaks one, may break them all. Add the fines up."""
    return liked - fine * torch.sigmoid(log_odds).amax(-1)


def _by_the_mean(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """A mean over rules: with more rules each costs less. Add the fines up."""
    return liked - fine * torch.sigmoid(log_odds).mean(-1)


def _paid_for_it(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """This pays for breaking rules. The log-odds are those of a violation, so the probabilities are taken away."""
    return liked + fine * torch.sigmoid(log_odds).sum(-1)


def _kept_fined(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """You fine rules that are kept: sigmoid(log-odds) is the probability of a violation already."""
    return liked - fine * torch.sigmoid(-log_odds).sum(-1)


def _all_or_nothing(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """A rule counts as broken or not, and 49 % is free. Fine in proportion to the probability, which gives a slope."""
    return liked - fine * (log_odds > 0).to(liked.dtype).sum(-1)


def _over_responses(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    """The sum goes over the responses: the rules are the last axis."""
    return liked - fine * torch.sigmoid(log_odds).sum(0)


def _rule_by_rule(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    reward = liked.clone()
    for odds in log_odds.exp().unbind(dim=1):
        reward -= fine * odds / (1.0 + odds)
    return reward


def _kept_first(liked: Tensor, log_odds: Tensor, *, fine: float) -> Tensor:
    kept = torch.sigmoid(-log_odds)
    return liked - fine * (log_odds.shape[1] - kept.sum(1))


RULE_FINES = Exercise(
    id="rule-fines",
    title="Fines",
    kind="implement",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_fined,
    cases=_fine_cases,
    mistakes=(
        _by_log_odds,
        _by_the_worst,
        _by_the_mean,
        _paid_for_it,
        _kept_fined,
        _all_or_nothing,
        _over_responses,
    ),
    variants=(_rule_by_rule, _kept_first),
    masked=("rlhf_lab.probing.less_fines",),
)


def _without_ratio() -> list[str]:
    return ["the same", "different", "the same", "that says nothing"]


def _old_texts_do() -> list[str]:
    """Question 2: in the second update the policy is no longer the one that wrote.

    PPO's ratio weighs each token for that, and is clipped. A2C has none: it treats the old texts as its own.
    """
    return ["the same", "the same", "the same", "that says nothing"]


def _never_alike() -> list[str]:
    """At the first update nothing has moved: every ratio is 1, and the gradient of a ratio of 1 is that of log pi."""
    return ["different", "different", "different", "that says nothing"]


def _fresh_ratios() -> list[str]:
    """Old log-probs that are those of now, without a graph, make every ratio 1; its gradient is still that of log pi.

    So whoever computes them anew before each update has A2C on old texts, and nothing is ever clipped.
    """
    return ["the same", "different", "different", "that says nothing"]


def _a_loss_must_fall() -> list[str]:
    """The mean of -A log pi is over texts that change with the policy: only its gradient means something."""
    return ["the same", "different", "the same", "it gets worse"]


PPO_WITHOUT_RATIO = Exercise(
    id="ppo-without-ratio",
    title="PPO without the ratio",
    kind="predict",
    points=2,
    minutes=6,
    difficulty=2,
    reference=_without_ratio,
    cases=lambda rng: [Case(title="your four answers")],
    mistakes=(_old_texts_do, _never_alike, _fresh_ratios, _a_loss_must_fall),
    variants=(lambda: ["the same", "different", "the same", "that says nothing"], lambda: [*_without_ratio()]),
)

WHAT_TO_CHANGE = Written(
    id="what-to-change",
    title="A thousand dollars",
    points=3,
    minutes=15,
    difficulty=3,
    rubric={
        "Spends the money with numbers from the figures: labels, their kind, and what they are expected to bring.": 1,
        "Decides between best-of-n and RL by the number of answers and by what the figures show of both.": 1,
        "Names one change that is not worth it here, or that the figures leave open, and says why.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    TWO_MEANS,
    DISTILLED_CONTEXT,
    RULE_FINES,
    PPO_WITHOUT_RATIO,
    ANSWER_WHEN_SURE,
    PAID_BACK,
    WHAT_TO_CHANGE,
)
