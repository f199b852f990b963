"""Every exercise of the course: the reference and the variants pass, each mistake is refused with its own hint."""

import dataclasses
import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_lab.course import masking
from rlhf_lab.course.checking import NotYet, check, outcome_of
from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.course.exercises import MODULES, all_exercises, exercises_of
from rlhf_lab.course.judging import Verdict, draw_cases, judge, questions, right_outcomes
from rlhf_lab.course.wire import pack, unpack

EXERCISES = [exercise for exercise in all_exercises().values() if isinstance(exercise, Exercise)]
SEEDS = (b"one", b"two", b"three")


def verdict(exercise: Exercise, answer: Any, seed: bytes) -> Verdict:
    cases = draw_cases(exercise, seed)
    outcomes = []
    for question in unpack(pack(questions(cases))):
        try:
            outcomes.append(unpack(pack(outcome_of(answer, question))))
        except Exception as error:
            outcomes.append({"error": repr(error)})
    return judge(exercise, cases, outcomes)


def _each(kind: str) -> list[Any]:
    return [
        pytest.param(exercise, function, id=f"{exercise.id}-{function.__name__}")
        for exercise in EXERCISES
        for function in getattr(exercise, kind)
    ]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_gets_full_marks(exercise: Exercise, seed: bytes) -> None:
    got = verdict(exercise, exercise.reference, seed)
    assert (got.passed, got.points) == (True, exercise.points), got.message


@pytest.mark.parametrize(("exercise", "variant"), _each("variants"))
@pytest.mark.parametrize("seed", SEEDS)
def test_right_answers_written_differently_get_full_marks(
    exercise: Exercise, variant: Callable[..., Any], seed: bytes
) -> None:
    got = verdict(exercise, variant, seed)
    assert (got.passed, got.points) == (True, exercise.points), got.message


@pytest.mark.parametrize(("exercise", "mistake"), _each("mistakes"))
@pytest.mark.parametrize("seed", SEEDS)
def test_mistakes_are_refused_with_their_hint(exercise: Exercise, mistake: Callable[..., Any], seed: bytes) -> None:
    got = verdict(exercise, mistake, seed)
    assert not got.passed
    assert got.points < exercise.points
    assert " ".join(inspect.getdoc(mistake).split()) in got.message  # type: ignore[union-attr]


def _single(value: Any) -> Any:
    """A value in single precision."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, np.ndarray):
        return value.astype(np.float32) if value.dtype.kind == "f" else value
    if isinstance(value, dict):
        return {key: _single(entry) for key, entry in value.items()}
    return [_single(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
@pytest.mark.parametrize("seed", SEEDS)
def test_single_precision_is_right(exercise: Exercise, seed: bytes) -> None:
    def answer(*args: Any, **kwargs: Any) -> Any:
        return _single(exercise.reference(*map(_single, args), **kwargs))

    assert verdict(exercise, answer, seed).passed, verdict(exercise, answer, seed).message


@pytest.mark.parametrize("exercise", [one for one in EXERCISES if one.kind == "predict"], ids=lambda one: one.id)
def test_a_prediction_may_be_written_as_one_likes(exercise: Exercise) -> None:
    right = exercise.reference()
    spellings = [f" {right.upper()} "] if isinstance(right, str) else [np.array(right)]
    for spelling in spellings:
        assert verdict(exercise, spelling, b"s").passed, verdict(exercise, spelling, b"s").message


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_nothing_and_nonsense_get_no_points(exercise: Exercise) -> None:
    for answer in (lambda *args, **kwargs: None, lambda *args, **kwargs: 0.5, lambda *args, **kwargs: [], None, "x"):
        got = verdict(exercise, answer, b"seed")
        assert (got.passed, got.points) == (False, 0), got.message
    for error in (NotImplementedError(), ValueError("no"), RecursionError()):

        def raises(*args: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        got = verdict(exercise, raises, b"seed")
        assert (got.passed, got.points) == (False, 0)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_inputs_of_an_attempt_are_the_same_and_of_another_are_not(exercise: Exercise) -> None:
    first, again, other = (pack(questions(draw_cases(exercise, b"s", attempt))) for attempt in (0, 0, 1))
    assert first == again
    assert first != other or exercise.kind == "predict"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_no_table_of_constants_is_an_answer(exercise: Exercise) -> None:
    """What is right for one seed is wrong for another, in each part that has points."""
    if exercise.kind == "predict":
        return
    first, other = (draw_cases(exercise, seed) for seed in (b"one", b"two"))
    changing = {
        case.part
        for case, *pair in zip(first, right_outcomes(exercise, first), right_outcomes(exercise, other), strict=True)
        if pack(pair[0]) != pack(pair[1])
    }
    assert changing
    assert changing >= set(exercise.parts)


def _is_hidden(exercise: Exercise) -> bool:
    """Whether the reference is, or calls, one of the functions that are hidden; else it is the exercise's own."""
    names = {name.rpartition(".")[2] for name in exercise.hidden}
    return bool(names & {exercise.reference.__name__, *inspect.unwrap(exercise.reference).__code__.co_names})


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_hidden_functions_are_no_answer(exercise: Exercise) -> None:
    for name in exercise.hidden:
        home, _, function = name.rpartition(".")
        with pytest.raises(RuntimeError, match="hidden while your answer is checked"):
            check(exercise.id, getattr(importlib.import_module(home), function))
        with pytest.raises(RuntimeError, match="hidden while your answer is checked"):
            check(exercise.id, functools.partial(getattr(importlib.import_module(home), function)))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_the_packages_own_function_is_no_answer(exercise: Exercise) -> None:
    if exercise.kind == "predict" or not _is_hidden(exercise):
        check(exercise.id, exercise.reference() if exercise.kind == "predict" else exercise.reference)
        return
    with pytest.raises(RuntimeError, match="hidden while your answer is checked"):
        check(exercise.id, exercise.reference)
    # It works again afterwards.
    assert verdict(exercise, exercise.reference, b"seed").passed


def test_answers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def unanswered(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    monkeypatch.delenv("RLHF_LAB_CHECK_SOCKET", raising=False)
    with pytest.raises(NotYet, match="gae: not answered yet"):
        check("gae", unanswered)
    with pytest.raises(ValueError, match=r"no exercise 'gea' to check; there are .*gae"):
        check("gea", unanswered)
    assert "RLHF_LAB_CHECK_SOCKET" not in os.environ


def test_a_helper_of_another_cell_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    def cell(source: str, space: dict[str, Any]) -> None:
        exec(compile(source, f"cell {len(space)}", "exec"), space)

    notebook: dict[str, Any] = {"__name__": "__main__", "torch": torch}
    cell("def helper(logits, temperature):\n    return torch.softmax(logits / temperature, dim=-1)", notebook)
    cell("def borrows(logits, temperature):\n    return (lambda: helper(logits, temperature))()", notebook)
    cell("def mine(*args):\n    return helper_too(*args)\nhelper_too = helper\n", notebook)
    cell(
        "def own(*args):\n    return part(*args)\ndef part(logits, by):\n    return torch.softmax(logits / by, -1)",
        notebook,
    )
    check("policy-temperature", notebook["borrows"])
    assert "Careful: it uses helper from another cell." in capsys.readouterr().out
    check("policy-temperature", notebook["own"])
    assert capsys.readouterr().out == "policy-temperature: right, 2 points.\n"


def test_an_error_in_an_answer_keeps_its_traceback() -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        check("gae", broken)
    assert "while gae was checked" in caught.value.__notes__[0]


def test_every_notebook_has_its_exercises() -> None:
    for notebook in MODULES:
        assert isinstance(exercises_of(notebook), tuple)
    with pytest.raises(ValueError, match="no notebook '13_more'; the course has 00_vocabulary"):
        exercises_of("13_more")


def test_of_two_mistakes_the_one_that_is_shown_has_its_hint() -> None:
    exercise = next(one for one in EXERCISES if one.id == "own-scale")

    def over_items_and_nan(ratings: np.ndarray) -> np.ndarray:
        spread = ratings.std(0)
        return (ratings - ratings.mean(0)) / np.where(spread == 0, 1.0, spread)

    assert "You normalize each summary over its labelers." in verdict(exercise, over_items_and_nan, b"s").message


def test_messages_say_where_and_what() -> None:
    exercise = next(one for one in EXERCISES if one.id == "gae")

    def transposed(rewards: Any, *args: Any, **kwargs: Any) -> Any:
        return rewards.T

    assert "must have the shape (2, 4), not (4, 2)" in verdict(exercise, transposed, b"s").message
    flipped = verdict(exercise, lambda *args, **kwargs: -exercise.reference(*args, **kwargs), b"s").message
    assert "Case: two rows of one length. The output[0, 0] is wrong: you gave " in flipped
    assert (
        "must be a tensor of shape (2, 4), not a NumPy array"
        in verdict(exercise, lambda *args, **kwargs: np.zeros((2, 5)), b"s").message
    )
    rounded = verdict(exercise, lambda *args, **kwargs: exercise.reference(*args, **kwargs) * 1.0001, b"s").message
    assert "It is near: was a number rounded" in rounded and "It is near" not in flipped
    assert "not an int." in verdict(exercise, lambda *args, **kwargs: 3, b"s").message


def test_a_gradient_that_must_not_flow_is_named() -> None:
    def reference(kept: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        return kept * held.detach()

    def flows(kept: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        return kept * held

    cases = [Case(title="one", args=(torch.ones(2), torch.ones(2)), gradient_of=(0, 1))]
    exercise = dataclasses.replace(EXERCISES[0], reference=reference, cases=lambda rng: cases, parts={})
    assert "The gradient[1] must be None: nothing is to flow" in verdict(exercise, flows, b"s").message


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.id)
def test_what_is_to_be_hidden_is_there(exercise: Exercise) -> None:
    """A name that cannot be hidden would stop the grading of its whole notebook."""
    assert bool(masking._by_file(exercise.hidden)) == bool(exercise.hidden)
