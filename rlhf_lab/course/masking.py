"""The copy of the package that a graded notebook sees: without the answers, and without what grades them.

make_view(folder, ["rlhf_lab.equations.policy_gradient.gae"])

Functions that would give an answer away keep their signature and docstring, and raise when they are called. Of the
course only what `check` needs is there.
"""

import ast
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import rlhf_lab
from rlhf_lab.records import replace_folder

PACKAGE = Path(rlhf_lab.__file__).resolve().parent
_COURSE = "rlhf_lab.course"
_INSIDE = ("checking", "nbval_alive")
"""Modules of the course that run with the student's code; what they import when they load comes with them."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def data_folder() -> Path:
    """The world, the checkpoints and the other files beside the code: in an installed package, or in a checkout."""
    installed = PACKAGE / "_data"
    # An editable installation of a checkout has no `_data` beside its code.
    return installed if installed.is_dir() else PACKAGE.parent / "data"


def make_view(target: Path, masked: Iterable[str]) -> None:
    """Copy the package to `target`/rlhf_lab, which appears whole or not at all.

    Args:
        target: A folder for `PYTHONPATH`.
        masked: Functions to hide, by dotted names such as rlhf_lab.equations.policy_gradient.gae.

    Raises:
        ValueError: A name is no function of the package.
    """
    hidden = _by_file(masked)
    target.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target, prefix=".rlhf_lab."))
    try:
        for path in _files():
            copy = part / path.relative_to(PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path in hidden:
                copy.write_bytes(_masked(path.read_bytes(), hidden[path]))
            else:
                shutil.copyfile(path, copy)
        _let_all_read(part)
        replace_folder(part, target / "rlhf_lab")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def course_modules() -> set[str]:
    """The modules of the course in a view, such as "checking".

    Imports inside of functions do not count: they are for the student's own check, which has the judge beside it.
    """
    found: set[str] = {"__init__"}
    ahead: list[str] = [*_INSIDE]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += _imported(PACKAGE / "course" / f"{name}.py")
    return found


def _imported(path: Path) -> Iterator[str]:
    """The modules of the course that a file imports when it loads."""
    for node in _loaded(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.ImportFrom) and node.module == _COURSE:
            yield from (alias.name for alias in node.names if (PACKAGE / "course" / f"{alias.name}.py").is_file())
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_COURSE}."):
            yield str(node.module).split(".")[2]


def _loaded(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for node in statements:
        if not isinstance(node, _Function):
            yield node
            yield from _loaded(list(ast.iter_child_nodes(node)))


def _files() -> Iterator[Path]:
    inside = course_modules()
    for path in sorted(PACKAGE.rglob("*")):
        places = path.relative_to(PACKAGE).parts
        if not path.is_file() or places[0] == "_data" or "__pycache__" in places:
            continue
        if places[0] != "course" or (len(places) == 2 and path.suffix == ".py" and path.stem in inside):
            yield path


def _let_all_read(folder: Path) -> None:
    """In the sandbox it is read by another user, and temporary folders and their files may be their owner's alone."""
    for path in (folder, *folder.rglob("*")):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)


def _by_file(masked: Iterable[str]) -> Mapping[Path, Sequence[str]]:
    """The functions to hide in each file, by their names there."""
    found: dict[Path, list[str]] = {}
    for name in dict.fromkeys(masked):
        path, inner = _place(name)
        found.setdefault(path, []).append(inner)
    return found


def _place(name: str) -> tuple[Path, str]:
    """The file of a function of the package, and the function's name in it.

    Raises:
        ValueError: There is none.
    """
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = PACKAGE.parent.joinpath(*parts[:length])
        path = next((path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file()), None)
        inner = ".".join(parts[length:])
        if path and parts[0] == PACKAGE.name:
            if inner in (found for found, _ in _functions(ast.parse(path.read_bytes()))):
                return path, inner
            break
    raise ValueError(f"the package has no function {name!r} to hide; name it by the module that defines it.")


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield prefix + child.name, child
        else:
            yield from _functions(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)


def _masked(source: bytes, names: Sequence[str]) -> bytes:
    """The source with the bodies of some functions replaced, and not another byte changed."""
    lines = source.splitlines(keepends=True)
    found = [node for name, node in _functions(ast.parse(source)) if name in names]
    # From the last to the first, so that the places of those before stay right.
    for node in sorted(found, key=lambda node: -node.lineno):
        lines = _without_body(lines, node)
    return b"".join(lines)


def _without_body(lines: Sequence[bytes], node: _Function) -> list[bytes]:
    message = f"{node.name} is hidden while it is graded: write it yourself, do not call the package's own."
    refusal = f'raise RuntimeError("{message}")\n'.encode()
    first, last = node.body[0], node.body[-1]
    start, end = first.lineno - 1, _end(lines, last.end_lineno or len(lines), node.col_offset)
    if ast.get_docstring(node) is not None:
        start = (first.end_lineno or 1) - 1
        kept = lines[start][: first.end_col_offset] + b"\n" + b" " * first.col_offset
    else:
        kept = lines[start][: first.col_offset]
        while not kept.strip() and _is_comment(lines[start - 1]):
            start -= 1
    return [*lines[:start], kept + refusal, *lines[end:]]


def _end(lines: Sequence[bytes], end: int, column: int) -> int:
    """Where a function ends with the comments after its last statement, which may tell as much as the statement."""
    for place in range(end, len(lines)):
        if _is_comment(lines[place]) and len(lines[place]) - len(lines[place].lstrip()) > column:
            end = place + 1
        elif lines[place].strip():
            break
    return end


def _is_comment(line: bytes) -> bool:
    return line.lstrip().startswith(b"#")
