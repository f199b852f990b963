"""Notebook 11: no reward model and no sampling: DPO's loss, and where it comes to rest."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.preference import bradley_terry_loss, implicit_reward


def _direct(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """DPO's loss of each pair, where a share of the labels is taken to be wrong."""
    chosen, rejected, ref_chosen, ref_rejected = texts
    better = implicit_reward(chosen, ref_chosen, kl_coef=kl_coef)
    worse = implicit_reward(rejected, ref_rejected, kl_coef=kl_coef)
    return bradley_terry_loss(better, worse, 1.0 - label_smoothing)


def _cases(rng: np.random.Generator) -> list[Case]:
    def texts(lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probs of responses by the policy and by the reference; 0 behind their ends."""
        there = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return tuple(-torch.tensor(rng.exponential(size=there.shape)) * there for _ in range(2))  # type: ignore[return-value]

    def case(
        title: str,
        chosen: list[int],
        rejected: list[int],
        kl_coef: float,
        label_smoothing: float = 0.0,
        part: str = "loss",
    ) -> Case:
        (better, ref_better), (worse, ref_worse) = texts(chosen), texts(rejected)
        kwargs = {"kl_coef": kl_coef, "label_smoothing": label_smoothing}
        # Behind a response's end there is nothing to learn, so whether a gradient flows there is nobody's business.
        whole = len({*chosen}) == len({*rejected}) == 1
        args = (better, worse, ref_better, ref_worse)
        return Case(title=title, args=args, kwargs=kwargs, part=part, gradient_of=(0, 1) if whole else ())

    far = [torch.full((1, 1), value, dtype=torch.float32) for value in (-900.0, -1.0, -1.0, -900.0)]
    third = [torch.tensor([[value]], dtype=torch.float64).log() for value in (0.5, 0.25, 0.25, 0.5)]
    settings = {"kl_coef": 0.5, "label_smoothing": 0.0}
    return [
        Case(title="one token each, margin log 2", args=tuple(third), kwargs=settings, part="loss"),
        case("responses of one length", [3, 3], [3, 3], 0.5),
        case("the rejected one is longer", [2, 4, 1], [5, 6, 4], 0.1),
        case("a small beta", [4, 4], [2, 3], 0.01),
        Case(title="a policy that has gone the wrong way by 1,798 nats", args=tuple(far), kwargs=settings, part="loss"),
        case("a tenth of the labels is wrong", [3, 2], [2, 4], 0.3, 0.1, "smoothing"),
        case("labels that say nothing", [3, 2], [2, 4], 0.3, 0.5, "smoothing"),
    ]


def _margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    return (chosen - ref_chosen).sum(-1) - (rejected - ref_rejected).sum(-1)


def _smoothed(margin: Tensor, label_smoothing: float) -> Tensor:
    return -(1 - label_smoothing) * functional.logsigmoid(margin) - label_smoothing * functional.logsigmoid(-margin)


def _no_reference(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """The reference plays no part: what counts is how much likelier a response has become, not how likely it is."""
    chosen, rejected, *_ = texts
    return _smoothed(kl_coef * (chosen.sum(-1) - rejected.sum(-1)), label_smoothing)


def _reference_added(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """The sign of the reference's difference: it is taken away, so that a policy that has not moved has margin 0."""
    chosen, rejected, ref_chosen, ref_rejected = texts
    margin = (chosen + ref_chosen).sum(-1) - (rejected + ref_rejected).sum(-1)
    return _smoothed(kl_coef * margin, label_smoothing)


def _turned_round(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """This makes the rejected response likelier: the margin is the chosen one's log-ratio less the rejected one's."""
    return _smoothed(-kl_coef * _margin(*texts), label_smoothing)


def _beta_outside(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """Beta stands outside of the sigmoid, where it only scales the learning rate. It scales the margin."""
    return kl_coef * _smoothed(_margin(*texts), label_smoothing)


def _mean_of_tokens(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """A mean over the tokens: the log-prob of a response is the sum over its tokens, padding being 0."""
    chosen, rejected, ref_chosen, ref_rejected = texts
    margin = (chosen - ref_chosen).mean(-1) - (rejected - ref_rejected).mean(-1)
    return _smoothed(kl_coef * margin, label_smoothing)


def _no_logarithm(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """The logarithm is missing: minus the probability has no slope left where the policy is most wrong."""
    margin = kl_coef * _margin(*texts)
    return -(1 - label_smoothing) * torch.sigmoid(margin) - label_smoothing * torch.sigmoid(-margin)


def _log_of_sigmoid(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """log(sigmoid(x)) is -inf where sigmoid(x) rounds to 0, which a policy that went wrong reaches: use logsigmoid."""
    margin = kl_coef * _margin(*texts)
    right, wrong = torch.sigmoid(margin).log(), torch.sigmoid(-margin).log()
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def _one_number(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """One number for each pair is wanted; the trainer takes the mean."""
    return _direct(*texts, kl_coef=kl_coef, label_smoothing=label_smoothing).mean()


def _not_smoothed(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """Without the wrong labels' part: a share epsilon of the loss is that of the pair turned round."""
    return _direct(*texts, kl_coef=kl_coef, label_smoothing=0.0)


def _margin_smoothed(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """You have mixed the margins, not the losses: a smaller margin only means a smaller beta."""
    margin = kl_coef * _margin(*texts)
    return -functional.logsigmoid((1 - label_smoothing) * margin - label_smoothing * margin)


def _half_of_it(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    """A classifier's label smoothing spreads epsilon over all classes, the right one too.

    Here epsilon is the share of wrong labels, all of it on the other response.
    """
    margin = kl_coef * _margin(*texts)
    return _smoothed(margin, label_smoothing / 2)


def _by_softplus(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    chosen, rejected, ref_chosen, ref_rejected = texts
    policy, reference = chosen.sum(1) - rejected.sum(1), ref_chosen.sum(1) - ref_rejected.sum(1)
    margin = kl_coef * (policy - reference)
    return functional.softplus(-margin) + label_smoothing * margin


def _by_logaddexp(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    chosen, rejected, ref_chosen, ref_rejected = texts
    better, worse = (kl_coef * (one - ref).sum(1) for one, ref in ((chosen, ref_chosen), (rejected, ref_rejected)))
    return torch.logaddexp(better, worse) - (1 - label_smoothing) * better - label_smoothing * worse


def _where_there_are_tokens(*texts: Tensor, kl_coef: float, label_smoothing: float) -> Tensor:
    chosen, rejected, ref_chosen, ref_rejected = texts
    better = ((chosen - ref_chosen) * (chosen != 0)).sum(1)
    worse = ((rejected - ref_rejected) * (rejected != 0)).sum(1)
    return _smoothed(kl_coef * (better - worse), label_smoothing)


DIRECT_PREFERENCE = Exercise(
    id="direct-preference",
    title="A policy from comparisons alone",
    kind="implement",
    points=4,
    minutes=15,
    difficulty=2,
    reference=_direct,
    cases=_cases,
    mistakes=(
        _no_reference,
        _reference_added,
        _turned_round,
        _beta_outside,
        _mean_of_tokens,
        _no_logarithm,
        _log_of_sigmoid,
        _one_number,
        _not_smoothed,
        _margin_smoothed,
        _half_of_it,
    ),
    variants=(_by_softplus, _by_logaddexp, _where_there_are_tokens),
    parts={"loss": 3, "smoothing": 1},
    masked=("rlhf_lab.equations.preference.implicit_reward", "rlhf_lab.equations.preference.bradley_terry_loss"),
)


def _rests() -> list[float]:
    """DPO and IPO on sure labels, DPO with a tenth of them taken to be wrong, DPO and IPO on labels of three to one."""
    return [math.inf, 1.0, math.log(9.0) / 0.5, math.log(3.0) / 0.5, 0.5]


def _in_rewards() -> list[float]:
    """Nearly: these are margins of the implicit rewards. The question is about log-ratios: divide by beta."""
    return [math.inf, 0.5, math.log(9.0), math.log(3.0), 0.25]


def _at_rest() -> list[float]:
    """DPO's first answer: -log sigma(x) falls for ever. Where every label says the same there is no best margin."""
    return [1.0, 1.0, math.log(9.0) / 0.5, math.log(3.0) / 0.5, 0.5]


def _smoothing_does_nothing() -> list[float]:
    """With label smoothing the loss has a least: where sigma(beta h) is 1 - epsilon, so h is log(9) / beta."""
    return [math.inf, 1.0, math.inf, math.log(3.0) / 0.5, 0.5]


def _as_if_sure() -> list[float]:
    """IPO's last answer: three in four choose the first response, one in four the other.

    The mean of both squares is least at (2 q - 1) / (2 beta), so at half of what sure labels give.
    """
    return [math.inf, 1.0, math.log(9.0) / 0.5, math.log(3.0) / 0.5, 1.0]


def _odds_of_a_share() -> list[float]:
    """The odds of three in four are 3 to 1: DPO rests where sigma(beta h) is 3/4, so h is log(3) / beta."""
    return [math.inf, 1.0, math.log(9.0) / 0.5, math.log(4.0) / 0.5, 0.5]


WHERE_IT_RESTS = Exercise(
    id="where-it-rests",
    title="Where does it come to rest?",
    kind="predict",
    points=2,
    minutes=10,
    difficulty=3,
    reference=_rests,
    cases=lambda rng: [Case(title="your five margins")],
    mistakes=(_in_rewards, _at_rest, _smoothing_does_nothing, _as_if_sure, _odds_of_a_share),
    variants=(lambda: [float("inf"), 1.0, 4.394449154672439, 2.1972245773362196, 0.5], lambda: [*_rests()]),
    tolerance=1e-2,
)
