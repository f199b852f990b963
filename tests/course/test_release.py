"""`release`: the students' copies, and what it refuses to write over."""

from pathlib import Path

import pytest

from rlhf_lab.course.notebooks import NotebookError, dump, load, student_version
from rlhf_lab.course.release import release
from tests.course.toy import TOY, toy


@pytest.fixture
def solutions(tmp_path: Path) -> Path:
    folder = tmp_path / "solutions"
    folder.mkdir()
    (folder / "98_toy.ipynb").write_text(dump(toy(TOY, ("# 99", "# 98"))), encoding="utf-8")
    (folder / "99_toy.ipynb").write_text(dump(toy()), encoding="utf-8")
    (folder / "conftest.py").write_text("")
    return folder


def test_each_solution_gives_a_copy(solutions: Path, tmp_path: Path) -> None:
    copies = tmp_path / "notebooks"
    assert release(solutions, copies) == [copies / "98_toy.ipynb", copies / "99_toy.ipynb"]
    assert sorted(path.name for path in copies.iterdir()) == ["98_toy.ipynb", "99_toy.ipynb"]
    assert (copies / "99_toy.ipynb").read_text(encoding="utf-8") == dump(student_version(toy()))


def test_only_what_changed_is_written_again(solutions: Path, tmp_path: Path) -> None:
    copies = tmp_path / "notebooks"
    release(solutions, copies)
    (copies / "of_my_own.ipynb").write_text("mine")
    assert release(solutions, copies) == []
    (solutions / "98_toy.ipynb").write_text(dump(toy(TOY, ("# 99 A toy", "# 98 Another"))), encoding="utf-8")
    assert release(solutions, copies) == [copies / "98_toy.ipynb"]
    assert "98 Another" in (copies / "98_toy.ipynb").read_text(encoding="utf-8")
    assert (copies / "of_my_own.ipynb").read_text() == "mine"


def test_a_check_names_what_differs_and_writes_nothing(solutions: Path, tmp_path: Path) -> None:
    copies = tmp_path / "notebooks"
    with pytest.raises(NotebookError, match=r"\(98_toy.ipynb, 99_toy.ipynb\); run `rlhf-lab release`"):
        release(solutions, copies, check=True)
    assert not copies.exists()
    release(solutions, copies)
    assert release(solutions, copies, check=True) == [copies / "98_toy.ipynb", copies / "99_toy.ipynb"]
    changed = copies / "99_toy.ipynb"
    changed.write_text(changed.read_text(encoding="utf-8").replace("Add it to itself", "Add it"), encoding="utf-8")
    with pytest.raises(NotebookError, match=r"is not what .* gives \(99_toy.ipynb\)"):
        release(solutions, copies, check=True)
    assert "Add it to itself" not in changed.read_text(encoding="utf-8")


def test_somebodys_work_is_not_written_over(solutions: Path, tmp_path: Path) -> None:
    copies = tmp_path / "notebooks"
    release(solutions, copies)
    worked = load(copies / "99_toy.ipynb")
    answer = next(cell for cell in worked.cells if cell.id == "double-answer")
    answer.source = "def double(number):\n    return 2 * number"
    (copies / "99_toy.ipynb").write_text(dump(worked), encoding="utf-8")
    (copies / "98_toy.ipynb").unlink()
    with pytest.raises(NotebookError, match=r"somebody has worked in .*99_toy.ipynb; move it elsewhere"):
        release(solutions, copies)
    assert "2 * number" in (copies / "99_toy.ipynb").read_text(encoding="utf-8")
    assert not (copies / "98_toy.ipynb").exists()


def test_nothing_is_written_if_one_solution_is_malformed(solutions: Path, tmp_path: Path) -> None:
    path = solutions / "99_toy.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("### END SOLUTION", "### END"), encoding="utf-8")
    with pytest.raises(NotebookError, match=r"the solutions of 99_toy: .* no region"):
        release(solutions, tmp_path / "notebooks")
    assert not (tmp_path / "notebooks").exists()


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_a_folder_without_solutions_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotebookError, match=f"no notebooks in .*{folder}"):
        release(tmp_path / folder, tmp_path / "notebooks")


def test_a_place_that_cannot_be_written_is_named(solutions: Path, tmp_path: Path) -> None:
    (tmp_path / "notebooks").write_text("a file")
    with pytest.raises(OSError, match="notebooks"):
        release(solutions, tmp_path / "notebooks")
