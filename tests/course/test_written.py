import csv
import io
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.course.texts import TableError
from rlhf_lab.course.written import COLUMNS, WrittenError, WrittenGrade, merge_written, read_written
from tests.course.sample_results import question, result

CLASS = [result("ana"), result("ben", "04_ppo", question("Because.")), result("cleo", "04_ppo", question(""))]


def fill(folder: Path, student: str, /, **cells: str) -> None:
    """Write cells into a student's row, as a person does in a spreadsheet."""
    path = folder / "written.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    for row in rows:
        row |= cells if row["student"] == student else {}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def row_of(folder: Path, student: str) -> dict[str, str]:
    return {row["student"]: row for row in read_written(folder / "written.csv")}[student]


def test_answers_wait_to_be_graded_and_no_answer_earns_nothing(tmp_path: Path) -> None:
    grades = merge_written(tmp_path, CLASS)
    assert grades == {
        ("ana", "curve"): WrittenGrade(),
        ("ben", "curve"): WrittenGrade(),
        ("cleo", "curve"): WrittenGrade(points=0.0),
    }
    rows = read_written(tmp_path / "written.csv")
    assert [row["student"] for row in rows] == ["ana", "ben"]
    assert rows[0]["answer"] == "It falls, since beta grows." and rows[0]["max_points"] == "3"
    assert rows[0]["rubric"] == "2: names the cause\n1: cites the figure"


def test_without_written_answers_there_is_no_table(tmp_path: Path) -> None:
    merge_written(tmp_path, [result("cleo", "04_ppo", question(""))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cells", "grade"),
    [
        ({"points": "2"}, WrittenGrade(points=2.0)),
        ({"points": " 1,5 ", "comment": "Why?"}, WrittenGrade(points=1.5, comment="Why?")),
        ({"points": "0"}, WrittenGrade(points=0.0)),
        ({"met": "1"}, WrittenGrade(points=2.0, met=(1,))),
        ({"met": "2, 1"}, WrittenGrade(points=3.0, met=(1, 2))),
        ({"met": "2", "points": "0.5"}, WrittenGrade(points=0.5, met=(2,))),
        ({"comment": "- see page 3"}, WrittenGrade(comment="- see page 3")),
    ],
)
def test_what_a_person_fills_in_is_read_and_stays(cells: dict[str, str], grade: WrittenGrade, tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ana", **cells)
    for _ in range(2):
        assert merge_written(tmp_path, CLASS)["ana", "curve"] == grade
    assert row_of(tmp_path, "ana")["answer"] == "It falls, since beta grows."


def test_the_same_table_is_not_written_again(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    before = (tmp_path / "written.csv").stat()
    merge_written(tmp_path, CLASS)
    assert (tmp_path / "written.csv").stat().st_ino == before.st_ino


def test_an_answer_that_changed_is_graded_again_and_the_old_points_are_kept(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ana", points="2", comment="Good.")
    changed = [result("ana", "04_ppo", question("It rises.")), *CLASS[1:]]
    grades = merge_written(tmp_path, changed)
    had = "The answer changed after it was graded (2 of 3 points). Good."
    assert grades["ana", "curve"] == WrittenGrade(comment=had)
    assert row_of(tmp_path, "ana")["answer"] == "It rises."
    assert merge_written(tmp_path, changed) == grades
    fill(tmp_path, "ana", points="3")
    assert merge_written(tmp_path, changed)["ana", "curve"] == WrittenGrade(points=3.0, comment=had)


def test_an_answer_that_was_taken_back_keeps_its_old_points_too(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ana", points="2")
    grades = merge_written(tmp_path, [result("ana", "04_ppo", question(""))] + CLASS[1:])
    assert grades["ana", "curve"].comment.startswith("The answer changed after it was graded (2 of 3 points).")


def test_rows_of_other_notebooks_stay(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ben", points="1")
    grades = merge_written(tmp_path, [result("ana", "05_tldr", question(name="other"))])
    assert list(grades) == [("ana", "other")]
    assert row_of(tmp_path, "ben")["points"] == "1"


def test_a_row_that_nobody_graded_goes_with_its_submission(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    merge_written(tmp_path, CLASS[1:])
    assert [row["student"] for row in read_written(tmp_path / "written.csv")] == ["ben"]


def test_a_graded_row_without_its_submission_is_not_lost_in_silence(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ana", points="2")
    before = (tmp_path / "written.csv").read_bytes()
    with pytest.raises(WrittenError, match="the row of ana and curve is graded, but there is no such answer"):
        merge_written(tmp_path, CLASS[1:])
    assert (tmp_path / "written.csv").read_bytes() == before


def test_a_spreadsheet_may_spoil_the_names(tmp_path: Path) -> None:
    one = [result("007")]
    merge_written(tmp_path, one)
    fill(tmp_path, "007", student="7", exercise="1.2E+3", answer="It falls", max_points="3", points="3")
    assert merge_written(tmp_path, one) == {("007", "curve"): WrittenGrade(points=3.0)}
    assert row_of(tmp_path, "007")["answer"] == "It falls, since beta grows."


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"points": "3.5"}, r"row 2 \(ana, curve\): points must be a number from 0 to 3, not '3\.5'"),
        ({"points": "-1"}, "points must be a number from 0 to 3"),
        ({"points": "nan"}, "points must be a number from 0 to 3"),
        ({"points": "full"}, "points must be a number from 0 to 3, not 'full'"),
        ({"met": "3"}, "the rubric has the criteria 1 to 2, not '3'"),
        ({"met": "yes"}, "the rubric has the criteria 1 to 2, not 'yes'"),
        ({"points": "2", "max_points": "many"}, "points must be a number from 0 to many"),
        ({"points": "4", "max_points": "9"}, r"written\.csv \(ana, curve\): points must be a number from 0 to 3"),
        ({"key": ""}, "'' is no key"),
        ({"key": "x"}, "'x' is no key"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(cells: dict[str, str], message: str, tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ana", **cells)
    with pytest.raises(WrittenError, match=message) as error:
        merge_written(tmp_path, CLASS)
    assert "\n" not in str(error.value)


def test_a_row_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    merge_written(tmp_path, CLASS)
    fill(tmp_path, "ben", key=row_of(tmp_path, "ana")["key"])
    with pytest.raises(WrittenError, match=r"row 3 \(ben, curve\): the same answer is in another row"):
        merge_written(tmp_path, CLASS)


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "written.csv").write_text("student,points\nana,3\n")
    with pytest.raises(TableError, match="must have one column 'notebook'"):
        merge_written(tmp_path, CLASS)


@pytest.mark.parametrize(
    "answer",
    ["=HYPERLINK(1)", "-1", "+ yes", "@ana", "'=x", 'a,b;\n"c"', "x\u202ey", "é\u2028", "1" * 40_000],
    ids=lambda answer: answer[:8],
)
def test_no_answer_breaks_the_table(answer: str, tmp_path: Path) -> None:
    one: list[Any] = [result("=ana", "04_ppo", question(answer))]
    merge_written(tmp_path, one)
    (line,) = list(csv.reader(io.StringIO((tmp_path / "written.csv").read_text("utf-8-sig"), newline="")))[1:]
    assert not [cell for cell in line if cell.startswith(("=", "+", "-", "@"))]
    fill(tmp_path, "'=ana", points="1")
    assert merge_written(tmp_path, one)["=ana", "curve"] == WrittenGrade(points=1.0)
