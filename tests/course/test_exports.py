import csv
import io
from pathlib import Path

import pytest

from rlhf_lab.course.exports import (
    Line,
    Person,
    RosterError,
    canvas_table,
    moodle_table,
    read_roster,
    write_for_jplag,
)
from rlhf_lab.course.texts import TableError
from tests.course.sample_results import exercise, result

MOST = {"04_ppo": 14.0, "05_tldr": 10.0}
ANA = Person(
    student="ana",
    name="Example, Ana",
    canvas_id="12345",
    sis_user_id="S1",
    sis_login_id="ana@uni",
    section="B",
    email="A@uni.example",
)
LINES = [
    Line(person=ANA, points={"04_ppo": 12.5, "05_tldr": 10.0}, remarks={"04_ppo": "gae 2/3", "05_tldr": "all"}),
    Line(person=Person(student="ben", id_number="77"), points={"04_ppo": 0.0}, remarks={"04_ppo": "refused"}),
]


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_canvas_gets_the_columns_of_its_own_export() -> None:
    assert rows(canvas_table(LINES, MOST, {"04_ppo": "991"})) == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "04_ppo (991)", "05_tldr"],
        ["    Points Possible", "", "", "", "", "14", "10"],
        ["Example, Ana", "12345", "S1", "ana@uni", "B", "12.5", "10"],
        ["ben", "", "", "", "", "0", ""],
    ]


def test_canvas_finds_no_byte_before_its_first_column() -> None:
    assert canvas_table(LINES, MOST, {}).startswith("Student,ID,")


def test_moodle_gets_each_grade_beside_its_feedback_and_only_people_it_knows() -> None:
    assert rows(moodle_table(LINES, list(MOST))) == [
        ["Email address", "04_ppo", "04_ppo (feedback)", "05_tldr", "05_tldr (feedback)"],
        ["A@uni.example", "12.5", "gae 2/3", "10", "all"],
    ]
    assert rows(moodle_table(LINES[1:], ["04_ppo"])) == [
        ["ID number", "04_ppo", "04_ppo (feedback)"],
        ["77", "0", "refused"],
    ]


@pytest.mark.parametrize(("student", "column"), [("ana@uni.example", "Email address"), ("s123", "ID number")])
def test_without_a_roster_moodle_knows_students_as_they_named_their_files(student: str, column: str) -> None:
    table = rows(moodle_table([Line(person=Person(student=student))], ["04_ppo"]))
    assert [table[0][0], table[1][0]] == [column, student]


def test_no_name_is_a_formula_in_either() -> None:
    evil = [
        Line(
            person=Person(student="=1", name="@SUM(1)", email="+x@uni"),
            points={"04_ppo": -1.0},
            remarks={"04_ppo": "-"},
        )
    ]
    for text in (canvas_table(evil, MOST, {}), moodle_table(evil, ["04_ppo"])):
        cells = [cell for row in rows(text) for cell in row if cell != "-1"]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_a_roster_says_who_is_who(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text(
        "student;Name;ID;SIS Login ID;Email address;other\n ana ;Example, Ana;12345;ana@uni;A@uni;x\nben;;;;;\n"
    )
    ana, ben = read_roster(path)
    assert ana == Person(student="ana", name="Example, Ana", canvas_id="12345", sis_login_id="ana@uni", email="A@uni")
    assert ben == Person(student="ben")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("student\nana\nana\n", RosterError, "row 3: there is a second row for 'ana'"),
        ("student,name\n,Ana\n", RosterError, "row 2: the student has no name"),
        ("name\nana\n", TableError, "must have one column 'student'; it has name"),
    ],
)
def test_a_roster_that_cannot_be_used_is_refused(
    text: str, error: type[ValueError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "roster.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_roster(path)


def test_jplag_gets_a_folder_for_each_student(tmp_path: Path) -> None:
    folder = tmp_path / "jplag"
    write_for_jplag(folder, [result("old")])
    first = result("ana", "04_ppo", exercise("gae", answer="x = 1\n"), exercise("clip", answer=""), exercise("kl"))
    write_for_jplag(
        folder, [first, result("../evil", "04_ppo", exercise()), result("cleo", "04_ppo", exercise(answer=" "))]
    )
    files = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.py")}
    assert files == {
        "jplag/ana/04_ppo.py": "# gae\nx = 1\n\n# kl\ndef kl():\n    return 1\n",
        "jplag/%2E.%2Fevil/04_ppo.py": "# gae\ndef gae():\n    return 1\n",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["jplag"]
