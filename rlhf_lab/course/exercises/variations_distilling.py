"""Notebook 07: a prompt in the weights: the teacher's likeliest tokens, and the rest as one."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.sequence import distillation_loss, kl_exact


def _cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, shape: tuple[int, ...], top_k: int, spread: float = 1.0) -> Case:
        student, teacher = (torch.tensor(spread * rng.normal(size=shape)) for _ in range(2))
        return Case(title=title, args=(student, teacher), kwargs={"top_k": top_k}, gradient_of=(0,))

    halves, quarters = (torch.tensor([odds], dtype=torch.float64).log() for odds in ([2.0, 1.0, 1.0], [1.0, 1.0, 2.0]))
    by_hand = Case(title="three tokens, one of them kept", args=(quarters, halves), kwargs={"top_k": 1})
    return [
        by_hand,
        case("all tokens but one are kept", (4, 6), 5),
        case("as many places as tokens", (6, 6), 2),
        case("a batch of responses", (2, 3, 8), 3),
        case("a teacher that is sure", (5, 12), 4, spread=8.0),
        Case(title="so sure that the rest is less than rounding", args=_sure(rng), kwargs={"top_k": 2}),
    ]


def _sure(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Single precision: of the teacher's probabilities the two likeliest sum to 1, and of the student's to less."""
    student, teacher = (torch.tensor(rng.normal(size=(6, 8)), dtype=torch.float32) for _ in range(2))
    teacher[:, :2] += 40.0
    return student, teacher


def _rest_forgotten(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """The rest is missing.

    Without it the sum may be below 0, and the student may put its weight on tokens that the teacher hardly ever writes.
    """
    teacher, student = teacher_logits.log_softmax(-1), logits.log_softmax(-1)
    kept = teacher.topk(top_k, dim=-1).indices
    teacher, student = teacher.gather(-1, kept), student.gather(-1, kept)
    return (teacher.exp() * (teacher - student)).sum(-1)


def _scaled_up(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """You have made the kept tokens' probabilities sum to 1, on both sides.

    Then nobody tells the student how much the rest weighs.
    """
    kept = teacher_logits.topk(top_k, dim=-1).indices
    return kl_exact(teacher_logits.gather(-1, kept).log_softmax(-1), logits.gather(-1, kept).log_softmax(-1))


def _other_direction(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """The other KL: the expectation is the teacher's, who is to be imitated in all that it might write."""
    kept = teacher_logits.topk(top_k, dim=-1).indices
    teacher, student = (_outcomes(one.log_softmax(-1), kept) for one in (teacher_logits, logits))
    return kl_exact(student, teacher)


def _students_choice(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """Whose k likeliest tokens? The teacher's: they can be stored once, before the student learns."""
    kept = logits.topk(top_k, dim=-1).indices
    teacher, student = (_outcomes(one.log_softmax(-1), kept) for one in (teacher_logits, logits))
    return kl_exact(teacher, student)


def _cross_entropy(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """That is the cross-entropy: same gradient, but it is not 0 for a student that has learnt all."""
    kept = teacher_logits.topk(top_k, dim=-1).indices
    teacher, student = (_outcomes(one.log_softmax(-1), kept) for one in (teacher_logits, logits))
    return -(teacher.exp() * student).sum(-1)


def _all_tokens(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """This is the KL over the whole vocabulary: of the teacher only k tokens are stored, the rest counts as one."""
    return distillation_loss(logits, teacher_logits)


def _by_difference(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """In single precision 1 less the kept probabilities may be 0, or below, and its logarithm no number.

    Add the rest up from its own tokens, with logsumexp.
    """
    likely, kept = teacher_logits.softmax(-1).topk(top_k, dim=-1)
    guessed = logits.softmax(-1).gather(-1, kept)
    rest, guessed_rest = 1.0 - likely.sum(-1), 1.0 - guessed.sum(-1)
    return (likely * (likely / guessed).log()).sum(-1) + rest * (rest / guessed_rest).log()


def _of_tokens(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """A mean over the tokens: a KL is a sum, each term with its probability."""
    return distillation_loss(logits, teacher_logits, top_k=top_k) / (top_k + 1)


def _mean_of_places(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    """One number for each place is wanted; the trainer reduces."""
    return distillation_loss(logits, teacher_logits, top_k=top_k).mean()


def _outcomes(logprobs: Tensor, kept: Tensor) -> Tensor:
    """Of the kept tokens, and of any other."""
    others = torch.ones_like(logprobs, dtype=torch.bool).scatter(-1, kept, False)
    rest = logprobs.masked_fill(~others, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logprobs.gather(-1, kept), rest], dim=-1)


def _by_probabilities(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    likely, order = teacher_logits.softmax(-1).sort(dim=-1, descending=True)
    guessed = logits.softmax(-1).gather(-1, order)
    kept = (likely * (likely / guessed).log())[..., :top_k].sum(-1)
    rest, guessed_rest = likely[..., top_k:].sum(-1), guessed[..., top_k:].sum(-1)
    return kept + rest * (rest / guessed_rest).log()


def _sorted(logits: Tensor, teacher_logits: Tensor, *, top_k: int) -> Tensor:
    order = teacher_logits.argsort(dim=-1, descending=True)
    teacher, student = (one.log_softmax(-1).gather(-1, order) for one in (teacher_logits, logits))
    teacher, student = (
        torch.cat([one[..., :top_k], one[..., top_k:].logsumexp(-1, keepdim=True)], dim=-1)
        for one in (teacher, student)
    )
    return (teacher.exp() * (teacher - student)).sum(-1)


DISTILLED_CONTEXT = Exercise(
    id="distilled-context",
    title="The teacher's k likeliest tokens, and the rest",
    kind="implement",
    points=4,
    minutes=18,
    difficulty=3,
    reference=distillation_loss,
    cases=_cases,
    mistakes=(
        _rest_forgotten,
        _scaled_up,
        _other_direction,
        _students_choice,
        _cross_entropy,
        _all_tokens,
        _by_difference,
        _of_tokens,
        _mean_of_places,
    ),
    variants=(_by_probabilities, _sorted),
)
