"""Grades for Canvas and Moodle, in the tables that they take, and answers for JPlag.

Canvas, at "Import" of its gradebook, takes the columns of its own export; an assignment's is NAME (NUMBER), a name that
it does not know makes a new assignment, and what is uploaded replaces what is there. Moodle, at "Import, CSV file",
asks which column is what; feedback without a grade deletes the grade, so each grade stands beside its feedback.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rlhf_lab.course.submissions import safe_name
from rlhf_lab.course.texts import read_table, table
from rlhf_lab.records import naming, replace_folder

_OTHER_NAMES = {"id": "canvas_id", "email_address": "email", "e-mail": "email"}


class RosterError(ValueError):
    """The roster cannot be used; the message says what to mend."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """A student as learning platforms know them, such as Person(student="ana", email="ana@uni.example")."""

    student: str
    """As in the names of the submissions."""
    name: str = ""
    canvas_id: str = ""
    sis_user_id: str = ""
    sis_login_id: str = ""
    section: str = ""
    email: str = ""
    id_number: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a platform is told of a student."""

    person: Person
    points: Mapping[str, float] = field(default_factory=dict)
    """By notebook, as far as they are final."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """By notebook; nothing that a student wrote."""


def read_roster(path: Path) -> list[Person]:
    """The people in a CSV file with a column `student`, and any others that `Person` has.

    Raises:
        RosterError: A student is there twice, or a row names none.
        TableError: The file cannot be read, or has no column `student`.
    """
    people: dict[str, Person] = {}
    for place, cells in enumerate(read_table(path, ["student"]), start=2):
        row = {_column(name): value.strip() for name, value in cells.items()}
        person = Person(**{known.name: row.get(known.name, "") for known in fields(Person)})
        if not person.student or person.student in people:
            what = f"there is a second row for {person.student!r}" if person.student else "the student has no name"
            raise RosterError(f"{path}, row {place}: {what}; mend the column `student` or delete the row.")
        people[person.student] = person
    return list(people.values())


def _column(name: str) -> str:
    name = "_".join(name.lower().split())
    return _OTHER_NAMES.get(name, name)


def canvas_table(lines: Sequence[Line], max_points: Mapping[str, float], canvas_ids: Mapping[str, str]) -> str:
    """Canvas' gradebook.

    Args:
        lines: The students.
        max_points: By notebook.
        canvas_ids: The assignments' numbers in Canvas, by notebook.
    """
    names = {name: f"{name} ({canvas_ids[name]})" if name in canvas_ids else name for name in max_points}
    columns = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names.values()]
    most = {names[notebook]: points for notebook, points in max_points.items()}
    rows: list[dict[str, Any]] = [{"Student": "    Points Possible", **most}]  # Four spaces, as in Canvas' export.
    for line in lines:
        person = line.person
        about = (person.name or person.student, person.canvas_id, person.sis_user_id, person.sis_login_id)
        row: dict[str, Any] = dict(zip(columns, [*about, person.section], strict=False))
        rows.append(row | {names[notebook]: points for notebook, points in line.points.items()})
    return table(columns, rows)


def moodle_key(lines: Sequence[Line]) -> str:
    """By what Moodle is to know the students: `email`, `id_number`, or `student` if there is nothing better."""
    for name in ("email", "id_number"):
        if any(getattr(line.person, name) for line in lines):
            return name
    return "student"


def moodle_table(lines: Sequence[Line], notebooks: Sequence[str]) -> str:
    """Grades and feedback for Moodle.

    Moodle refuses a whole table in which it does not know one student, so those are left out whose address or number
    is not known.
    """
    key = moodle_key(lines)
    is_mail = key == "email" or (key == "student" and all("@" in line.person.student for line in lines))
    known_by = "Email address" if is_mail else "ID number"
    columns = [known_by, *(name for notebook in notebooks for name in (notebook, f"{notebook} (feedback)"))]
    rows = []
    for line in lines:
        row: dict[str, Any] = {known_by: getattr(line.person, key)}
        for notebook, points in line.points.items():
            row |= {notebook: points, f"{notebook} (feedback)": line.remarks[notebook]}
        rows += [row] * bool(row[known_by])
    return table(columns, rows)


def write_for_jplag(folder: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Answers as Python files, in a folder for each student, as JPlag takes them."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for result in results:
        answers = [(one["id"], str(one["answer"]).strip()) for one in result["exercises"]]
        pieces = [f"# {name}\n{answer}\n" for name, answer in answers if answer]
        if pieces:
            path = new / safe_name(result["student"]) / f"{safe_name(result['notebook'])}.py"
            with naming(path):
                path.parent.mkdir(exist_ok=True)
                path.write_bytes("\n".join(pieces).encode("utf-8", "replace"))
    replace_folder(new, folder)
