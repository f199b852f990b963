"""The grades of a class, from the results of its submissions. The same results give the same bytes.

write_gradebook(Path("grades"), results, merge_written(Path("grades"), results))
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lab.course import exports
from rlhf_lab.course.exports import Line, Person
from rlhf_lab.course.item_statistics import (
    EXERCISE_COLUMNS,
    STATISTICS_COLUMNS,
    WrittenGrades,
    exercise_rows,
    statistics_rows,
    written_grade,
)
from rlhf_lab.course.late import Late, LatePolicy, lateness
from rlhf_lab.course.texts import counted, number, write_table
from rlhf_lab.records import write_atomic

__all__ = ["GradebookError", "LatePolicy", "NotebookGrade", "grades_of", "max_points_of", "write_gradebook"]

Results = Sequence[Mapping[str, Any]]


class GradebookError(ValueError):
    """Grades cannot be written; the message says what to mend."""


@dataclass(frozen=True, kw_only=True)
class NotebookGrade:
    """What a student's notebook earned, such as NotebookGrade(raw=12.0, max_points=14.0, taken_off=1.2, ...)."""

    result: Mapping[str, Any]
    raw: float
    """Points before anything is taken off."""
    max_points: float
    taken_off: float
    late: str
    """Why; or what else is to be said of when it was handed in."""
    num_ungraded: int
    """Written answers that nobody has graded yet."""

    @property
    def points(self) -> float:
        """What counts."""
        return self.raw - self.taken_off

    @property
    def is_final(self) -> bool:
        """Whether nobody has to look at it any more."""
        return not self.num_ungraded and self.result["status"] != "needs a person"


def max_points_of(results: Results) -> dict[str, float]:
    """The most that each notebook can earn."""
    most: dict[str, dict[str, float]] = defaultdict(dict)
    for result in results:
        most[result["notebook"]] |= {one["id"]: one["max_points"] for one in [*result["exercises"], *result["written"]]}
    return {notebook: float(sum(points.values())) for notebook, points in sorted(most.items())}


def grades_of(results: Results, written: WrittenGrades, late: Late = None) -> dict[str, dict[str, NotebookGrade]]:
    """The grades, by student and notebook."""
    most = max_points_of(results)
    grades: dict[str, dict[str, NotebookGrade]] = defaultdict(dict)
    for result in sorted(results, key=lambda result: (result["student"], result["notebook"])):
        given = [written_grade(result, one, written).points for one in result["written"]]
        raw = float(sum(one["points"] for one in result["exercises"]) + sum(points or 0.0 for points in given))
        percent, why = lateness(result, late)
        taken_off = round(raw * percent / 100, 2)
        grades[result["student"]][result["notebook"]] = NotebookGrade(
            result=result,
            raw=raw,
            max_points=most[result["notebook"]],
            taken_off=taken_off,
            late=f"{why}, which is {number(taken_off)} of {counted(raw, 'point')}" if percent else why,
            num_ungraded=given.count(None),
        )
    return dict(grades)


def write_gradebook(
    out: Path,
    results: Results,
    written: WrittenGrades,
    *,
    late: Late = None,
    roster: Path | None = None,
    canvas_ids: Mapping[str, str] | None = None,
) -> None:
    """Write grades.csv, exercises.csv, statistics.csv, canvas.csv, moodle.csv, and the folder jplag.

    The tables for Canvas and Moodle hold final grades only; what is not final is empty in them.

    Args:
        out: Folder of the grades.
        results: One for each submission.
        written: As `merge_written` returns them.
        late: What being late costs.
        roster: A CSV file with a column `student` and others that `exports.Person` has. Whoever is only there gets a
            row in grades.csv too.
        canvas_ids: The assignments' numbers in Canvas, by notebook.

    Raises:
        ValueError: The roster cannot be used, or a number is given for a notebook that has no results.
        OSError: A file cannot be written.
    """
    most = max_points_of(results)
    if unknown := sorted(set(canvas_ids or {}) - set(most)):
        raise GradebookError(f"a number in Canvas is given for {unknown[0]!r}, but graded are {', '.join(most)}.")
    students = _students(grades_of(results, written, late), exports.read_roster(roster) if roster else None)
    lines = [_line(student, written) for student in students if student.grades]
    key = exports.moodle_key(lines)
    rows = [_row(student, most, "" if roster is None else key) for student in students]
    columns = ["student", *["name"] * bool(roster), *most]
    columns += ["raw total", "late penalty", "total", "max", "ungraded", "notes"]
    exercises, fared = exercise_rows(results, written), statistics_rows(results, written)
    write_table(out / "grades.csv", columns, rows)
    write_table(out / "exercises.csv", EXERCISE_COLUMNS, exercises)
    write_table(out / "statistics.csv", STATISTICS_COLUMNS, fared)
    write_atomic(out / "canvas.csv", exports.canvas_table(lines, most, canvas_ids or {}))
    write_atomic(out / "moodle.csv", exports.moodle_table(lines, list(most)))
    exports.write_for_jplag(out / "jplag", results)


@dataclass(frozen=True, kw_only=True)
class _Student:
    id: str
    person: Person | None
    grades: Mapping[str, NotebookGrade]


def _students(grades: Mapping[str, Mapping[str, NotebookGrade]], roster: Sequence[Person] | None) -> list[_Student]:
    """Who handed in, and who is in the roster, known by the submissions' name or by the number in Canvas."""
    roster = roster or []
    by_name = {person.student: person for person in roster}
    by_number = {person.canvas_id: person for person in roster if person.canvas_id}
    students, seen = [], set()
    for name, mine in grades.items():
        number_there = next((found for grade in mine.values() if (found := grade.result.get("canvas_id"))), "")
        person = by_name.get(name) or by_number.get(number_there)
        if person:
            seen.add(person.student)
        elif number_there and not roster:
            person = Person(student=name, canvas_id=number_there)
        students.append(_Student(id=name, person=person, grades=mine))
    students += [_Student(id=one.student, person=one, grades={}) for one in roster if one.student not in seen]
    return sorted(students, key=lambda student: student.id)


def _line(student: _Student, written: WrittenGrades) -> Line:
    final = {notebook: grade for notebook, grade in student.grades.items() if grade.is_final}
    return Line(
        person=student.person or Person(student=student.id),
        points={notebook: round(grade.points, 2) for notebook, grade in final.items()},
        remarks={notebook: _remark(grade, written) for notebook, grade in final.items()},
    )


def _remark(grade: NotebookGrade, written: WrittenGrades) -> str:
    """What a platform shows beside a grade."""
    result = grade.result
    if result["status"] == "refused":
        return f"refused: {result['reason']}"
    points = [(one["id"], one["points"], one["max_points"]) for one in result["exercises"]]
    points += [(one["id"], written_grade(result, one, written).points, one["max_points"]) for one in result["written"]]
    parts = [f"{name} {number(had or 0)}/{number(most)}" for name, had, most in points]
    return ". ".join([", ".join(parts), *[grade.late] * bool(grade.taken_off)])


def _row(student: _Student, most: Mapping[str, float], moodle_key: str) -> dict[str, Any]:
    """A row of grades.csv."""
    grades = student.grades
    raw, taken_off = (sum(getattr(grade, name) for grade in grades.values()) for name in ("raw", "taken_off"))
    totals = {"raw total": raw, "late penalty": taken_off, "total": raw - taken_off, "max": sum(most.values())}
    ungraded = sum(grade.num_ungraded for grade in grades.values())
    notes = [note for notebook in most for note in _notes(notebook, grades.get(notebook))] if grades else []
    notes = notes or ["nothing was handed in"] * (not grades)
    if moodle_key and grades and not getattr(student.person, moodle_key, ""):
        what = "not in the roster" if student.person is None else f"no {moodle_key} in the roster"
        notes.append(f"{what}, so not in moodle.csv")
    about = {"student": student.id, "name": student.person.name if student.person else ""}
    points = {notebook: grade.raw for notebook, grade in grades.items()}
    return about | points | totals | {"ungraded": ungraded, "notes": "; ".join(notes)}


def _notes(notebook: str, grade: NotebookGrade | None) -> list[str]:
    """What the instructor should know of a student's notebook."""
    if grade is None:
        return [f"{notebook}: nothing was handed in"]
    result = grade.result
    notes = [f"{result['status']}: {result['reason']}"] * (result["status"] != "graded")
    notes += [grade.late] * bool(grade.late)
    notes += [f"{counted(grade.num_ungraded, 'written answer')} to be graded"] * bool(grade.num_ungraded)
    notes += ["no sandbox"] * (result["sandbox"] != "bubblewrap")
    return [f"{notebook}: {note.rstrip('.')}" for note in [*notes, *result["notes"]]]
