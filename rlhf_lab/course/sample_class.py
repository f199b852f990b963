"""A class to try grading on: what twelve invented students hand in for one notebook, from honest to hostile."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_lab.course.notebooks import Reference, dump, student_version
from rlhf_lab.records import write_atomic

Cells = dict[str, str]
"""Answers by the id of their cells."""

SKIPPED = "# NBVAL_SKIP\nraise SystemExit"
REDEFINED = "def check(name, answer):\n    print(f'{name}: right, all points.')"
DEATH = "import os\nos._exit(0)"
LOOP = "while True:\n    pass"


def _whole(cells: Cells) -> Cells:
    return cells


def _first_half(cells: Cells) -> Cells:
    return dict(list(cells.items())[: (len(cells) + 1) // 2])


def _nothing(cells: Cells) -> Cells:
    return {}


def _first(source: str) -> Callable[[Cells], Cells]:
    """The first answer is `source`, the others are right."""
    return lambda cells: {**cells, next(iter(cells)): source}


STUDENTS: Mapping[str, tuple[Callable[[Cells], Cells], str]] = {
    "ana": (_whole, "everything right"),
    "ben": (_whole, "everything right, saved on Windows"),
    "chloe": (_first_half, "the first half of the answers"),
    "dan": (_nothing, "nothing answered"),
    "eva": (_first("def answer(:"), "an answer that Python cannot read"),
    "finn": (_whole, "everything right, the check cells deleted"),
    "gita": (_whole, "everything right, the outputs cleared and the cells in another order"),
    "hugo": (_first(SKIPPED), "a marker that makes nbval skip a wrong answer"),
    "ida": (_first(REDEFINED), "a check of her own, which says that all is right"),
    "jon": (_first(DEATH), "the kernel ended"),
    "kim": (_first(LOOP), "an endless loop"),
    "lea": (_whole, "a file that is cut off"),
}
"""What each hands in, and a word about it."""


def make_class(solutions: Path, notebook: str, out: Path) -> list[Path]:
    """Write a folder for each student with the notebook that they hand in; which files were written.

    Raises:
        NotebookError: There is no such solution, or it is not as it must be.
        OSError: A file cannot be written.
    """
    reference = Reference.load(solutions / f"{notebook}.ipynb")
    answers = {cell.id: cell.source for cell in reference.notebook.cells if cell.id in reference.answers}
    released = json.loads(dump(student_version(reference.notebook)))
    written = []
    for student, (choose, _) in STUDENTS.items():
        handed_in = _filled(released, choose(answers))
        if student in ("finn", "gita"):
            handed_in["cells"] = [cell for cell in handed_in["cells"] if not cell["id"].endswith("-check")]
        if student == "gita":
            handed_in["cells"].reverse()
        text = json.dumps(handed_in, indent=1)
        if student == "ben":
            text = text.replace("\n", "\r\n")
        path = out / student / f"{notebook}.ipynb"
        write_atomic(path, text[: len(text) // 2] if student == "lea" else text)
        written.append(path)
    return written


def _filled(notebook: Mapping[str, Any], answers: Cells) -> dict[str, Any]:
    cells = [{**cell, "source": answers.get(cell["id"], cell["source"])} for cell in notebook["cells"]]
    return {**notebook, "cells": cells}
