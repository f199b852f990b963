"""What a page of the course must be like, so that one can read it and a program can grade it."""

import ast
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from rlhf_lab.course.exercise import Exercise, Written
from rlhf_lab.course.notebooks import Reference

MAX_LINES, MAX_LOOP_LINES, MEDIAN_LINES = 25, 40, 8
MAX_WORDS = 120
MIN_SOLUTION = 12
MIN_CELLS, MAX_CELLS = 40, 70
FORBIDDEN = re.compile(r"^\s*!|^\s*%(cd|pip|conda)\b|\bsys\.path\b|\bos\.chdir\b", re.MULTILINE)
HINT = re.compile(r"<details>\s*<summary>Hint</summary>.*</details>\s*", re.DOTALL)
LAST_SECTIONS = ("What to remember", "In the papers", "Further")


def problems(reference: Reference, exercises: Sequence[Exercise | Written]) -> list[str]:
    """Everything that is wrong with a page, a sentence each."""
    cells = reference.notebook.cells
    found = [*_page(cells, reference.name), *_prose(cells, reference), *_code(cells), *_runs(cells), *_imports(cells)]
    return found + [*_outputs(cells), *_exercises(reference, exercises)]


def _page(cells: Sequence[NotebookNode], name: str) -> Iterator[str]:
    number = name.partition("_")[0]
    if not re.match(rf"# {number}\b", cells[0].source):
        yield f"the first cell begins with '# {number}', the number and the question"
    if len(cells) < 2 or cells[1].cell_type != "code" or "import " not in cells[1].source:
        yield "the second cell holds the imports"
    if not MIN_CELLS <= len(cells) <= MAX_CELLS:
        yield f"{len(cells)} cells; a page has {MIN_CELLS} to {MAX_CELLS}"
    headings = re.findall(r"^## (.+)$", "\n".join(c.source for c in cells if c.cell_type == "markdown"), re.MULTILINE)
    if tuple(headings[-3:]) != LAST_SECTIONS:
        yield f"the last sections are {', '.join(LAST_SECTIONS)}, not {', '.join(headings[-3:])}"
    numbers = [heading.split(maxsplit=1)[0].rstrip(".") for heading in headings[:-3]]
    if not 4 <= len(numbers) <= 7 or numbers != [str(place) for place in range(1, len(numbers) + 1)]:
        yield f"before them stand 4 to 7 numbered sections ('## 1 Title'), not {', '.join(headings[:-3])}"


def _prose(cells: Sequence[NotebookNode], reference: Reference) -> Iterator[str]:
    for cell in cells:
        if cell.cell_type != "markdown":
            continue
        if cell.get("attachments"):
            yield f"{cell.id}: attachments cannot be seen through; draw the figure in a cell"
        if cell.id not in reference.answers and (count := words(cell.source)) > MAX_WORDS:
            yield f"{cell.id}: {count} words; a cell has at most {MAX_WORDS}"


def words(text: str) -> int:
    """Words of prose, without displayed equations and tags."""
    text = re.sub(r"\$\$.*?\$\$|<[^>]+>|^```.*?^```", " ", text, flags=re.DOTALL | re.MULTILINE)
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def _code(cells: Sequence[NotebookNode]) -> Iterator[str]:
    code = [cell for cell in cells if cell.cell_type == "code"]
    lengths = {cell.id: len(cell.source.splitlines()) for cell in code}
    long = [name for name, length in lengths.items() if length > MAX_LINES]
    for name in long:
        if lengths[name] > MAX_LOOP_LINES or name != long[0]:
            yield f"{name}: {lengths[name]} lines; a cell has at most {MAX_LINES}, one training loop {MAX_LOOP_LINES}"
    if (median := statistics.median(lengths.values())) > MEDIAN_LINES:
        yield f"the median of the code cells is {median:g} lines; at most {MEDIAN_LINES}"
    for cell in code:
        if match := FORBIDDEN.search(cell.source):
            yield f"{cell.id}: no {match[0].strip()!r} in a page"


def _runs(cells: Sequence[NotebookNode]) -> Iterator[str]:
    """Code that no prose interrupts; a check is one line and does not count."""
    for is_code, run in groupby(cells, key=lambda cell: cell.cell_type == "code"):
        names = [cell.id for cell in run if not cell.id.endswith("-check")]
        if is_code and len(names) > 2:
            yield f"{', '.join(names)}: more than two code cells in a row"


def _imports(cells: Sequence[NotebookNode]) -> Iterator[str]:
    for cell in [cell for cell in cells if cell.cell_type == "code"][1:]:
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
            yield f"{cell.id}: imports stand in the first code cell only"


def _outputs(cells: Sequence[NotebookNode]) -> Iterator[str]:
    for cell in cells:
        if cell.cell_type == "code" and cell.execution_count is None:
            yield f"{cell.id}: has not been run"
        for output in cell.get("outputs", ()):
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"{cell.id}: an error or a warning among the outputs"
            text = "".join(output.get("data", {}).get("text/plain", "")) + "".join(output.get("text", ""))
            if address := re.search(r"\b0x[0-9a-f]{6,}|/(?:home|root|tmp|work)/\S*", text):
                yield f"{cell.id}: {address[0]!r} among the outputs is another one each time, or on each machine"


def header(exercise: Exercise | Written) -> str:
    """How the statement of an exercise begins."""
    minutes, points = (
        f"{n} {what}{'s' * (n != 1)}" for n, what in [(exercise.minutes, "minute"), (exercise.points, "point")]
    )
    return (
        f"### Exercise: {exercise.title}\n\n"
        f"*{exercise.kind}, difficulty {exercise.difficulty} of 3, {minutes}, {points}*"
    )


def _exercises(reference: Reference, exercises: Sequence[Exercise | Written]) -> Iterator[str]:
    found, wanted = list(reference.answers), [f"{exercise.id}-answer" for exercise in exercises]
    if found != wanted:
        yield f"the answers are {', '.join(found)}; the registry has {', '.join(wanted)}"
    if len(wanted) < 4:
        yield f"{len(wanted)} exercises; a page has at least 4"
    places = {cell.id: place for place, cell in enumerate(reference.notebook.cells)}
    for exercise in exercises:
        place = places.get(f"{exercise.id}-answer")
        if place is not None:
            yield from _one_exercise(reference, exercise, place)


def _one_exercise(reference: Reference, exercise: Exercise | Written, place: int) -> Iterator[str]:
    cells = reference.notebook.cells
    is_written = isinstance(exercise, Written)
    points = (reference.written if is_written else reference.checks).get(
        f"{exercise.id}-{'answer' if is_written else 'check'}"
    )
    if points != exercise.points:
        yield f"{exercise.id}: its cells give {points} points, the registry {exercise.points}"
    if not cells[place - 1].source.startswith(header(exercise)):
        yield f"{exercise.id}: the cell before its answer begins with {header(exercise)!r}"
    if is_written:
        return
    after = cells[place + 1 : place + 4]
    shapes = [
        len(after) > 0 and after[0].id == f"{exercise.id}-check",
        len(after) > 1 and after[1].cell_type == "code" and "show" in after[1].metadata.get("tags", ()),
        len(after) > 2 and after[2].cell_type == "markdown" and bool(HINT.fullmatch(after[2].source)),
    ]
    if not all(shapes):
        missing = ("the check", "a cell tagged show", "a folded hint")[shapes.index(False)]
        yield f"{exercise.id}: check, a cell tagged show and a folded hint follow the answer; {missing} is not there"


def leaks(solutions: NotebookNode, released: str) -> list[str]:
    """Lines of a notebook's solutions that stand in the text of the released file."""
    return [line for line in solution_lines(solutions) if json.dumps(line, ensure_ascii=False)[1:-1] in released]


def solution_lines(solutions: NotebookNode) -> list[str]:
    """The lines between the marks that are long enough to be somebody's own."""
    regions = [re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", c.source, re.DOTALL) for c in solutions.cells]
    lines = [line.strip() for region in regions for text in region for line in text.splitlines()]
    return [line for line in lines if len(line) >= MIN_SOLUTION]
