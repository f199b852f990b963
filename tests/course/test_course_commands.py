"""`rlhf-lab release`, `sample-class` and `grade`, as an instructor types them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lab.cli import main
from rlhf_lab.course.notebooks import Reference
from rlhf_lab.course.sample_class import STUDENTS
from tests.capabilities import ROOT

NOTEBOOK = "00_vocabulary"


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_released_notebooks_agree_with_the_solutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solutions, out = str(ROOT / "solutions"), str(tmp_path / "notebooks")
    status, text, _ = said(capsys, "release", "--solutions", solutions, "--out", out)
    assert status == 0
    assert "notebooks written" in text
    assert said(capsys, "release", "--solutions", solutions, "--out", out, "--check")[0] == 0
    path = tmp_path / "notebooks" / f"{NOTEBOOK}.ipynb"
    path.write_text(path.read_text().replace("You will build", "You will see"))
    status, _, error = said(capsys, "release", "--solutions", solutions, "--out", out, "--check")
    assert status == 2
    assert f"({NOTEBOOK}.ipynb); run `rlhf-lab release`" in error


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solutions, out = str(ROOT / "solutions"), str(tmp_path / "grades")
    folder = tmp_path / "in"
    for argv, sentence in (
        (["release", "--solutions", str(folder)], "there are no notebooks in"),
        (["sample-class", "--solutions", solutions, "--notebook", "13_more", "--out", str(folder)], "cannot be read"),
        (["grade", str(folder), "--out", out, "--solutions", str(folder)], "holds no solution notebooks"),
        (["grade", str(folder), "--out", out, "--solutions", solutions], "does not exist"),
        (["grade", str(folder), "--out", out, "--solutions", solutions, "--due", "soon"], "write it like 2026-11-30"),
    ):
        status, _, error = said(capsys, *argv)
        assert status == 2, argv
        assert sentence in error
        assert error.count("\n") == 1
    assert not Path(out, "results").exists()


def test_the_commands_do_not_wait_for_pytorch() -> None:
    code = "import sys; import rlhf_lab.course.commands, rlhf_lab.course.grading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.needs("sandbox")
def test_the_sample_class_gets_the_grades_that_it_earned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solutions, folder, out = str(ROOT / "solutions"), tmp_path / "in", tmp_path / "grades"
    make = ["sample-class", "--solutions", solutions, "--notebook", NOTEBOOK, "--out", str(folder)]
    assert said(capsys, *make)[0] == 0
    limits = ["--jobs", "2", "--cell-s", "10", "--wall-s", "90", "--due", "2026-11-30T23:59"]
    status, text, error = said(capsys, "grade", str(folder), "--out", str(out), "--solutions", solutions, *limits)
    assert status == 0, error
    assert f"12 notebooks of 12 students: {out}/grades.csv" in text
    assert "--due says nothing about 12 of 12 notebooks" in text
    results = {path.parent.name: json.loads(path.read_text()) for path in (out / "results").rglob("*.json")}
    points = {name: sum(one["points"] for one in result["exercises"]) for name, result in results.items()}
    reference = Reference.load(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
    whole, first = sum(reference.checks.values()), next(iter(reference.checks.values()))
    half = sum(list(reference.checks.values())[: (len(reference.answers) + 1) // 2])
    for name in ("ana", "ben", "finn", "gita"):
        assert points[name] == whole, results[name]
    for name in ("eva", "hugo", "kim"):
        assert points[name] == whole - first, results[name]
    assert points["chloe"] == half
    assert [points[name] for name in ("dan", "ida", "jon", "lea")] == [0, 0, 0, 0]
    assert results["lea"]["status"] == "refused"
    with open(out / "grades.csv", encoding="utf-8-sig", newline="") as file:
        assert {row["student"] for row in csv.DictReader(file)} == set(STUDENTS)
    for name in STUDENTS:
        assert name in (out / "feedback" / f"{name}.html").read_text(encoding="utf-8")
