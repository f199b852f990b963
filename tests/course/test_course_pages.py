"""The pages of the course: the style guide's limits, the registry's headers, and the students' copies."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises import MODULES, exercises_of
from rlhf_lab.course.notebooks import Reference, canonical, dump, load
from rlhf_lab.course.release import release
from tests.capabilities import ROOT
from tests.course.author import text_of
from tests.course.pages import leaks, problems, words
from tests.course.toy import TOY, toy

SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
each_page = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


@each_page
def test_a_page_keeps_to_the_style_guide_and_the_registry(path: Path) -> None:
    assert problems(Reference.load(path), exercises_of(path.stem)) == []


@each_page
def test_a_page_is_in_the_canonical_form_and_can_be_edited_as_text(path: Path) -> None:
    notebook = load(path)
    assert path.read_text(encoding="utf-8") == dump(notebook)
    assert text_of(notebook, path.stem)


@each_page
def test_nothing_of_the_solutions_is_in_the_students_copy(path: Path) -> None:
    copy = ROOT / "notebooks" / path.name
    assert leaks(load(path), copy.read_text(encoding="utf-8")) == []


def test_the_students_copies_are_what_the_solutions_give() -> None:
    copies = {path.stem for path in release(ROOT / "solutions", ROOT / "notebooks", check=True)}
    assert copies == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert copies == set(MODULES)


def _hint() -> int:
    """A hint."""
    return 0


def exercises() -> list[Exercise | Written]:
    """As a registry would have the toy's, four of each page's least."""
    double = Exercise(
        id="double",
        title="Doubling",
        kind="implement",
        points=3,
        minutes=5,
        difficulty=1,
        reference=_hint,
        cases=lambda rng: [Case(title="two", args=(2,))],
        mistakes=(_hint, _hint, _hint),
        variants=(_hint, _hint),
    )
    essays = [
        Written(id=name, title=name.title(), points=2, minutes=5, difficulty=1, rubric={"Said": 2})
        for name in ("why", "how", "when")
    ]
    return [double, *essays]


ESSAY = TOY[TOY.index("### Exercise: Why") : TOY.index("<!-- cell id=last -->")]
BETWEEN = "\n<!-- split -->\n\n"
PAGE = TOY.replace("import time", "import math").replace("time.time() > 0", "sum([1, 2])") + BETWEEN.join(
    [
        "\n" + ESSAY.replace("why-", "how-").replace("Why", "How"),
        ESSAY.replace("why-", "when-").replace("Why", "When"),
        *(f"## {number} More\n" for number in (2, 3, 4)),
        *["An aside.\n"] * 20,
        *(f"## {title}\n" for title in ("What to remember", "In the papers", "Further")),
    ]
)


def page(*changes: tuple[str, str]) -> Reference:
    """The toy as a page that is as it must be, and as if it had been run; then changed."""
    notebook = toy(PAGE, *changes)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
    return Reference.of(canonical(notebook), "99_toy")


def test_a_good_page_has_no_problems() -> None:
    assert problems(page(), exercises()) == []


LINES = "\n".join(f"a{number} = {number}" for number in range(26))
BAD = {
    "number": (("# 99 A toy", "# 98 A toy"), "the first cell begins with '# 99'"),
    "no imports": (("What you build.\n", "What you build.\n\n<!-- split -->\n\nAn aside.\n"), "the second cell holds"),
    "short": (("An aside.\n\n<!-- split -->\n\n", ""), "cells; a page has 40 to 70"),
    "ending": (("## In the papers", "## Papers"), "the last sections are"),
    "sections": (("## 3 More", "## Three"), "4 to 7 numbered sections"),
    "prose": (("What you build.", "word " * 120), "12[0-9] words; a cell has at most 120"),
    "lines": (
        ("sum([1, 2])", LINES + "\n```\n\nMore.\n\n```python\n" + LINES),
        "99-.*: 26 lines; a cell has at most 25",
    ),
    "long": (("sum([1, 2])", LINES + "\n" + LINES), "last: 52 lines"),
    "cd": (("sum([1, 2])", "%cd .."), "last: no '%cd'"),
    "pip": (("sum([1, 2])", "!pip install torch"), "last: no '!'"),
    "path": (("sum([1, 2])", "math.sys.path.append('x')"), "last: no 'sys.path'"),
    "import": (("sum([1, 2])", "if True:\n    import os"), "last: imports stand in the first"),
    "an import in an answer": (
        ("    doubled_number =", "    import os\n    doubled_number ="),
        "double-answer: imports",
    ),
    "in a row": (("sum([1, 2])\n```", "1\n```\n\n```python\n2\n```\n\n```python\n3\n```"), "more than two code cells"),
    "header": (
        ("*implement, difficulty 1 of 3", "*implement, difficulty 2 of 3"),
        "double: the cell before its answer",
    ),
    "minutes": (
        ("Why\n\n*read the curve, difficulty 1 of 3, 5", "Why\n\n*read the curve, difficulty 1 of 3, 6"),
        "why: the cell before its answer",
    ),
    "points": (("kind=check points=3", "kind=check points=4"), "double: its cells give 4 points, the registry 3"),
    "written points": (
        ("id=how-answer kind=written points=2", "id=how-answer kind=written points=1"),
        "how: its cells",
    ),
    "no demonstration": ((" tags=show", ""), "a cell tagged show is not there"),
    "no hint": (("<summary>Hint</summary>", "<summary>Help</summary>"), "a folded hint is not there"),
    "order": (("id=how-answer", "id=what-answer"), "the answers are double-answer, why-answer, what-answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_problem_is_found_and_no_other(name: str) -> None:
    change, said = BAD[name]
    found = problems(page(change), exercises())
    assert len(found) == 1, found
    assert re.search(said, found[0]), found


def _output(**output: object) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[1].update(outputs=[NotebookNode(metadata={}, **output)])


OUTPUTS = {
    "not run": (lambda notebook: notebook.cells[1].update(execution_count=None), "has not been run"),
    "warning": (_output(output_type="stream", name="stderr", text="careful"), "an error or a warning"),
    "error": (_output(output_type="error", ename="E", evalue="", traceback=[]), "an error or a warning"),
    "address": (_output(output_type="stream", name="stdout", text="<A at 0x7f04ff9887d0>"), "'0x7f04ff9887d0'"),
    "folder": (_output(output_type="display_data", data={"text/plain": "in /tmp/x9"}), "'/tmp/x9'"),
    "picture": (lambda notebook: notebook.cells[0].update(attachments={"a.png": {}}), "attachments"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_looked_at(name: str) -> None:
    change, said = OUTPUTS[name]
    reference = page()
    change(reference.notebook)
    found = problems(reference, exercises())
    assert len(found) == 1, found
    assert said in found[0]


def test_a_page_has_four_exercises() -> None:
    assert any("3 exercises; a page has at least 4" in problem for problem in problems(page(), exercises()[:3]))


def test_equations_and_tags_are_no_words() -> None:
    shown = "$$\na = b\n+ c\n$$\n\n```text\ncode\n```"
    text = f"One **two** -- three.\n\n{shown}\n\n<details><summary>Four</summary> | five |</details> $x$"
    assert words(text) == 6
