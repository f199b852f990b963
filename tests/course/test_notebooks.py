"""Reading, writing, clearing and splicing the course's notebooks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from rlhf_lab.course.notebooks import (
    LIVE,
    NotebookError,
    Reference,
    canonical,
    dump,
    exercise_id,
    is_untouched,
    load,
    splice,
    student_version,
)
from tests.course.author import SourceError, notebook_of, text_of
from tests.course.pages import leaks
from tests.course.toy import TOY, toy


def cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == name)


def as_jupyter_saves_it() -> NotebookNode:
    """The toy after a long session: counts that are not 1, 2, 3, a widget, and whatever front ends add."""
    notebook = toy()
    notebook.metadata = nbformat.from_dict(
        {
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"abc": {}}}},
            "kernelspec": {"display_name": "my env", "language": "python", "name": "conda-env-3"},
            "language_info": {"name": "python", "version": "3.13.1", "file_extension": ".py"},
        }
    )
    for place, one in enumerate(notebook.cells):
        one.metadata |= {"collapsed": False, "execution": {"iopub.execute_input": "2026-01-01T00:00:00"}}
        if one.cell_type == "code":
            one.execution_count = 40 + 2 * place
    shown, last = cell(notebook, "double-show"), cell(notebook, "last")
    stream = {"output_type": "stream", "name": "stdout", "text": "42\n"}
    bar = {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "  7%|", LIVE: {"model_id": "f00"}}}
    shown.outputs = nbformat.from_dict([bar, stream])
    result = {"output_type": "execute_result", "metadata": {}, "data": {"text/plain": "True"}, "execution_count": 99}
    last.outputs = nbformat.from_dict([result])
    return notebook


def test_what_a_front_end_adds_is_not_written() -> None:
    text = dump(as_jupyter_saves_it())
    for noise in ("widget", "conda-env", "3.13.1", "collapsed", "iopub", "7%"):
        assert noise not in text
    written = json.loads(text)
    counts = [cell["execution_count"] for cell in written["cells"] if cell["cell_type"] == "code"]
    assert counts == [1, 2, 3, 4, 5]
    assert written["cells"][-1]["outputs"][0]["execution_count"] == 5
    shown = next(cell for cell in written["cells"] if cell["id"] == "double-show")
    assert [output["output_type"] for output in shown["outputs"]] == ["stream"]
    assert (shown["metadata"], written["nbformat_minor"]) == ({"tags": ["show"]}, 5)


def test_a_cell_that_was_not_run_has_no_count() -> None:
    notebook = as_jupyter_saves_it()
    cell(notebook, "double-check").execution_count = None
    assert [one.execution_count for one in canonical(notebook).cells if one.cell_type == "code"] == [1, 2, None, 3, 4]


def test_the_text_of_a_notebook_is_always_the_same(tmp_path: Path) -> None:
    path = tmp_path / "99_toy.ipynb"
    path.write_text(dump(as_jupyter_saves_it()), encoding="utf-8")
    assert dump(load(path)) == path.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").endswith("}\n")
    shuffled = {key: json.loads(path.read_text())[key] for key in ("nbformat_minor", "cells", "nbformat", "metadata")}
    (tmp_path / "shuffled.ipynb").write_text(json.dumps(shuffled))
    assert dump(load(tmp_path / "shuffled.ipynb")) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is no notebook"),
        (b"\xff\xfe", "is no notebook"),
        (b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is no notebook"),
        (b"[]", "is no notebook"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotebookError, match=said) as caught:
        load(path)
    assert "x.ipynb" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_says_what_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "99_toy.ipynb"
    path.write_text(dump(toy()), encoding="utf-8")
    reference = Reference.load(path)
    assert reference.name == "99_toy"
    assert dict(reference.answers) == {"double-answer": "code", "why-answer": "markdown"}
    assert (dict(reference.checks), dict(reference.written)) == ({"double-check": 3}, {"why-answer": 2})
    assert [exercise_id(name) for name in ("double-answer", "double-check")] == ["double", "double"]


def _set(name: str, **metadata: Any) -> Callable[[NotebookNode], None]:
    return lambda notebook: cell(notebook, name).metadata.nbgrader.update(metadata)


def _rename(old: str, new: str) -> Callable[[NotebookNode], None]:
    return lambda notebook: cell(notebook, old).update(id=new)


def _source(name: str, old: str, new: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        assert old in cell(notebook, name).source
        cell(notebook, name).source = cell(notebook, name).source.replace(old, new)

    return change


def _remove(name: str) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells.remove(cell(notebook, name))


def _swap(notebook: NotebookNode) -> None:
    answer = cell(notebook, "double-answer")
    notebook.cells.remove(answer)
    notebook.cells.append(answer)


MALFORMED = {
    "two cells of one id": (_rename("last", "double-show"), "two cells have the id 'double-show'"),
    "no check": (_remove("double-check"), "the answer 'double-answer' has no check after it"),
    "check first": (_swap, "the answer 'double-answer' has no check after it"),
    "no answer": (_remove("double-answer"), "the check 'double-check' has no answer"),
    "no end": (_source("double-answer", "    ### END SOLUTION", ""), "has no region that begins and ends"),
    "no begin": (_source("double-answer", "    ### BEGIN SOLUTION\n", ""), "'### END SOLUTION' is out of place"),
    "no region": (_source("why-answer", "### BEGIN SOLUTION\nBecause", "Because"), "out of place"),
    "more than the answer": (
        _source("why-answer", "### END SOLUTION", "### END SOLUTION\n\n## The next section"),
        "holds more than the answer",
    ),
    "nested": (_source("double-answer", "    doubled", "### BEGIN SOLUTION\n    doubled"), "out of place"),
    "misspelt": (_source("double-answer", "### BEGIN", "# BEGIN"), "'# BEGIN SOLUTION' is out of place"),
    "a region elsewhere": (_source("last", "time.", "### BEGIN SOLUTION\ntime."), "a solution but is no answer"),
    "no points": (lambda notebook: cell(notebook, "double-check").metadata.nbgrader.pop("points"), "points None"),
    "half a point": (_set("why-answer", points=0.5), "points 0.5; give it a whole number"),
    "points that are a truth": (_set("why-answer", points=True), "points True"),
    "another grade_id": (_set("double-check", grade_id="double"), "and the same grade_id"),
    "an id without an end": (_rename("double-check", "double"), "must have an id that ends in '-check'"),
    "a task": (_set("double-check", solution=False, locked=False), "neither answer, check nor written"),
    "metadata that are a text": (lambda notebook: cell(notebook, "last").metadata.update(nbgrader="yes"), "neither"),
    "written in code": (_set("double-answer", grade=True, points=1), "only written answers are markdown"),
    "a check of another": (
        _source("double-check", '"double"', '"triple"'),
        'must be one line such as check\\("double"',
    ),
    "a check that does more": (_source("double-check", "check(", "double = abs\ncheck("), "must be one line"),
    "a check that is no Python": (_source("double-check", ")", ""), "must be one line"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_reference_is_refused_in_a_sentence(name: str) -> None:
    change, said = MALFORMED[name]
    notebook = toy()
    change(notebook)
    with pytest.raises(NotebookError, match=said) as caught:
        Reference.of(notebook, "99_toy")
    assert str(caught.value).startswith("the solutions of 99_toy: ")
    assert "\n" not in str(caught.value)


def test_answers_are_put_in_and_all_else_is_the_references() -> None:
    reference = Reference.of(as_jupyter_saves_it(), "99_toy")
    before = dump(reference.notebook)
    answers = {
        "double-answer": "double = lambda number: 4",
        "double-check": "print('double: right')",
        "last": "raise SystemExit",
        "new-answer": "1",
    }
    spliced = splice(reference, answers)
    assert cell(spliced, "double-answer").source == "double = lambda number: 4"
    assert cell(spliced, "double-check").source == 'check("double", double)'
    assert cell(spliced, "last").source == "time.time() > 0"
    assert cell(spliced, "why-answer").source == "YOUR ANSWER HERE"
    assert [one.id for one in spliced.cells] == [one.id for one in toy().cells if one.id != "double-show"]
    assert all(not one.outputs and one.execution_count is None for one in spliced.cells if one.cell_type == "code")
    assert {one.id: one.metadata for one in spliced.cells}.items() <= {c.id: c.metadata for c in toy().cells}.items()
    assert dump(reference.notebook) == before
    nbformat.validate(nbformat.reads(dump(spliced), as_version=4))


def test_a_missing_answer_is_the_stub_and_shown_cells_can_be_kept() -> None:
    spliced = splice(Reference.of(toy(), "99_toy"), {}, show=True)
    assert cell(spliced, "double-answer").source == cell(student_version(toy()), "double-answer").source
    assert cell(spliced, "double-show").source == "print(double(21))"


STUB = '''def double(number):
    """Twice the number."""
    # YOUR CODE HERE
    raise NotImplementedError()'''


def test_students_receive_stubs_at_the_solutions_indentation() -> None:
    released = student_version(as_jupyter_saves_it())
    assert cell(released, "double-answer").source == STUB
    assert cell(released, "why-answer").source == "YOUR ANSWER HERE"
    assert cell(released, "double-check").metadata.editable is False
    assert "editable" not in cell(released, "double-answer").metadata
    assert cell(released, "double-answer").metadata.deletable is False
    assert all(not one.outputs and one.execution_count is None for one in released.cells if one.cell_type == "code")
    assert [one.id for one in released.cells] == [one.id for one in toy().cells]


def test_what_stands_around_and_between_regions_is_kept() -> None:
    first = "a = 1\n### BEGIN SOLUTION\nsecret = 2\n### END SOLUTION\nb = 3"
    notebook = toy(TOY, ("def double(number):", first + "\ndef double(number):"))
    assert cell(student_version(notebook), "double-answer").source == (
        "a = 1\n# YOUR CODE HERE\nraise NotImplementedError()\nb = 3\n" + STUB
    )


def test_nothing_of_a_solution_is_released() -> None:
    notebook = as_jupyter_saves_it()
    answer = cell(notebook, "double-answer")
    answer.metadata |= {"solution_text": answer.source, "jupyter": {"source": answer.source}}
    answer.outputs = nbformat.from_dict([{"output_type": "stream", "name": "stdout", "text": answer.source}])
    notebook.metadata["solution"] = answer.source
    cell(notebook, "why-answer")["attachments"] = {"why.txt": {"text/plain": "Because a sum of two equals"}}
    text = dump(student_version(notebook))
    assert leaks(notebook, text) == []
    assert "attachments" not in text


@pytest.mark.parametrize("where", ["last", "double-show"])
def test_a_solution_that_stands_elsewhere_too_is_seen(where: str) -> None:
    notebook = toy()
    cell(notebook, where).source += "\ndoubled_number = number + number"
    assert leaks(notebook, dump(student_version(notebook))) == ["doubled_number = number + number"]


def test_work_in_a_copy_is_seen() -> None:
    released = student_version(toy())
    assert is_untouched(released)
    for name, change in {
        "double-answer": {"source": "def double(number):\n    return 2 * number"},
        "why-answer": {"source": "It is."},
        "last": {"execution_count": 1},
    }.items():
        touched = canonical(released)
        cell(touched, name).update(change)
        assert not is_untouched(touched), name


def test_a_text_and_its_notebook_are_the_same() -> None:
    assert text_of(toy(), "99_toy") == TOY
    assert dump(notebook_of(text_of(toy(), "99_toy"), "99_toy")) == dump(toy())


def test_a_text_can_hold_fences_and_code_that_is_only_shown() -> None:
    notebook = toy()
    notebook.cells[0].source = "# 99\n\n```python\n1 + 1\n```"
    cell(notebook, "last").source = 'text = """\n```python\n"""'
    again = notebook_of(text_of(notebook, "99_toy"), "99_toy")
    assert [one.source for one in again.cells] == [one.source for one in notebook.cells]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```python\n1", "line 1: the code block is not closed"),
        ("<!-- cell color=red -->\nText", "line 1: a cell has id, tags"),
        ("<!-- cell kind=essay -->\nText", "a kind is answer"),
        ("Text\n<!-- cell id=a kind=check -->\n```python\n1\n```", "line 2: cells of kind check"),
        ("<!-- cell id=a -->\nText\n<!-- cell id=a -->\nText", "line 3: a second cell has the id 'a'"),
        ("<!-- cell id=a -->\n<!-- split -->\nText", "no cell follows"),
        ("```python\nplot();\n```", "give it a name"),
    ],
)
def test_a_text_that_is_wrong_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        notebook_of(text, "99_toy")
