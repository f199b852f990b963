"""Every notebook of solutions passes full nbval in a fresh kernel and in time; and nbval would see it if it did not."""

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlhf_lab.course.notebooks import dump, load
from tests.capabilities import ROOT
from tests.course.author import environment, notebook_of

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
MAX_SECONDS = 90.0
OUTCOMES = ("failure", "error", "skipped")


def nbval(path: Path, report: Path) -> tuple[list[str], float, str]:
    """What became of each code cell, the seconds in all, and what nbval said."""
    options = ["--nbval", "--nbval-sanitize-with", str(ROOT / "tests" / "course" / "sanitize.cfg")]
    options += ["--nbval-cell-timeout", str(MAX_SECONDS), "--junitxml", str(report), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", *options, str(path)]
    run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert report.is_file(), run.stdout + run.stderr
    suite = ElementTree.parse(report).getroot()[0]
    cases = suite.findall("testcase")
    outcomes = [next((name for name in OUTCOMES if case.find(name) is not None), "passed") for case in cases]
    return outcomes, float(suite.attrib["time"]), run.stdout


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_passes_full_nbval_in_time(path: Path, tmp_path: Path) -> None:
    before = sorted(path.parent.rglob("*"))
    outcomes, seconds, said = nbval(path, tmp_path / "report.xml")
    print(f"{path.stem}: {seconds:.1f} s")
    num_cells = sum(cell.cell_type == "code" for cell in load(path).cells)
    assert outcomes == ["passed"] * num_cells, said
    assert seconds <= MAX_SECONDS, f"{path.stem} took {seconds:.1f} s, more than {MAX_SECONDS:g} s."
    left = [entry for entry in path.parent.rglob("*") if entry not in before and "__pycache__" not in entry.parts]
    assert left == [], "a notebook leaves nothing in solutions/"


CELLS = {
    "time and folder": ("import tempfile, time\nprint('took', time.time(), 's in', tempfile.mkdtemp())", "passed"),
    "progress bar": ("from tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    pass", "passed"),
    "widget": ("import ipywidgets\nipywidgets.IntSlider(value=3)", "passed"),
    "picture": ("import matplotlib.pyplot as plt\nlines = plt.plot([1, 2])", "passed"),
    "another text": ("print(43)", "failure"),
    "a text that was not there": ("import warnings\nwarnings.warn('careful')", "failure"),
    "a text that is there no more": ("pass", "failure"),
    "another value": ("43", "failure"),
    "error": ("raise ValueError", "failure"),
    "after it": ("print(42)", "passed"),
}
STORED: dict[str, dict[str, Any]] = {
    "time and folder": {"name": "stdout", "text": "took 17.5 s in /tmp/tmpabc\n"},
    "picture": {"data": {"text/plain": "<Figure size 640x480 with 1 Axes>", "image/png": "AAAA"}},
    "another text": {"name": "stdout", "text": "42\n"},
    "a text that is there no more": {"name": "stdout", "text": "42\n"},
    "another value": {"data": {"text/plain": "42"}},
    "after it": {"name": "stdout", "text": "42\n"},
}


def test_nbval_sees_what_differs_and_nothing_else(tmp_path: Path) -> None:
    """Times, folders, bars, widgets and pixels vary; any other difference is one."""
    notebook = notebook_of("\n".join(f"```python\n{source}\n```" for source, _ in CELLS.values()), "99_toy")
    for number, (name, cell) in enumerate(zip(CELLS, notebook.cells, strict=True), start=1):
        cell.execution_count = number
        if name in STORED:
            kind = "stream" if "text" in STORED[name] else "display_data"
            output = {"output_type": kind, **STORED[name]} | ({"metadata": {}} if kind == "display_data" else {})
            cell.outputs = [nbformat.from_dict(output)]
    path = tmp_path / "99_toy.ipynb"
    path.write_text(dump(notebook), encoding="utf-8")
    shutil.copy(ROOT / "solutions" / "conftest.py", tmp_path)
    outcomes, _, said = nbval(path, tmp_path / "report.xml")
    assert dict(zip(CELLS, outcomes, strict=True)) == {name: outcome for name, (_, outcome) in CELLS.items()}, said
