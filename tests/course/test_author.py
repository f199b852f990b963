"""The authors' tool: a text becomes an executed notebook, and what it refuses leaves the old one as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lab.course.notebooks import load
from tests.capabilities import ROOT
from tests.course.toy import TOY

pytestmark = pytest.mark.slow


def author(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.course.author", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def outputs(path: Path) -> list[str]:
    cells = [cell for cell in load(path).cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def test_a_text_is_executed_and_edited(tmp_path: Path) -> None:
    source, target = tmp_path / "toy.md", tmp_path / "solutions" / "99_toy.ipynb"
    source.write_text(TOY)
    done = author(str(source), str(target))
    assert done.returncode == 0, done.stderr
    assert outputs(target) == ["", "", "double: right\n", "42\n", ""]
    assert "double-show" in done.stderr
    assert "To mend: 11 cells; a page has 40 to 70." in done.stderr
    assert author("--extract", str(target)).stdout == TOY

    source.write_text(TOY.replace("Add it to itself", "Add the number to itself"))
    assert author(str(source), str(target), "--no-execute").returncode == 0
    assert outputs(target)[3] == "42\n"
    assert "Add the number to itself" in target.read_text()

    old = target.read_text()
    source.write_text(TOY.replace("print(double(21))", "print(double(21) + none)"))
    failed = author(str(source), str(target))
    assert failed.returncode == 1
    assert "name 'none' is not defined" in failed.stderr
    assert "Traceback (most recent call last):\n  File" not in failed.stderr
    assert target.read_text() == old

    source.write_text(TOY.replace("print(double(21))", "print(double(22))"))
    assert "written without outputs" in author(str(source), str(target), "--no-execute").stderr
    assert outputs(target) == [""] * 5


def test_a_text_that_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    source = tmp_path / "toy.md"
    source.write_text("```python\n1")
    failed = author(str(source), str(tmp_path / "99_toy.ipynb"))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "author: line 1: the code block is not closed; end it with ```.\n"
