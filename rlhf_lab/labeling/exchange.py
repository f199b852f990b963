"""Labels to and from files, in the columns of TRL and of OpenAI.

export_labels(store, "labels.jsonl", "trl")
import_labels(LabelStore("copy.sqlite"), "labels.jsonl", "trl")

- `trl`: `prompt`, `chosen`, `rejected`; beside them `chosen_prob`, `confidence`, `group` and `labeler`.
- `trl-conversational`: the same, the texts as lists of `{"role", "content"}`.
- `trl-unpaired`: `prompt`, `completion`, `label`, of thumbs; beside them `ideal` and `labeler`.
- `edits`: `prompt`, `completion`, `edited`; beside them `labeler`. An edit's original must be in the store already.
- `openai`: comparisons as in openai/summarize_from_feedback, their strength on its scale of 9 points.
"""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lab.labeling import formats, schema
from rlhf_lab.labeling.formats import FORMATS, Format
from rlhf_lab.labeling.intake import Arrival, take_in
from rlhf_lab.labeling.learning import IMPORTED, Label
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.records import write_atomic

if TYPE_CHECKING:
    from rlhf_lab.labeling.store import LabelStore

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def export_labels(store: "LabelStore", path: str | Path, format: str = "trl", **options: Any) -> int:
    """Write labels to a file, which appears whole or not at all; how many rows it has.

    Args:
        store: Whose labels.
        path: A .jsonl, .json, .csv or .parquet file.
        format: trl, trl-conversational, trl-unpaired, edits or openai.
        options: `labeler`, `kinds`, `gold` and (of TRL's pairs) `axis`, as in `learning.comparisons_from`.

    Raises:
        StoreError: Nothing to export, an unknown format or kind of file, or a prompt that the format cannot hold.
        OSError: The disk is full, or the file cannot be written.
    """
    form, path = _format(format), Path(path)
    _check_suffix(path, format)
    labels = store.labels()
    rows = form.rows(labels, **options)
    if not rows:
        kinds = ", ".join(dict.fromkeys(label["kind"] for label in labels)) or "none at all"
        raise StoreError(f"{store.name} has no labels that {format} can hold ({form.holds}); it has: {kinds}.")
    write_atomic(path, _WRITERS[path.suffix.lower()](rows, form))
    return len(rows)


def import_labels(
    store: "LabelStore", path: str | Path, format: str = "trl", *, labeler: str = "imported", kind: str = "person"
) -> int:
    """Put a file's labels in the store, all or none; how many were new.

    An answer that the store has already from the labeler, from an earlier import or given here, stays as it is.

    Args:
        store: Where to.
        path: A .jsonl, .json, .csv or .parquet file.
        format: trl, trl-conversational, trl-unpaired, edits or openai.
        labeler: Whose the labels are, where the file does not say.
        kind: person or simulated, of the labelers who are new.

    Raises:
        StoreError: No such file, no rows, a missing column, a row that cannot be a label (it is named), or an edit of a
            text that the store does not have.
    """
    arrivals = read_arrivals(path, format, labeler=labeler)
    with schema.explaining(store.name):
        engine = schema.connect(store.where)
        try:
            with schema.writing(engine) as connection:
                return take_in(connection, arrivals, interface=f"{IMPORTED}{format}", labeler_kind=kind)
        finally:
            engine.dispose()


def read_arrivals(path: str | Path, format: str = "trl", *, labeler: str = "imported") -> list[Arrival]:
    """A file's labels, all checked; see `import_labels`."""
    path = Path(path)
    _format(format)
    _check_suffix(path, format)
    return arrivals_of(_read(path), format, labeler=labeler, source=path.name)


def rows_of(labels: Iterable[Label], format: str = "trl", **options: Any) -> list[dict[str, Any]]:
    """Labels as the rows of a format; `options` are those of `export_labels`."""
    return _format(format).rows(list(labels), **options)


def arrivals_of(
    rows: Iterable[Any], format: str = "trl", *, labeler: str = "imported", source: str = "the rows"
) -> list[Arrival]:
    """Rows of a format as labels, all checked.

    Raises:
        StoreError: No rows, a missing column, or a row that cannot be a label (it is named).
    """
    form, arrivals = _format(format), []
    for index, row in enumerate(rows):
        with _naming(index, source):
            _check_columns(row, form.columns)
            name = row.get("labeler", row.get("worker"))
            arrivals.append(form.read(row, formats.labeler_id(name, labeler)))
    if not arrivals:
        raise StoreError(f"{source} has no rows; there is nothing to import.")
    return arrivals


@contextlib.contextmanager
def _naming(index: int, source: str) -> Generator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"it has another shape ({error})."
        raise StoreError(f"row {index} of {source}: {reason}") from error


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise StoreError(f"a format is one of {', '.join(FORMATS)}, not {name!r}.")
    return FORMATS[name]


def _check_suffix(path: Path, format: str) -> None:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise StoreError(f"labels are kept in {', '.join(SUFFIXES)} files, not in {path.name!r}; rename it.")
    if suffix == ".csv" and not FORMATS[format].is_flat:
        raise StoreError(f"rows of {format} hold lists, which a .csv file cannot; choose .jsonl or .parquet.")


def _check_columns(row: Any, wanted: Sequence[str]) -> None:
    if not isinstance(row, Mapping):
        raise StoreError(f"it is no object with columns, but {row!r:.40}.")
    names = [name for name in row if isinstance(name, str)]
    if len(names) < len(row):
        raise StoreError(
            f"it has more values than the header has columns ({', '.join(names)}); quote texts with commas."
        )
    for name in wanted:
        if name not in names:
            like = get_close_matches(name, [other for other in names if other not in wanted], n=1)
            mend = f"rename {like[0]!r} to it" if like else "add it, or choose the format that the file has"
            raise StoreError(f"there is no column {name!r} among {', '.join(names) or 'none'}; {mend}.")


def _read(path: Path) -> list[Any]:
    if not path.is_file():
        raise StoreError(f"the file {path} does not exist; check the path.")
    try:
        return _READERS[path.suffix.lower()](path)
    except StoreError:
        raise
    except Exception as error:  # Each reader has its own.
        raise StoreError(f"{path} could not be read as {path.suffix[1:].upper()}: {error}.") from error


def read_jsonl(path: Path) -> list[Any]:
    """The rows of a file with one JSON value a line.

    Raises:
        StoreError: A line is no JSON, or the file is not in UTF-8.
    """
    rows = []
    # Not splitlines: a text may hold a U+2028 or a U+0085, which end a line for Python but not in JSONL.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise StoreError(f"line {number} of {path} is no JSON ({error}); mend it, or remove it.") from error
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} could not be read as text in UTF-8 ({error.reason}); save it as such.") from error


def _read_json(path: Path) -> list[Any]:
    rows = json.loads(_text(path))
    if not isinstance(rows, list):
        raise StoreError(f"{path} is no list of rows; one row a line is called .jsonl.")
    return rows


def _read_csv(path: Path) -> list[Any]:
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))  # A post may be longer than its 128 KiB.
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def _read_parquet(path: Path) -> list[Any]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def _jsonl(rows: Sequence[Mapping[str, Any]], form: Format) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _json(rows: Sequence[Mapping[str, Any]], form: Format) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def _csv(rows: Sequence[Mapping[str, Any]], form: Format) -> str:
    text = io.StringIO(newline="")
    # Quoted throughout: a field that starts with a space, as completions do, would lose it in some programs.
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(rows: Sequence[Mapping[str, Any]], form: Format) -> bytes:
    from datasets import Dataset

    file = io.BytesIO()
    Dataset.from_list([dict(row) for row in rows], features=form.features()).to_parquet(file)
    return file.getvalue()


_READERS: dict[str, Callable[[Path], list[Any]]] = dict(
    zip(SUFFIXES, (read_jsonl, _read_json, _read_csv, _read_parquet), strict=True)
)
_WRITERS: dict[str, Callable[..., str | bytes]] = dict(zip(SUFFIXES, (_jsonl, _json, _csv, _parquet), strict=True))
