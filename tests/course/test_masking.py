import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lab.course import masking
from rlhf_lab.course.masking import PACKAGE, course_modules, data_folder, make_view

GAE = "rlhf_lab.equations.policy_gradient.gae"
SOURCE = '''"""A module."""

import functools


def first(x: int = 3, *, y: str = "a # b") -> int:
    """First.

        It has an equation.
    """
    # The way to do it.
    return x + 1  # The answer.
    # So that was it.


# About the second.
@functools.cache
def second(x):
    # Halve it.
    if x:
        return x / 2
    return 0

    # Or so.
def line(x): return x


class Thing:
    def method(self) -> str:
        """Dit d\u00e9j\u00e0 vu."""; return "\u00e9"

    def other(self): return 1
'''
MASKED = '''"""A module."""

import functools


def first(x: int = 3, *, y: str = "a # b") -> int:
    """First.

        It has an equation.
    """
    raise RuntimeError("first is hidden while it is graded: write it yourself, do not call the package's own.")


# About the second.
@functools.cache
def second(x):
    raise RuntimeError("second is hidden while it is graded: write it yourself, do not call the package's own.")
def line(x): raise RuntimeError("line is hidden while it is graded: write it yourself, do not call the package's own.")


class Thing:
    def method(self) -> str:
        """Dit d\u00e9j\u00e0 vu."""
        raise RuntimeError("method is hidden while it is graded: write it yourself, do not call the package's own.")

    def other(self): return 1
'''


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "made"
    make_view(folder, [GAE, "rlhf_lab.data.lexicon.fill", "rlhf_lab.data.lexicon.Lexicon.training"])
    (folder / "data").symlink_to(data_folder())
    return folder


def run(code: str, view: Path) -> str:
    """What lines of Python print that import the view's package."""
    environment = {**os.environ, "PYTHONPATH": str(view), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=view, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few files."""
    package = tmp_path / "source" / "rlhf_lab"
    files = {
        "__init__.py": "",
        "module.py": SOURCE,
        "front/page.js": "page",
        "sub/__init__.py": "def inner(): return 1\n",
        "_data/world.toml": "",
        "__pycache__/module.cpython-311.pyc": "",
        "course/__init__.py": "",
        "course/checking.py": "from rlhf_lab.course import wire\ndef f():\n    from rlhf_lab.course import judging\n",
        "course/wire.py": "if True:\n    from rlhf_lab.course.limits import MOST\n",
        "course/limits.py": "MOST = 1\n",
        "course/nbval_alive.py": "",
        "course/judging.py": "",
        "course/exercises/policy.py": "",
    }
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    monkeypatch.setattr(masking, "PACKAGE", package)
    return tmp_path / "view"


def test_what_is_copied(small: Path) -> None:
    make_view(small, [])
    modules = {"__init__.py", "module.py", "front/page.js", "sub/__init__.py"}
    course = {f"course/{name}.py" for name in ("__init__", "checking", "wire", "limits", "nbval_alive")}
    assert names(small / "rlhf_lab") == modules | course
    assert (small / "rlhf_lab" / "module.py").read_text(encoding="utf-8") == SOURCE


def test_every_user_can_read_it(small: Path) -> None:
    make_view(small, ["rlhf_lab.module.first"])
    modes = {path.stat().st_mode & 0o777 for path in (small / "rlhf_lab").rglob("*")}
    assert modes == {0o755, 0o644}


def test_bodies_are_replaced_and_not_another_byte(small: Path) -> None:
    make_view(small, [f"rlhf_lab.module.{name}" for name in ("first", "Thing.method", "line", "second")])
    text = (small / "rlhf_lab" / "module.py").read_text(encoding="utf-8")
    assert text == MASKED
    assert ast.parse(text)


def test_a_function_of_a_packages_own_file(small: Path) -> None:
    make_view(small, ["rlhf_lab.sub.inner", "rlhf_lab.sub.inner"])
    assert "inner is hidden" in (small / "rlhf_lab" / "sub" / "__init__.py").read_text(encoding="utf-8")


def test_a_view_that_is_made_again_is_new(small: Path) -> None:
    make_view(small, ["rlhf_lab.module.first"])
    make_view(small, [])
    assert (small / "rlhf_lab" / "module.py").read_text(encoding="utf-8") == SOURCE
    assert [path.name for path in small.iterdir()] == ["rlhf_lab"]


@pytest.mark.parametrize(
    "name",
    ["rlhf_lab.module.third", "rlhf_lab.module", "rlhf_lab.module.Thing", "rlhf_lab.no.first", "first", "os.path.join"],
)
def test_what_is_no_function_is_named(small: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"no function '{name}' to hide"):
        make_view(small, ["rlhf_lab.module.first", name])
    assert not small.exists()


def test_the_client_can_be_imported(view: Path) -> None:
    code = "from rlhf_lab.course.checking import check; import rlhf_lab.course.nbval_alive; print(check.__module__)"
    assert run(code, view) == "rlhf_lab.course.checking"


def test_neither_answers_nor_judge_come_with_it(view: Path) -> None:
    assert {"__init__", "checking", "nbval_alive", "wire"} <= course_modules()
    assert not {"exercise", "judging", "checker", "grading", "sandbox", "masking"} & course_modules()
    assert names(view / "rlhf_lab" / "course") == {f"{name}.py" for name in course_modules()}


def test_the_rest_of_the_package_comes_whole(view: Path) -> None:
    left_out = ("course/", "_data/")
    there = {name for name in names(PACKAGE) if not name.startswith(left_out) and "__pycache__" not in name}
    assert {name for name in names(view / "rlhf_lab") if not name.startswith("course/")} == there
    assert {"labeling/front/main.js", "labeling/guidelines/rate.md", "experiments/report.html.j2"} < there


def test_a_hidden_function_says_so_and_its_neighbors_work(view: Path) -> None:
    code = """
import inspect
from rlhf_lab.data import lexicon
for hidden in (lambda: lexicon.fill("{he}", pronoun="she"), lambda: lexicon.load_lexicon().training):
    try:
        hidden()
    except RuntimeError as error:
        print(error)
print(lexicon.fill.__doc__[:6], list(inspect.signature(lexicon.fill).parameters))
print(lexicon.capitalize("a"), len(lexicon.load_lexicon().held_out) > 5)
"""
    assert run(code, view).splitlines() == [
        "fill is hidden while it is graded: write it yourself, do not call the package's own.",
        "training is hidden while it is graded: write it yourself, do not call the package's own.",
        "`form` ['form', 'pronoun', 'who']",
        "A True",
    ]


def test_the_answer_is_nowhere_in_the_text(view: Path) -> None:
    place = Path("equations", "policy_gradient.py")
    assert "advantage = delta" in (PACKAGE / place).read_text(encoding="utf-8")
    text = (view / "rlhf_lab" / place).read_text(encoding="utf-8")
    assert "advantage = delta" not in text
    assert "Generalized advantage estimates" in text
