"""The course's notebooks: read and written in one way, cleared for students, and put together for grading.

reference = Reference.load(Path("solutions/04_ppo.ipynb"))
dump(student_version(reference.notebook))
dump(splice(reference, {"gae-answer": "def gae(rewards, values): ..."}))
"""

import ast
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat
from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LIVE = "application/vnd.jupyter.widget-view+json"
"""Output of a widget or a progress bar: it lives with its kernel, and in a file it is only a random number."""
SHOW = "show"
"""Tag of the cells on which no answer depends."""
STUBS = {"code": ("# YOUR CODE HERE", "raise NotImplementedError()"), "markdown": ("YOUR ANSWER HERE",)}
"""What stands in place of a solution, as nbgrader has it."""
ANSWER, CHECK = "-answer", "-check"
"""How the ids of an exercise's cells end."""
_ROLES = {(True, False, False): "answer", (False, True, True): "check", (True, True, False): "written"}
"""By nbgrader's solution, grade and locked."""
_BEGIN, _END = "### BEGIN SOLUTION", "### END SOLUTION"
_REGION = f"a solution stands between the lines {_BEGIN!r} and {_END!r}"


class NotebookError(ValueError):
    """A notebook of the course is not as it must be; the message says what to mend."""


def load(path: Path) -> NotebookNode:
    """A notebook of ours, in the canonical form.

    Raises:
        NotebookError: There is none, or it is no notebook.
    """
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise NotebookError(f"the notebook {path} cannot be read ({error.strerror}); check the path.") from error
    except Exception as error:  # nbformat has many; each says in its first line what is the matter.
        reason = str(error).strip().partition("\n")[0].rstrip(".:")
        raise NotebookError(f"{path} is no notebook ({reason:.200}); open it in Jupyter and save it again.") from error
    return canonical(notebook)


def dump(notebook: NotebookNode) -> str:
    """The text of a notebook's file, the same for the same content."""
    return nbformat.writes(canonical(notebook)) + "\n"


def canonical(notebook: NotebookNode) -> NotebookNode:
    """A copy with what we mean and nothing else.

    Kept are sources, ids, tags, locks, nbgrader's metadata, and outputs other than widgets. Execution counts are those
    of a fresh "Run All"; a cell that was not run stays without.
    """
    cells, count = [], 0
    for cell in notebook.cells:
        kept = {"id": cell.id, "cell_type": cell.cell_type, "source": cell.source, "metadata": _metadata(cell)}
        if cell.cell_type == "code":
            was_run = cell.get("execution_count") is not None
            count += was_run
            number = count if was_run else None
            outputs = [_output(output, number) for output in cell.outputs if LIVE not in output.get("data", ())]
            kept |= {"execution_count": number, "outputs": outputs}
        elif "attachments" in cell:
            kept["attachments"] = cell.attachments
        cells.append(kept)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    made: Any = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells})
    return made


def _metadata(cell: Mapping[str, Any]) -> dict[str, Any]:
    metadata = cell["metadata"]
    kept = {key: metadata[key] for key in ("nbgrader", "deletable", "editable") if key in metadata}
    tags = list(dict.fromkeys(metadata.get("tags", ())))
    return kept | ({"tags": tags} if tags else {})


def _output(output: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    kept = dict(output)
    if "execution_count" in kept:
        kept["execution_count"] = number
    return kept


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A notebook of solutions and what it asks for, such as 3 points for the cell "gae-check"."""

    name: str
    notebook: NotebookNode
    answers: Mapping[str, Literal["code", "markdown"]]
    """Kind of each cell that the student fills, by the cell's id."""
    checks: Mapping[str, int]
    """Points of each cell that checks an answer, by its id."""
    written: Mapping[str, int]
    """Points of each answer that a person reads, by its cell's id."""

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read a notebook of solutions.

        Raises:
            NotebookError: It cannot be read, or cannot be graded as it is.
        """
        return cls.of(load(path), path.stem)

    @classmethod
    def of(cls, notebook: NotebookNode, name: str) -> "Reference":
        """What a notebook of solutions asks for.

        Raises:
            NotebookError: It cannot be graded as it is.
        """
        try:
            roles = {cell.id: _checked_role(cell) for cell in notebook.cells}
            _check_pairs(notebook, roles)
        except NotebookError as error:
            raise NotebookError(f"the solutions of {name}: {error}") from error
        points = {cell.id: cell.metadata.get("nbgrader", {}).get("points") for cell in notebook.cells}
        filled = {cell.id: cell.cell_type for cell in notebook.cells if roles[cell.id] in ("answer", "written")}
        checks = {cell: points[cell] for cell, role in roles.items() if role == "check"}
        written = {cell: points[cell] for cell, role in roles.items() if role == "written"}
        return cls(name=name, notebook=notebook, answers=filled, checks=checks, written=written)


def exercise_id(cell_id: str) -> str:
    """The exercise to which an answer or a check belongs.

    Example:
        >>> exercise_id("gae-check")
        'gae'
    """
    return cell_id.removesuffix(ANSWER).removesuffix(CHECK)


def student_version(notebook: NotebookNode) -> NotebookNode:
    """A notebook of solutions as students receive it: without solutions and outputs, its checks locked.

    Raises:
        NotebookError: A region of a solution is not closed, or there is none where one must be.
    """
    released = _without_outputs(notebook)
    for cell in released.cells:
        role = _role(cell)
        if role in ("answer", "written"):
            cell.source = _without_solution(cell)
            cell.pop("attachments", None)
        if role:
            cell.metadata |= {"deletable": False} | ({"editable": False} if role == "check" else {})
    return canonical(released)


def is_untouched(notebook: NotebookNode) -> bool:
    """Whether a student's copy is as it was released: nothing has been run, and nothing answered."""
    return not any(
        cell.get("execution_count") is not None
        or cell.get("outputs")
        or (_role(cell) in ("answer", "written") and STUBS[cell.cell_type][0] not in cell.source)
        for cell in notebook.cells
    )


def splice(reference: Reference, answers: Mapping[str, str], *, show: bool = False) -> NotebookNode:
    """The reference with a student's answers in it, to be run for grading; all else is the reference's.

    Args:
        answers: Source by cell id, as the student wrote it. What is no answer of the reference's is not used; an
            answer that is missing is the stub that students receive.
        show: Keep the cells on which no answer depends.
    """
    notebook = _without_outputs(reference.notebook)
    for cell in notebook.cells:
        if cell.id in reference.answers:
            cell.source = answers[cell.id] if cell.id in answers else _without_solution(cell)
            cell.pop("attachments", None)
    notebook.cells = [cell for cell in notebook.cells if show or SHOW not in cell.metadata.get("tags", ())]
    return notebook


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    cleared = canonical(notebook)
    for cell in cleared.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return cleared


def _without_solution(cell: NotebookNode) -> str:
    """The source with stubs in place of its solution's regions."""
    kept: list[str] = []
    begun = ended = 0
    for line in cell.source.split("\n"):
        if "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            begun, ended = begun + (line.strip() == _BEGIN), ended + (line.strip() == _END)
            if line.strip() not in (_BEGIN, _END) or begun - ended not in (0, 1):
                raise NotebookError(f"{line.strip()!r} is out of place in the cell {cell.id!r}; {_REGION}.")
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + stub for stub in STUBS[cell.cell_type]] if line.strip() == _BEGIN else []
        elif begun == ended:
            kept.append(line)
    if begun != ended or not begun:
        raise NotebookError(f"the cell {cell.id!r} has no region that begins and ends; {_REGION}.")
    if cell.cell_type == "markdown" and any(line.strip() and line not in STUBS["markdown"] for line in kept):
        raise NotebookError(
            f"the cell {cell.id!r} holds more than the answer, which would be handed in with it; split it."
        )
    return "\n".join(kept)


def _role(cell: NotebookNode) -> str:
    """What nbgrader's metadata make of a cell: answer, check, written, or nothing."""
    grading = cell.metadata.get("nbgrader")
    return _ROLES[bool(grading.solution), bool(grading.grade), bool(grading.locked)] if grading else ""


def _checked_role(cell: NotebookNode) -> str:
    """The role of a cell that is as its role wants it."""
    try:
        role = _role(cell)
    except (KeyError, AttributeError) as error:
        raise NotebookError(f"the cell {cell.id!r} is neither answer, check nor written; mend its metadata.") from error
    if not role:
        if "BEGIN SOLUTION" in cell.source or "END SOLUTION" in cell.source:
            raise NotebookError(f"the cell {cell.id!r} has a solution but is no answer; add nbgrader's metadata.")
        return role
    grading, ending = cell.metadata.nbgrader, CHECK if role == "check" else ANSWER
    if not cell.id.endswith(ending) or grading.get("grade_id") != cell.id:
        raise NotebookError(f"the cell {cell.id!r} must have an id that ends in {ending!r}, and the same grade_id.")
    if (cell.cell_type == "markdown") != (role == "written"):
        raise NotebookError(f"the cell {cell.id!r} is {cell.cell_type}; only written answers are markdown.")
    points = grading.get("points")
    if role != "answer" and (type(points) is not int or points < 1):
        raise NotebookError(f"the cell {cell.id!r} has points {points!r}; give it a whole number from 1.")
    if role == "check":
        _check_call(cell)
    else:
        _without_solution(cell)
    return role


def _check_call(cell: NotebookNode) -> None:
    """A check cell calls `check` with its exercise's id, and does nothing else."""
    match _parsed(cell.source):
        case [ast.Expr(ast.Call(ast.Name("check"), [ast.Constant(name), _], []))] if name == exercise_id(cell.id):
            return
    wanted = f'check("{exercise_id(cell.id)}", answer)'
    raise NotebookError(f"the cell {cell.id!r} must be one line such as {wanted}, not {cell.source!r:.80}.")


def _parsed(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def _check_pairs(notebook: NotebookNode, roles: Mapping[str, str]) -> None:
    """Each id once; after each answer its check, and no check without an answer."""
    counts = Counter(cell.id for cell in notebook.cells)
    if twice := [cell for cell, count in counts.items() if count > 1]:
        raise NotebookError(f"two cells have the id {twice[0]!r}; give one of them another.")
    order = list(roles)
    for cell, role in roles.items():
        if role == "answer":
            check = exercise_id(cell) + CHECK
            if roles.get(check) != "check" or order.index(check) < order.index(cell):
                raise NotebookError(f"the answer {cell!r} has no check after it; add the cell {check!r}.")
        if role == "check" and roles.get(exercise_id(cell) + ANSWER) != "answer":
            raise NotebookError(f"the check {cell!r} has no answer; add the cell {exercise_id(cell) + ANSWER!r}.")
