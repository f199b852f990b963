"""Written answers, which a person grades: a table to fill in, `written.csv` among the grades.

`points` and `comment` are for the person. `met` may hold the numbers of the rubric's criteria that are met ("1 3"):
without `points` they decide. What was filled in is never overwritten: where the answer has changed since, it is moved
to the comment. The first half of `key` stands for the student and the exercise, the second for the answer, so that
nothing is lost when a spreadsheet turns the student 007 into 7.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lab.course.texts import counted, number, read_table, table
from rlhf_lab.records import write_atomic

FILE = "written.csv"
COLUMNS = (
    *("student", "notebook", "exercise", "title", "answer", "rubric"),
    *("met", "points", "max_points", "comment", "key"),
)
_KEY = re.compile(r"w[0-9a-f]{16}-[0-9a-f]{16}")
_CRITERION = re.compile(r"(\d+(?:\.\d+)?): (.*)")

Row = dict[str, str]


class WrittenError(ValueError):
    """The table of written answers cannot be used; the message says what to mend."""


@dataclass(frozen=True, kw_only=True)
class WrittenGrade:
    """What a person gave, such as WrittenGrade(points=2.0, met=(1,), comment="And why?")."""

    points: float | None = None
    """None where nobody has graded it yet."""
    met: tuple[int, ...] = ()
    """Numbers of the criteria that are met, from 1, where they were ticked."""
    comment: str = ""


def merge_written(folder: Path, results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], WrittenGrade]:
    """Put what is new into `written.csv`, and return the grades in it by student and exercise.

    A question without an answer has 0 points and is not asked about.

    Args:
        folder: Of the grades.
        results: Of the submissions; rows of notebooks that have no result here stay as they are.

    Raises:
        WrittenError: A row has points that it cannot have, or is graded and belongs to no result.
        TableError: The table cannot be read.
        OSError: It cannot be written.
    """
    path = folder / FILE
    old = {row["key"][:17]: row for row in read_written(path)} if path.exists() else {}
    rows, grades = [], {}
    for place, row in _asked(results).items():
        before = old.pop(place, None)
        if not row["answer"] and before is None:
            grades[row["student"], row["exercise"]] = WrittenGrade(points=0.0)
            continue
        rows.append(_merged(row, before))
        grades[row["student"], row["exercise"]] = _grade(rows[-1], str(path))
    graded = {result["notebook"] for result in results}
    for row in old.values():
        if row["notebook"] not in graded:
            rows.append(row)
        elif row["points"] or row["met"] or row["comment"]:
            raise WrittenError(
                f"{path}: the row of {row['student']} and {row['exercise']} is graded, but there is no such answer in "
                f"the submissions any more; put the submission back, or delete the row."
            )
    if rows or path.exists():
        write_rows(path, sorted(rows, key=lambda row: (row["notebook"], row["exercise"], row["student"])))
    return grades


def _asked(results: Sequence[Mapping[str, Any]]) -> dict[str, Row]:
    """A row for each written question of each student, by the first half of its key."""
    rows = {}
    for result in results:
        for written in result["written"]:
            who = f"{result['student']}\0{result['notebook']}\0{written['id']}"
            answer = str(written["answer"]).strip()
            row = {"student": result["student"], "notebook": result["notebook"], "exercise": written["id"]}
            rubric = "\n".join(f"{number(points)}: {criterion}" for criterion, points in written["rubric"].items())
            about = {"title": written["title"], "answer": answer, "rubric": rubric}
            key = f"w{_digest(who)}-{_digest(answer)}"
            given = {"met": "", "points": "", "max_points": number(written["max_points"]), "comment": "", "key": key}
            rows[key[:17]] = row | about | given
    return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _merged(row: Row, before: Row | None) -> Row:
    """A row with what was filled in before; if that was for another answer, as a remark."""
    if before is None:
        return row
    if before["key"] == row["key"]:
        return row | {name: before[name] for name in ("met", "points", "comment")}
    points = grade_in(before).points
    if points is None:
        return row | {"comment": before["comment"]}
    had = f"The answer changed after it was graded ({number(points)} of {counted(float(row['max_points']), 'point')})."
    return row | {"comment": f"{had} {before['comment']}".strip()}


def read_written(path: Path) -> list[Row]:
    """The rows of the table, all checked, whatever program saved it.

    Raises:
        WrittenError: A row without its key, a key that is there twice, or points that the row cannot have.
        TableError: The table cannot be read.
    """
    rows, seen = [], set()
    for place, cells in enumerate(read_table(path, COLUMNS), start=2):
        row = {name: cells[name] if name in ("answer", "comment") else cells[name].strip() for name in COLUMNS}
        where = f"{path}, row {place} ({row['student']}, {row['exercise']})"
        if not _KEY.fullmatch(row["key"]):
            raise WrittenError(f"{where}: {row['key']!r} is no key; leave that column as it was written.")
        if row["key"][:17] in seen:
            raise WrittenError(f"{where}: the same answer is in another row too; delete one of them.")
        seen.add(row["key"][:17])
        _grade(row, f"{path}, row {place}")
        rows.append(row)
    return rows


def _grade(row: Row, where: str) -> WrittenGrade:
    try:
        return grade_in(row)
    except ValueError as error:
        raise WrittenError(f"{where} ({row['student']}, {row['exercise']}): {error}") from error


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table, if it says anything new."""
    data = table(COLUMNS, rows).encode("utf-8-sig")
    if not path.exists() or path.read_bytes() != data:
        write_atomic(path, data)


def criteria_of(row: Row) -> list[tuple[str, float]]:
    """The rubric of a row: criteria and their points."""
    found = (_CRITERION.fullmatch(line) for line in row["rubric"].splitlines())
    return [(match[2], float(match[1])) for match in found if match]


def grade_in(row: Row) -> WrittenGrade:
    """The grade in a row.

    Raises:
        ValueError: The points are no number from 0 to the row's most, or a criterion that is met is none of the rubric.
    """
    criteria = criteria_of(row)
    met = tuple(sorted({_criterion(word, len(criteria)) for word in re.split(r"[\s,;]+", row["met"]) if word}))
    points = _points(row) if row["points"] else None
    if points is None and met:
        points = sum(criteria[place - 1][1] for place in met)
    return WrittenGrade(points=points, met=met, comment=row["comment"])


def _criterion(word: str, most: int) -> int:
    if not word.isascii() or not word.isdigit() or not 1 <= int(word) <= most:
        raise ValueError(f"the rubric has the criteria 1 to {most}, not {word!r}; give their numbers, such as 1 3.")
    return int(word)


def _points(row: Row) -> float:
    try:
        points, most = float(row["points"].replace(",", ".")), float(row["max_points"])
    except ValueError:
        points, most = math.nan, math.nan
    if not 0 <= points <= most:
        raise ValueError(f"points must be a number from 0 to {row['max_points']}, not {row['points']!r:.40}.")
    return points
