"""For whoever writes the course's notebooks: a plain text to an executed notebook of solutions/, and back.

    python -m tests.course.author SOURCE.md solutions/04_ppo.ipynb [--no-execute]
    python -m tests.course.author --extract solutions/04_ppo.ipynb > SOURCE.md

The notebook is what is kept; the text is for editing it. In the text, a block fenced by ```python is a code cell and
what lies between is Markdown. `<!-- split -->` parts two Markdown cells, and a line before a cell says more about it:

    <!-- cell id=gae-check tags=show kind=check points=3 -->

`kind` is answer, check or written, and gives nbgrader's metadata. `verbatim` keeps ```python blocks in the Markdown.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from rlhf_lab.course.exercises import MODULES, exercises_of
from rlhf_lab.course.notebooks import NotebookError, Reference, canonical, dump, load, student_version
from rlhf_lab.records import write_atomic
from tests.capabilities import ROOT
from tests.course.pages import leaks, problems

FLAGS = {
    "answer": {"solution": True, "grade": False, "locked": False},
    "check": {"solution": False, "grade": True, "locked": True},
    "written": {"solution": True, "grade": True, "locked": False},
}
KINDS = {tuple(flags.values()): kind for kind, flags in FLAGS.items()}
SPLIT = "<!-- split -->"
CELL = re.compile(r"<!-- cell\b(.*?)-->\s*")
FENCE = re.compile(r"(`{3,})python\s*")
TIMEOUT_S = 120


class SourceError(ValueError):
    """The text cannot be made into a notebook."""


@dataclass
class Part:
    """A cell as the text has it."""

    kind: str
    line: int
    lines: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    fence: str = ""

    @property
    def source(self) -> str:
        return re.sub(r"\A(?:[ \t]*\n)+|\s+\Z", "", "\n".join(self.lines))


def _said(text: str, line: int) -> dict[str, str]:
    said = dict(word.partition("=")[::2] for word in text.split())
    if unknown := set(said) - {"id", "tags", "kind", "points", "verbatim"}:
        raise SourceError(f"line {line}: a cell has id, tags, kind, points and verbatim, not {', '.join(unknown)}.")
    if said.get("kind", "answer") not in FLAGS:
        raise SourceError(f"line {line}: a kind is answer, check or written, not {said['kind']!r}.")
    if ("points" in said) != (said.get("kind") in ("check", "written")):
        raise SourceError(f"line {line}: cells of kind check and written have points=, and no others do.")
    return said


def parts_of(text: str) -> Iterator[Part]:
    """The cells of a source in their order."""
    part = Part("markdown", 1)
    for number, line in enumerate([*text.splitlines(), SPLIT], start=1):
        if part.fence and line.rstrip() == part.fence:
            yield part
            part = Part("markdown", number)
        elif part.fence or not (begun := _begun(line, part, number)):
            part.lines.append(line)
        else:
            if part.source:
                yield part
            elif begun.kind == "code":
                begun.said = part.said
            elif part.said:
                raise SourceError(f"line {part.line}: no cell follows; remove the line.")
            part = begun
    if part.fence:
        raise SourceError(f"line {part.line}: the code block is not closed; end it with {part.fence}.")


def _begun(line: str, before: Part, number: int) -> Part | None:
    """The part that begins with a line, if one does."""
    if (opening := FENCE.fullmatch(line)) and "verbatim" not in before.said:
        return Part("code", number, fence=opening[1])
    if heading := CELL.fullmatch(line):
        return Part("markdown", number, said=_said(heading[1], number))
    return Part("markdown", number) if line.strip() == SPLIT else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-0123456789")[:40].strip("-")


class Names:
    """Ids for the cells without one: the notebook's number, the nearest heading, and a counter."""

    def __init__(self, stem: str) -> None:
        self.number = stem.partition("_")[0]
        self.slug = "start"
        self.used: dict[str, int] = {}

    def next(self, source: str, is_markdown: bool) -> str:
        """To be called for every cell, also for those that have an id."""
        if is_markdown and (heading := re.search(r"^#{1,4} (?!BEGIN |END )(.+)$", source, re.MULTILINE)):
            self.slug = _slug(heading[1]) or "part"
        name = f"{self.number}-{self.slug}"
        self.used[name] = self.used.get(name, 0) + 1
        return f"{name}-{self.used[name]}"


def _metadata(name: str, said: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": said["tags"].split(",")} if said.get("tags") else {}
    if kind := said.get("kind"):
        points = {"points": int(said["points"])} if "points" in said else {}
        metadata["nbgrader"] = {"schema_version": 3, "task": False, "grade_id": name} | FLAGS[kind] | points
    return metadata


def notebook_of(text: str, stem: str) -> NotebookNode:
    """The notebook of a source, not executed."""
    names, cells, seen = Names(stem), [], set()
    for part in parts_of(text):
        name = names.next(part.source, part.kind == "markdown")
        name = part.said.get("id", name)
        if name in seen:
            raise SourceError(f"line {part.line}: a second cell has the id {name!r}; give it another.")
        seen.add(name)
        if part.kind == "code" and part.source.endswith(";"):
            raise SourceError(f"line {part.line}: nbval shows a value in spite of ';'; give it a name (axes = ...).")
        cell = {"id": name, "cell_type": part.kind, "source": part.source, "metadata": _metadata(name, part.said)}
        cells.append(cell | ({"outputs": [], "execution_count": None} if part.kind == "code" else {}))
    return canonical(nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))


def text_of(notebook: NotebookNode, stem: str) -> str:
    """The source of a notebook; `notebook_of` gives the notebook again, without its outputs."""
    names, blocks, after_markdown = Names(stem), [], False
    for cell in notebook.cells:
        is_markdown = cell.cell_type == "markdown"
        said = _sayings(cell, names.next(cell.source, is_markdown))
        if is_markdown and any(FENCE.fullmatch(line) for line in cell.source.splitlines()):
            said.append("verbatim")
        head = f"<!-- cell {' '.join(said)} -->\n" if said else ""
        if is_markdown:
            head = head or (f"{SPLIT}\n\n" if after_markdown else "")
            blocks.append(f"{head}{cell.source}\n")
        else:
            ticks = "`" * max([3, *(len(run) + 1 for run in re.findall(r"^`{3,}", cell.source, re.MULTILINE))])
            blocks.append(f"{head}{ticks}python\n{cell.source}\n{ticks}\n")
        after_markdown = is_markdown
    text = "\n".join(blocks)
    again = [(cell.id, cell.source, cell.metadata) for cell in notebook_of(text, stem).cells]
    if again != [(cell.id, cell.source, cell.metadata) for cell in notebook.cells]:
        raise SourceError("the notebook has a cell that a text cannot hold, such as an empty one.")
    return text


def _sayings(cell: NotebookNode, default: str) -> list[str]:
    said = [] if cell.id == default else [f"id={cell.id}"]
    if tags := cell.metadata.get("tags"):
        said.append(f"tags={','.join(tags)}")
    if grading := cell.metadata.get("nbgrader"):
        said.append(f"kind={KINDS[grading['solution'], grading['grade'], grading['locked']]}")
        said += [f"points={grading['points']}"] if "points" in grading else []
    return said


def environment() -> dict[str, str]:
    """What a solution is executed in, by the author and by the tests."""
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    # Threads that wait must not spin: on a machine with other work that makes training many times slower.
    waiting = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    return kept | waiting | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook, run from top to bottom in a fresh kernel; says how long each cell took.

    Raises:
        CellExecutionError: A cell raised.
    """
    begun = {"cell": 0.0, "all": time.perf_counter()}

    def on_start(cell: NotebookNode, cell_index: int) -> None:
        begun["cell"] = time.perf_counter()

    def on_end(cell: NotebookNode, cell_index: int, **kwargs: Any) -> None:
        if cell.cell_type == "code":
            first = next(line for line in cell.source.splitlines() if line.strip())
            print(
                f"{time.perf_counter() - begun['cell']:6.1f} s  {cell.id:40} {first[:60]}", file=sys.stderr, flush=True
            )

    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        on_cell_start=on_start,
        on_cell_executed=on_end,
    )
    client.execute(env=environment(), stderr=subprocess.DEVNULL)  # The kernel's own, not the cells'.
    print(f"{time.perf_counter() - begun['all']:6.1f} s  in all, the kernel's start with it", file=sys.stderr)
    return canonical(notebook)


def _with_outputs(notebook: NotebookNode, target: Path) -> NotebookNode:
    """With the outputs that are there already, if no code has changed since."""
    if not target.is_file():
        return notebook
    old = [cell for cell in load(target).cells if cell.cell_type == "code"]
    new = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in old] != [cell.source for cell in new]:
        print("The code has changed: written without outputs.", file=sys.stderr)
        return notebook
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return canonical(notebook)


def formatted(notebook: NotebookNode) -> NotebookNode:
    """With its imports in order and its code as `ruff format` has it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.ipynb"
        path.write_text(dump(notebook), encoding="utf-8")
        _ruff("check", "--select", "I", "--fix", "--quiet", str(path))
        _ruff("format", "--quiet", str(path))
        return load(path)


def _ruff(*arguments: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout


def page_problems(notebook: NotebookNode, stem: str) -> list[str]:
    """What the tests of the pages will say."""
    try:
        found = problems(Reference.of(notebook, stem), exercises_of(stem) if stem in MODULES else ())
        also = leaks(notebook, dump(student_version(notebook)))
        return [
            *found,
            *(f"the solution's line {line!r} stands elsewhere too, and students receive it" for line in also),
        ]
    except NotebookError as error:
        return [str(error).rstrip(".")]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--no-execute", action="store_true", help="keep the outputs if only prose has changed")
    parser.add_argument("--extract", action="store_true", help="print the source of a notebook")
    chosen = parser.parse_args(arguments)
    if chosen.extract:
        print(text_of(load(chosen.source), chosen.source.stem), end="")
        return 0
    if chosen.target is None:
        parser.error("say which notebook to write, such as solutions/04_ppo.ipynb.")
    chosen.target.parent.mkdir(parents=True, exist_ok=True)
    notebook = formatted(notebook_of(chosen.source.read_text(encoding="utf-8"), chosen.target.stem))
    if chosen.no_execute:
        notebook = _with_outputs(notebook, chosen.target)
    else:
        notebook = execute(notebook, chosen.target.parent.resolve())
    write_atomic(chosen.target, dump(notebook))
    for problem in page_problems(notebook, chosen.target.stem):
        print(f"To mend: {problem}.", file=sys.stderr)
    print(
        _ruff("check", "--quiet", "--output-format", "concise", str(chosen.target.resolve())), end="", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SourceError, NotebookError, CellExecutionError) as error:
        sys.exit(f"author: {error}")
