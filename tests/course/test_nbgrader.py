"""nbgrader's own tools take our notebooks as they are; it lives in an environment of its own (`make nbgrader`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode

from rlhf_lab.course.notebooks import Reference, dump, load, splice, student_version
from tests.capabilities import ROOT
from tests.course.author import environment
from tests.course.toy import toy

pytestmark = [pytest.mark.slow, pytest.mark.needs("nbgrader")]

PYTHON = Path(os.environ.get("RLHF_LAB_NBGRADER_PYTHON", ROOT / ".venv-nbgrader" / "bin" / "python"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
CONFIG = 'c.CourseDirectory.course_id = "rlhf"\nc.Execute.timeout = 120\n'
FOLDERS = ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")


class Course:
    """A folder with a course of one assignment, whose kernels are ours: nbgrader's Python has no PyTorch."""

    def __init__(self, root: Path, source: dict[str, NotebookNode]) -> None:
        self.root = root
        self.environment = environment() | {
            "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",
            "JUPYTER_PATH": str(root / "jupyter"),
            **{name: str(root / name.lower()) for name in FOLDERS},
        }
        kernel = root / "jupyter" / "kernels" / "python3"
        kernel.mkdir(parents=True)
        start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (kernel / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "Ours", "language": "python"}))
        (root / "nbgrader_config.py").write_text(f"c = get_config()\n{CONFIG}")
        self.put("source", source)

    def put(self, folder: str, notebooks: dict[str, NotebookNode]) -> None:
        place = self.root / folder / "rlhf"
        place.mkdir(parents=True)
        for name, notebook in notebooks.items():
            (place / f"{name}.ipynb").write_text(dump(notebook), encoding="utf-8")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [str(PYTHON), *command], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def nbgrader(self, *command: str) -> str:
        return self.run("-m", "nbgrader", *command)

    def scores(self) -> dict[tuple[str, str, str], float | None]:
        """Points by student, notebook and cell; None where a person is to give them."""
        script = str(ROOT / "tests" / "course" / "nbgrader_scores.py")
        rows = json.loads(self.run("-W", "ignore", script, f"sqlite:///{self.root / 'gradebook.db'}"))
        return {tuple(row[:3]): row[3] for row in rows}


def check_release(root: Path, solutions: dict[str, NotebookNode]) -> None:
    """nbgrader's copy for students is ours, but for the checksums that it adds."""
    course = Course(root, solutions)
    course.nbgrader("generate_assignment", "rlhf")
    for name, notebook in solutions.items():
        released = load(root / "release" / "rlhf" / f"{name}.ipynb")
        for cell in released.cells:
            for added in ("checksum", "cell_type"):
                cell.metadata.get("nbgrader", {}).pop(added, None)
        assert dump(released) == dump(student_version(notebook)), name


def check_grades(root: Path, references: dict[str, Reference]) -> None:
    """Full marks for the solutions, none for the stubs; what trains, and no answer depends on, is left out."""
    solved = {name: splice(one, _own_answers(one)) for name, one in references.items()}
    course = Course(root, solved)
    course.put("submitted/solved", solved)
    course.put("submitted/empty", {name: student_version(notebook) for name, notebook in solved.items()})
    course.nbgrader("generate_assignment", "rlhf")
    # Grading runs them all; what students call `validate` is the same run, so one notebook shows that it is there.
    valid = course.nbgrader("validate", f"submitted/solved/rlhf/{next(iter(solved))}.ipynb")
    assert "Success! Your notebook passes all the tests" in valid, valid
    course.nbgrader("autograde", "rlhf")
    wanted: dict[tuple[str, str, str], float | None] = {}
    for name, reference in references.items():
        for cell, points in reference.checks.items():
            wanted |= {("solved", name, cell): float(points), ("empty", name, cell): 0.0}
        for cell in reference.written:
            wanted |= {("solved", name, cell): None, ("empty", name, cell): 0.0}
    assert course.scores() == wanted


def _own_answers(reference: Reference) -> dict[str, str]:
    return {cell.id: cell.source for cell in reference.notebook.cells}


def test_nbgrader_makes_the_same_copy_of_a_toy(tmp_path: Path) -> None:
    check_release(tmp_path, {"99_toy": toy()})


def test_nbgrader_grades_a_toy_and_refuses_its_stubs(tmp_path: Path) -> None:
    check_grades(tmp_path, {"99_toy": Reference.of(toy(), "99_toy")})
    validated = Course(tmp_path / "again", {}).nbgrader("validate", str(tmp_path / "submitted/empty/rlhf/99_toy.ipynb"))
    assert "VALIDATION FAILED ON 1 CELL(S)" in validated
    assert 'check("double", double)' in validated


def test_nbgrader_makes_the_same_copies_of_the_course(tmp_path: Path) -> None:
    check_release(tmp_path, {path.stem: load(path) for path in SOLUTIONS})


def test_nbgrader_grades_the_course(tmp_path: Path) -> None:
    check_grades(tmp_path, {path.stem: Reference.load(path) for path in SOLUTIONS})
