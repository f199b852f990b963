"""`check`: is this answer right, and if not, what is the matter with it?

For students it judges on the spot. When a notebook is graded, the judge sits in another process and this is only its
client: it receives inputs, calls the student's function, and sends the outputs. Nothing that happens here decides.
"""

import functools
import importlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any

from rlhf_lab.course.wire import WireError, pack, receive, send, unpack

SOCKET = "RLHF_LAB_CHECK_SOCKET"
"""Environment variable that names the checker's socket while a notebook is graded."""
TIMEOUT_S = 600.0
"""For a reply of the checker; what a cell may take is for the grader to say."""


class NotYet(AssertionError):
    """The answer is not right yet; the message says what is the matter."""

    def _render_traceback_(self) -> list[str]:
        """For IPython: the message alone, as a traceback through the judge teaches nothing."""
        return [str(self)]


def check(name: str, answer: Any) -> None:
    """Check an answer to the exercise `name`, and print what it earns.

    Args:
        name: The exercise's id.
        answer: The function, or for a prediction the value.

    Raises:
        NotYet: The answer is not right, or not there.
        ValueError: There is no such exercise.
    """
    address = os.environ.get(SOCKET)
    passed, message = _ask(address, name, answer) if address else _judge_here(name, answer)
    if not passed:
        raise NotYet(message)
    print(message)  # noqa: T201
    if not address and (borrowed := ", ".join(_borrowed(answer))):
        print(  # noqa: T201
            f"Careful: it uses {borrowed} from another cell. When it is graded, that cell is there only if it is an "
            "answer, or was in the notebook from the start; otherwise copy it into this answer's cell."
        )


def _borrowed(answer: Any) -> list[str]:
    """Names of the functions that an answer calls and that were defined in other cells of a notebook."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return []
    used = [(name, answer.__globals__.get(name)) for name in dict.fromkeys(_names_in(code))]
    # Each cell is a file of its own to Python.
    return [
        name
        for name, value in used
        if getattr(value, "__module__", "") == "__main__" and hasattr(value, "__code__")
        if value.__code__.co_filename != code.co_filename
    ]


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def outcome_of(answer: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer gives for a question: its `output`, with `gradients` where they are asked for.

    Args:
        answer: A function, or a plain value where nothing is asked but the value.
        question: An entry of `questions`, as it was received: its tensors are the answer's own to change.

    Raises:
        Exception: Whatever the answer raises.
    """
    if not callable(answer):
        return {"output": answer}
    args = list(question["args"])
    places = question["gradient_of"]
    for place in places:
        args[place] = args[place].requires_grad_()
    # A copy of each, so that a function that writes into its arguments can still be differentiated.
    given = [arg.clone() if place in places else arg for place, arg in enumerate(args)]
    output = answer(*given, **question["kwargs"])
    if not places:
        return {"output": output}
    return {"output": output, "gradients": _gradients(output, [args[place] for place in places])}


def _gradients(output: Any, inputs: Sequence[Any]) -> list[Any]:
    """Of a weighted sum of the output, so that no two elements can stand for each other."""
    import torch  # Here, so that a prediction does not need it.

    if not isinstance(output, torch.Tensor) or not output.requires_grad:
        return [None for _ in inputs]
    weights = torch.linspace(1.0, 2.0, output.numel(), dtype=output.dtype).view(output.shape)
    return list(torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True))


def _ask(address: str, name: str, answer: Any) -> tuple[bool, str]:
    """Let the checker judge."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(address)
        send(connection, {"exercise": name})
        asked = receive(connection, TIMEOUT_S)
        if "questions" not in asked:
            return False, str(asked.get("message", ""))
        send(connection, {"outcomes": [_outcome(answer, question) for question in asked["questions"]]})
        verdict = receive(connection, TIMEOUT_S)
    return bool(verdict["passed"]), str(verdict["message"])


def _outcome(answer: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome that can be sent, whatever the answer does."""
    try:
        outcome = outcome_of(answer, question)
        pack(outcome)
        return outcome
    except WireError as error:
        return {"error": str(error)[:300]}
    except NotImplementedError:
        return {"error": "NotImplementedError"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _judge_here(name: str, answer: Any) -> tuple[bool, str]:
    from rlhf_lab.course.exercises import exercise_of
    from rlhf_lab.course.judging import PUBLIC_SEED, draw_cases, judge, questions, right_outcomes

    exercise = exercise_of(name)
    cases = draw_cases(exercise, PUBLIC_SEED)
    right = right_outcomes(exercise, cases)
    outcomes = []
    with _hidden(exercise.hidden, answer) as own:
        for question in unpack(pack(questions(cases))):
            outcomes.append(_own_outcome(name, own, question))
    verdict = judge(exercise, cases, outcomes, right)
    return verdict.passed, verdict.message


def _own_outcome(name: str, answer: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome as the judge would receive it; the student sees where the answer raised."""
    try:
        return unpack(pack(outcome_of(answer, question)))
    except NotImplementedError as error:
        raise NotYet(f"{name}: not answered yet (it raises NotImplementedError).") from error
    except WireError as error:
        raise NotYet(f"{name}: not yet. About what your answer gave: {error}") from error
    except Exception as error:
        error.add_note(f"This happened while {name} was checked. Case: {question['title']}.")
        raise


@contextmanager
def _hidden(names: Sequence[str], answer: Any) -> Iterator[Any]:
    """While an answer is checked, the package's own functions refuse to give it, as they do when it is graded."""
    functions = [getattr(importlib.import_module(home), name) for home, name in map(_parts, names)]
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("rlhf_lab.")]
    spaces = [*map(vars, modules), getattr(answer, "__globals__", {})]
    found = [
        (space, name, value)
        for space in spaces
        for name, value in list(space.items())
        if any(value is function for function in functions)
    ]
    try:
        for space, name, _ in found:
            space[name] = _refuse
        inner = answer
        while isinstance(inner, functools.partial):
            inner = inner.func
        yield _refuse if any(inner is function for function in functions) else answer
    finally:
        for space, name, value in found:
            space[name] = value


def _parts(dotted: str) -> tuple[str, str]:
    home, _, name = dotted.rpartition(".")
    return home, name


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("the package's own function is hidden while your answer is checked: write it yourself.")
