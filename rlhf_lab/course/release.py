"""Students' notebooks from the solutions.

release(Path("solutions"), Path("notebooks"))
"""

from pathlib import Path

from rlhf_lab.course.notebooks import NotebookError, Reference, dump, is_untouched, load, student_version
from rlhf_lab.records import write_atomic


def release(solutions: Path, notebooks: Path, *, check: bool = False) -> list[Path]:
    """Write the student's copy of each notebook of solutions; which files were written, or with `check` looked at.

    A copy that is there already and right is not written again. Nothing is written where a single copy cannot be
    made, and nothing is removed.

    Args:
        solutions: Folder of the solutions.
        notebooks: Folder of the copies.
        check: Write nothing, only see whether the copies are what would be written.

    Raises:
        NotebookError: There are no solutions, one is malformed, somebody has worked in a copy that would be replaced,
            or `check` finds a difference.
        OSError: A copy cannot be written.
    """
    sources = sorted(path for path in solutions.glob("*.ipynb") if not path.name.startswith("."))
    if not sources:
        raise NotebookError(f"there are no notebooks in {solutions}; say which folder holds the solutions.")
    copies = {notebooks / path.name: dump(student_version(Reference.load(path).notebook)) for path in sources}
    changed = [path for path, text in copies.items() if not _holds(path, text)]
    if check:
        if changed:
            names = ", ".join(path.name for path in changed)
            raise NotebookError(f"{notebooks} is not what {solutions} gives ({names}); run `rlhf-lab release`.")
        return list(copies)
    for path in changed:
        if path.exists() and not is_untouched(load(path)):
            raise NotebookError(f"somebody has worked in {path}; move it elsewhere, then release again.")
    for path in changed:
        write_atomic(path, copies[path])
    return changed


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
