"""The judge: inputs for an exercise, and a verdict on what a student's function made of them.

It runs where no student's code does: in the checker's process, or, for the student's own check, beside the notebook.
A wrong output is compared with what known mistakes give for the same inputs; the one that agrees tells what to say.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rlhf_lab.course.checking import outcome_of
from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.course.wire import pack, unpack

PUBLIC_SEED = b"public"
"""Of the checks that students run themselves; grading draws its own."""
_NEAR = 1e-3
"""Relative: what differs by less has lost precision, and is no other formula."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an answer earned, such as Verdict(points=2, max_points=2, passed=True, message="gae: right, 2 points.")."""

    points: int
    max_points: int
    passed: bool
    message: str


def draw_cases(exercise: Exercise, seed: bytes, attempt: int = 0) -> list[Case]:
    """The inputs of an attempt: always the same for a seed.

    Args:
        exercise: Whose inputs.
        seed: A secret when grading, so that nobody can know the inputs before.
        attempt: Each attempt gets others.
    """
    digest = hashlib.sha256(b"/".join([seed, exercise.id.encode(), str(attempt).encode()])).digest()
    return list(exercise.cases(np.random.default_rng(list(digest))))


def questions(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The cases as values that can be sent."""
    return [
        {
            "title": case.title,
            "args": list(case.args),
            "kwargs": dict(case.kwargs),
            "gradient_of": list(case.gradient_of),
        }
        for case in cases
    ]


def right_outcomes(exercise: Exercise, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What the reference gives for each case."""
    return [unpack(pack(outcome_of(exercise.reference, question))) for question in unpack(pack(questions(cases)))]


def judge(
    exercise: Exercise,
    cases: Sequence[Case],
    outcomes: Sequence[Mapping[str, Any]],
    right: Sequence[Mapping[str, Any]] | None = None,
) -> Verdict:
    """The verdict on an answer's outcomes, one for each case.

    Args:
        exercise: What was asked.
        cases: Its inputs.
        outcomes: As they were received: `output` and perhaps `gradients`, or `error`, a text.
        right: What `right_outcomes` gives, where that is known already.
    """
    if len(outcomes) != len(cases):
        return _missed(exercise, 0, f"{len(outcomes)} of {len(cases)} answers arrived.")
    right = right_outcomes(exercise, cases) if right is None else right
    wrong = [
        (place, trouble)
        for place, (expected, got) in enumerate(zip(right, outcomes, strict=True))
        if (trouble := _difference(exercise, expected, got))
    ]
    if not wrong:
        return Verdict(
            points=exercise.points,
            max_points=exercise.points,
            passed=True,
            message=f"{exercise.id}: right, {_points(exercise.points)}.",
        )
    place, trouble = wrong[0]
    lost = {cases[index].part for index, _ in wrong}
    earned = sum(points for part, points in exercise.parts.items() if part not in lost)
    hint = _hint(exercise, cases, outcomes, [index for index, _ in wrong])
    where = f"Case: {cases[place].title}. " if len(cases) > 1 else ""
    return _missed(exercise, earned, f"{hint}\n{where}{trouble}" if hint else f"{where}{trouble}")


def _missed(exercise: Exercise, earned: int, why: str) -> Verdict:
    score = f"{earned} of {_points(exercise.points)}" if earned else "not yet"
    message = f"{exercise.id}: {score}. {why}"
    return Verdict(points=earned, max_points=exercise.points, passed=False, message=message)


def _points(number: int) -> str:
    return f"{number} point{'s' * (number != 1)}"


def _hint(
    exercise: Exercise, cases: Sequence[Case], outcomes: Sequence[Mapping[str, Any]], wrong: Sequence[int]
) -> str:
    """The hint of the first known mistake that gives these wrong outcomes, or at least the first of them.

    The second is for answers with two mistakes: the one that is shown has its hint. An error is no such sign.
    """
    first = [wrong[0]] if "output" in outcomes[wrong[0]] else []
    for places in filter(None, (wrong, first)):
        for mistake in exercise.mistakes:
            if all(_agrees(exercise, mistake, cases[place], outcomes[place]) for place in places):
                return " ".join((mistake.__doc__ or "").split())
    return ""


def _agrees(exercise: Exercise, mistake: Callable[..., Any], case: Case, got: Mapping[str, Any]) -> bool:
    try:
        given = unpack(pack(outcome_of(mistake, unpack(pack(questions([case])))[0])))
    except Exception:  # A mistake may well raise for some input.
        return "error" in got
    return not _difference(exercise, given, got)


def _difference(exercise: Exercise, right: Mapping[str, Any], got: Mapping[str, Any]) -> str:
    """What is wrong with an outcome, in a sentence; empty if nothing is."""
    if "error" in got:
        return f"Your answer raised an error: {_plain(got['error'])}"
    if "output" not in got:
        return "No answer arrived."
    expected, output = right["output"], got["output"]
    if exercise.kind == "predict":
        expected, output = _prediction(expected), _prediction(output)
    if trouble := _unlike(expected, output, exercise.tolerance, "the output"):
        return trouble
    if "gradients" not in right:
        return ""
    return _unlike(right["gradients"], got.get("gradients"), exercise.tolerance, "the gradient")


def _prediction(value: Any) -> Any:
    """What is meant, however it is written: " Small" is "small", and an array is its numbers."""
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return [_prediction(entry) for entry in value] if isinstance(value, list) else value


def _unlike(right: Any, got: Any, tolerance: float, name: str) -> str:
    """How a value differs from the right one, in a sentence; empty if it does not."""
    if isinstance(right, Tensor | np.ndarray):
        return _unlike_array(right, got, tolerance, name)
    if isinstance(right, list):
        if not isinstance(got, list) or len(got) != len(right):
            return f"{_start(name)} must be a list of {len(right)}, not {_what(got)}."
        pairs = enumerate(zip(right, got, strict=True))
        return next((bad for place, (a, b) in pairs if (bad := _unlike(a, b, tolerance, f"{name}[{place}]"))), "")
    if isinstance(right, dict):
        if not isinstance(got, dict) or set(got) != set(right):
            return f"{_start(name)} must be a dict with {', '.join(sorted(right))}, not {_what(got)}."
        return next((bad for key in right if (bad := _unlike(right[key], got[key], tolerance, f"{name}[{key!r}]"))), "")
    return _unlike_number(right, got, tolerance, name)


def _unlike_number(right: Any, got: Any, tolerance: float, name: str) -> str:
    if isinstance(got, Tensor | np.ndarray) and got.ndim == 0:
        got = got.item()
    if right is None and name.startswith("the gradient") and got is not None:
        return f"{_start(name)} must be None: nothing is to flow from the output to this argument, so detach it."
    if isinstance(right, bool | str) or right is None:
        return "" if type(got) is type(right) and got == right else f"{_start(name)} is wrong: you gave {_shown(got)}."
    if isinstance(got, bool) or not isinstance(got, int | float):
        return f"{_start(name)} must be a number, not {_what(got)}."
    same = math.isclose(right, got, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(right) and math.isnan(got))
    return (
        ""
        if same
        else f"{_start(name)} is wrong: you gave {got:.6g}.{_nearly(math.isclose(right, got, rel_tol=_NEAR))}"
    )


def _unlike_array(right: Any, got: Any, tolerance: float, name: str) -> str:
    if got is None and name.startswith("the gradient"):
        return "No gradient flows from the output to this argument: was it detached on the way?"
    if got is None or not isinstance(got, type(right)):
        wanted = "tensor" if isinstance(right, Tensor) else "NumPy array"
        return f"{_start(name)} must be a {wanted} of shape {_shape(right)}, not {_what(got)}."
    if tuple(got.shape) != tuple(right.shape):
        return f"{_start(name)} must have the shape {_shape(right)}, not {_shape(got)}."
    expected, given = np.asarray(right), np.asarray(got)
    if _family(expected) != _family(given):
        return f"{_start(name)} must hold {_family(expected)}, not {_family(given)}."
    expected, given = expected.astype(float), given.astype(float)
    close = np.isclose(given, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return ""
    # The first wrong element, as a reader would look for it.
    place = tuple(int(index) for index in np.argwhere(~close)[0])
    at = f"[{', '.join(map(str, place))}]" if place else ""
    others = int((~close).sum()) - 1
    more = f" ({others} more are wrong)" if others else ""
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    near = np.allclose(given, expected, rtol=_NEAR, atol=_NEAR * scale, equal_nan=True)
    return f"{_start(name)}{at} is wrong: you gave {given[place]:.6g}{more}.{_nearly(near)}"


def _nearly(is_near: bool) -> str:
    return " It is near: was a number rounded, or held in a type of less precision?" * is_near


def _family(array: np.ndarray) -> str:
    return {"f": "real numbers", "i": "whole numbers", "u": "whole numbers", "b": "True and False"}[array.dtype.kind]


def _shape(array: Any) -> str:
    return f"({', '.join(map(str, array.shape))})"


def _what(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{'a tensor' if isinstance(value, Tensor) else 'a NumPy array'} of shape {_shape(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    name = type(value).__name__
    return "nothing (None)" if value is None else f"a{'n' * (name[0] in 'aeiou')} {name}"


def _shown(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, bool | str | int | float) or value is None else _what(value)


def _start(name: str) -> str:
    return name[0].upper() + name[1:]


def _plain(text: Any) -> str:
    """A student's own words: short, on one line, printable."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:300]
