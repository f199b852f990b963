"""Feedback: one page for each student, that needs nothing else and runs nothing.

What a student wrote is shown as plain text, with what nobody can see made visible.
"""

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from tqdm.auto import tqdm

from rlhf_lab.course.gradebook import NotebookGrade, grades_of, max_points_of
from rlhf_lab.course.item_statistics import WrittenGrades, is_answered, written_grade
from rlhf_lab.course.late import Late
from rlhf_lab.course.submissions import safe_name
from rlhf_lab.course.texts import number, plain
from rlhf_lab.records import naming, replace_folder

_MAX_LETTERS = 20_000
"""Of one text on a page; more is cut."""
_WORDS = {
    "right": "right",
    "partly": "partly right",
    "wrong": "not right",
    "unanswered": "not answered",
    "waiting": "waits to be graded",
}


def write_feedback(
    out: Path, results: Sequence[Mapping[str, Any]], written: WrittenGrades, *, late: Late = None
) -> list[Path]:
    """Write a page for each student into the folder `feedback`, in place of those of an earlier run; their paths.

    Args:
        out: Folder of the grades.
        results: One for each submission.
        written: As `merge_written` returns them.
        late: What being late costs.

    Raises:
        OSError: A page cannot be written; the pages of the earlier run stay.
    """
    folder, new = out / "feedback", out / ".feedback.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    names, most = [], max_points_of(results)
    for student, grades in tqdm(grades_of(results, written, late).items(), desc="feedback", delay=2):
        names.append(f"{safe_name(student)}.html")
        with naming(new / names[-1]):
            page = feedback_page(student, grades, written, most=most)
            (new / names[-1]).write_bytes(page.encode("utf-8", "replace"))
    replace_folder(new, folder)
    return [folder / name for name in names]


def feedback_page(
    student: str,
    grades: Mapping[str, NotebookGrade],
    written: WrittenGrades,
    *,
    most: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """The page of a student, as HTML; `most` has the points of every notebook that was asked for."""
    missing = {name: points for name, points in most.items() if name not in grades}
    notebooks = [_notebook(name, grade, written) for name, grade in grades.items()]
    had, all_points = (sum(one[key] for one in notebooks) for key in ("points", "most"))
    waiting = sum(one["num_waiting"] for one in notebooks)
    return _template().render(
        student=student,
        notebooks=notebooks,
        missing=missing,
        points=had,
        most=all_points + sum(missing.values()),
        waiting=waiting,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,  # Whatever the template shows, by whomever it was written.
    )
    return environment.get_template("feedback.html.j2")


def _shown(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if not isinstance(value, str):
        return value
    cut = f"{value[:_MAX_LETTERS]}\n[cut: {len(value) - _MAX_LETTERS} more letters]"
    return plain(value if len(value) <= _MAX_LETTERS else cut)


def _notebook(name: str, grade: NotebookGrade, written: WrittenGrades) -> dict[str, Any]:
    result = grade.result
    parts = [_exercise(one) for one in result["exercises"]]
    parts += [_question(result, one, written) for one in result["written"]]
    return {
        "name": name,
        "points": grade.points,
        "most": grade.max_points,
        "raw": grade.raw,
        "late": grade.late if grade.taken_off else "",
        "status": result["status"],
        "reason": result["reason"],
        "notes": result["notes"],
        "num_waiting": grade.num_ungraded,
        "parts": parts if result["status"] != "refused" else [],
        "log": result["log"].strip() if result["status"] == "stopped" else "",
    }


def _exercise(one: Mapping[str, Any]) -> dict[str, Any]:
    is_there = is_answered(one)
    state = "right" if one["passed"] else "partly" if one["points"] else "wrong" if is_there else "unanswered"
    message = one["message"].removeprefix(f"{one['id']}: ") if state in ("partly", "wrong") else ""
    shown = {"kind": "code", "message": message[:1].upper() + message[1:], "criteria": []}
    return _part(one, state, one["points"], one["answer"] if is_there else "") | shown


def _question(result: Mapping[str, Any], one: Mapping[str, Any], written: WrittenGrades) -> dict[str, Any]:
    grade = written_grade(result, one, written)
    if not one["answer"].strip():
        state = "unanswered"
    elif grade.points is None:
        state = "waiting"
    else:
        state = "right" if grade.points == one["max_points"] else "partly" if grade.points else "wrong"
    criteria = [
        {"text": text, "points": points, "met": place in grade.met, "is_known": bool(grade.met)}
        for place, (text, points) in enumerate(one["rubric"].items(), start=1)
    ]
    shown = {"kind": "text", "message": "" if state == "waiting" else grade.comment, "criteria": criteria}
    return _part(one, state, grade.points, one["answer"]) | shown


def _part(one: Mapping[str, Any], state: str, points: float | int | None, answer: str) -> dict[str, Any]:
    about = {"title": one["title"], "points": points, "most": one["max_points"]}
    return about | {"state": state, "word": _WORDS[state], "answer": answer.strip("\n")}
