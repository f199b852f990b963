import csv
import io
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.course.gradebook import GradebookError, LatePolicy, grades_of, write_gradebook
from rlhf_lab.course.written import WrittenGrade
from tests.course.sample_results import exercise, question, result

POLICY = LatePolicy(due=datetime(2026, 11, 30, tzinfo=UTC), percent_per_day=10, max_days=5)
RESULTS = [
    result("ben", "04_ppo", exercise(points=2), question(), submitted="2026-12-01T10:00:00+00:00"),
    result("ana", "05_tldr", exercise("clip")),
    result("ana", "04_ppo", notes=["gae: a marker was taken out."]),
    result("cleo", "04_ppo", exercise(points=0), question(""), status="refused", reason="it is empty."),
    result("dan", "04_ppo", exercise(), question(""), status="needs a person", reason="KeyError: 'x'", sandbox="none"),
]
WRITTEN = {("ana", "curve"): WrittenGrade(points=2.0, met=(1,))}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))


def test_grades_add_up(tmp_path: Path) -> None:
    write_gradebook(tmp_path, RESULTS, WRITTEN, late=POLICY)
    rows = {row.pop("student"): row for row in table(tmp_path / "grades.csv")}
    assert list(rows) == ["ana", "ben", "cleo", "dan"]
    assert list(rows["ana"].values())[:7] == ["5", "3", "8", "0", "8", "9", "0"]
    assert list(rows["ben"].values())[:7] == ["2", "", "2", "0.4", "1.6", "9", "1"]
    assert list(rows["cleo"].values())[:7] == ["0", "", "0", "0", "0", "9", "0"]
    assert rows["ana"]["notes"] == (
        "04_ppo: it is not known when it was handed in: taken as in time; 04_ppo: gae: a marker was taken out; "
        "05_tldr: it is not known when it was handed in: taken as in time"
    )
    assert rows["ben"]["notes"] == (
        "04_ppo: handed in 2026-12-01 10:00, due 2026-11-30 00:00 UTC, 2 days late: 20% off, which is 0.4 of 2 points; "
        "04_ppo: 1 written answer to be graded; 05_tldr: nothing was handed in"
    )
    assert rows["cleo"]["notes"].startswith("04_ppo: refused: it is empty; 05_tldr")
    assert rows["dan"]["notes"].startswith("04_ppo: needs a person: KeyError: 'x'; 04_ppo: it is not known")
    assert "04_ppo: no sandbox" in rows["dan"]["notes"]


def test_platforms_get_final_grades_only(tmp_path: Path) -> None:
    write_gradebook(tmp_path, RESULTS, WRITTEN, late=POLICY, canvas_ids={"04_ppo": "991"})
    canvas = {row["Student"]: row["04_ppo (991)"] for row in table(tmp_path / "canvas.csv")}
    assert canvas == {"    Points Possible": "6", "ana": "5", "ben": "", "cleo": "0", "dan": ""}
    moodle = {row["ID number"]: (row["04_ppo"], row["04_ppo (feedback)"]) for row in table(tmp_path / "moodle.csv")}
    assert moodle == {
        "ana": ("5", "gae 3/3, curve 2/3"),
        "ben": ("", ""),
        "cleo": ("0", "refused: it is empty."),
        "dan": ("", ""),
    }


def test_a_late_grade_is_explained_where_the_student_sees_it(tmp_path: Path) -> None:
    late = result("ana", "04_ppo", exercise(), late_marked=True)
    write_gradebook(tmp_path, [late], {}, late=POLICY)
    (row,) = table(tmp_path / "moodle.csv")
    assert row["04_ppo"] == "2.7"
    assert row["04_ppo (feedback)"] == (
        "gae 3/3. marked late by Canvas, which does not say when: counted as 1 day, 10% off, which is 0.3 of 3 points"
    )


def test_a_roster_adds_who_is_missing_and_says_who_is_unknown(tmp_path: Path) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text('student,name,canvas_id,email\nana,"Example, Ana",1,ana@uni\nZoe,Zoe,2,z@uni\nx,Ben,12345,\n')
    results = [*RESULTS, result("exampleben_12345", "04_ppo", exercise(), canvas_id="12345")]
    write_gradebook(tmp_path, results, WRITTEN, roster=roster)
    rows = {row["student"]: row for row in table(tmp_path / "grades.csv")}
    assert list(rows) == ["Zoe", "ana", "ben", "cleo", "dan", "exampleben_12345"]
    assert rows["Zoe"]["notes"] == "nothing was handed in" and rows["Zoe"]["total"] == "0"
    assert rows["ana"]["name"] == "Example, Ana" and "moodle" not in rows["ana"]["notes"]
    assert rows["ben"]["notes"].endswith("not in the roster, so not in moodle.csv")
    assert rows["exampleben_12345"]["notes"].endswith("no email in the roster, so not in moodle.csv")
    canvas = {row["Student"]: row["ID"] for row in table(tmp_path / "canvas.csv")[1:]}
    assert canvas == {"Example, Ana": "1", "ben": "", "cleo": "", "dan": "", "Ben": "12345"}
    assert [row["Email address"] for row in table(tmp_path / "moodle.csv")] == ["ana@uni"]


def test_what_canvas_calls_a_student_goes_back_to_canvas(tmp_path: Path) -> None:
    write_gradebook(tmp_path, [result("exampleana_12345", "04_ppo", exercise(), canvas_id="12345")], {})
    assert table(tmp_path / "canvas.csv")[1]["ID"] == "12345"


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    def files(name: str, results: list[dict[str, Any]]) -> dict[str, bytes]:
        out = tmp_path / name
        write_gradebook(out, results, WRITTEN, late=POLICY)
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    grades = grades_of(RESULTS[::-1], WRITTEN)
    assert list(grades) == ["ana", "ben", "cleo", "dan"] and list(grades["ana"]) == ["04_ppo", "05_tldr"]
    once = files("one", RESULTS)
    assert once == files("other", RESULTS[::-1]) == files("one", RESULTS)
    names = {f"{name}.csv" for name in ("grades", "exercises", "statistics", "canvas", "moodle")}
    assert names < set(once) and "jplag/ana/04_ppo.py" in once


def test_nothing_that_a_student_wrote_is_computed_by_a_spreadsheet(tmp_path: Path) -> None:
    evil = '=HYPERLINK("http://x"; 1)\n@x,\u202e'
    one = exercise("gae", 0, message=evil, answer=evil)
    write_gradebook(
        tmp_path, [result(evil, "04_ppo", one, question(evil), notes=[evil], reason=evil, status="stopped")], {}
    )
    for path in tmp_path.glob("*.csv"):
        cells = [cell for row in csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline="")) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))], path
        assert "\u202e" not in path.read_text("utf-8-sig")


def test_points_of_parts_and_grades_by_hand_are_exact() -> None:
    written = {("ana", "curve"): WrittenGrade(points=1.5)}
    grade = grades_of([result("ana", "04_ppo", exercise(points=1), question(), late_marked=True)], written, POLICY)
    mine = grade["ana"]["04_ppo"]
    assert (mine.raw, mine.taken_off, mine.points, mine.max_points, mine.is_final) == (2.5, 0.25, 2.25, 6.0, True)


def test_a_number_of_canvas_for_an_unknown_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GradebookError, match="given for '07_x', but graded are 04_ppo, 05_tldr"):
        write_gradebook(tmp_path, RESULTS, {}, canvas_ids={"07_x": "1"})
    assert list(tmp_path.iterdir()) == []


def test_without_results_there_are_empty_tables(tmp_path: Path) -> None:
    write_gradebook(tmp_path, [], {})
    assert table(tmp_path / "grades.csv") == []


def test_what_is_made_of_results_needs_no_pytorch() -> None:
    modules = ("intake", "submissions", "gradebook", "feedback", "written", "marking")
    code = f"import sys; from rlhf_lab.course import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
