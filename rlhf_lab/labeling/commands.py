"""`rlhf-lab labels`: what an instructor does with a label store from the command line."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import tyro

from rlhf_lab.labeling.exchange import export_labels, import_labels, read_arrivals, read_jsonl
from rlhf_lab.labeling.items import Item, check_kind, items_of
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.records import write_atomic


@dataclass(frozen=True, kw_only=True)
class StatusCommand:
    """How far the labelers are, and how often they are right on gold questions."""

    db: str
    """The store: a file, or postgresql://user@host/name."""


@dataclass(frozen=True, kw_only=True)
class AgreementCommand:
    """What the labels are worth: agreement, gold questions, biases, and scores of who wrote the answers."""

    db: str
    """The store: a file, or postgresql://user@host/name."""
    out: str = ""
    """Also write the report with its figures to this HTML file."""


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Write the labels to a file for training elsewhere."""

    db: str
    """The store: a file, or postgresql://user@host/name."""
    out: str
    """A .jsonl, .json, .csv or .parquet file."""
    format: str = "trl"
    """trl, trl-conversational, trl-unpaired, edits or openai."""
    labeler: tuple[str, ...] = ()
    """Only of these labelers."""
    kinds: tuple[str, ...] = ()
    """Only of these kinds of items."""
    gold: bool = False
    """Labels of gold questions too."""


@dataclass(frozen=True, kw_only=True)
class ImportCommand:
    """Put a file's labels in the store, which is made if it does not exist; answers that are there already stay."""

    db: str
    """The store: a file, or postgresql://user@host/name."""
    file: tyro.conf.Positional[str]
    """A .jsonl, .json, .csv or .parquet file."""
    format: str = "trl"
    """trl, trl-conversational, trl-unpaired, edits or openai."""
    labeler: str = "imported"
    """Whose the labels are, where the file does not say."""


@dataclass(frozen=True, kw_only=True)
class AssignCommand:
    """Add items, let people label, and give them items; the store is made if it does not exist."""

    db: str
    """The store: a file, or postgresql://user@host/name."""
    add_items: str = ""
    """A .jsonl file of rows with `prompt` and `answers` (or `chosen` and `rejected`, or `completion`)."""
    kind: str = "compare"
    """compare, rank, rate, thumbs, edit or chat: how the items are asked."""
    overlap: int | None = None
    """How many labelers each of the added items gets; by default the store's setting."""
    labeler: tuple[str, ...] = ()
    """Let these people label."""
    items: tuple[str, ...] = ()
    """Give each of them these items, whatever their overlap."""
    num: int = 0
    """Give each of them items until they have so many open."""
    close: bool = False
    """From now on only people who were added may label."""


Action = (
    Annotated[StatusCommand, tyro.conf.subcommand("status")]
    | Annotated[AgreementCommand, tyro.conf.subcommand("agreement")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[ImportCommand, tyro.conf.subcommand("import")]
    | Annotated[AssignCommand, tyro.conf.subcommand("assign")]
)


@dataclass(frozen=True, kw_only=True)
class LabelsCommand:
    """Look after the labels of a class: progress, agreement, files, and who gets what."""

    action: Action


def run_labels(action: Any) -> str:
    """Do what is asked; returns what there is to say about it.

    Raises:
        StoreError: The store or a file cannot be used as asked.
    """
    _check(action)  # A mistake must not leave an empty store behind.
    store = LabelStore(action.db)
    try:
        return _ACTIONS[type(action)](store, action)
    finally:
        store.close()


def _check(action: Any) -> None:
    """Refuse what can be refused without the store."""
    if isinstance(action, ImportCommand):
        read_arrivals(action.file, action.format, labeler=action.labeler)
    elif isinstance(action, AssignCommand):
        _check_assign(action)
    else:
        _check_there(action.db)


def _check_there(db: str) -> None:
    """Refuse a file that is not there, which would be made by being opened."""
    path = db
    if "://" in db:
        if not db.startswith("sqlite"):
            return
        path = sa.make_url(db).database or ""
    if path and path != ":memory:" and not Path(path).exists():
        raise StoreError(f"there is no label store {path}; check --db, or make one with `rlhf-lab labels assign`.")


def _status(store: LabelStore, action: StatusCommand) -> str:
    from rlhf_lab.labeling.agreement import agreement_with_gold

    items, labels, labelers = store.items(), store.labels(), store.labelers()
    kinds = list(dict.fromkeys(item.kind for item in items))
    settings = store.settings()
    lines = [
        f"{store.name}: overlap {settings['overlap']}, gold rate {settings['gold_rate']:.0%}, "
        f"{'closed: only those below may label' if settings['closed'] else 'open to all'}"
    ]
    rows = []
    for kind in kinds:
        mine = [item for item in items if item.kind == kind]
        said = [label for label in labels if label["kind"] == kind]
        num_gold = sum(item.gold is not None for item in mine)
        rows.append([kind, len(mine), num_gold, len(said), len({label["item"] for label in said})])
    lines += ["", *_table(["kind", "items", "gold", "labels", "items with labels"], rows)]
    right = agreement_with_gold([label for label in labels if label["gold"] is not None])
    rows = []
    for name, sort in labelers.items():
        for kind in kinds:
            progress = store.progress(name, kind)
            if progress.answered or progress.skipped or len(kinds) == 1:
                shown = [progress.answered, progress.skipped, progress.total, _minutes(progress.seconds)]
                rows.append([name, sort, kind, *shown, _share(right.get(name))])
    header = ["labeler", "", "kind", "answered", "skipped", "of", "minutes", "right on gold"]
    lines += ["", *(_table(header, rows) if rows else ["Nobody has labeled yet."])]
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _share(estimate: Any) -> str:
    return f"{estimate.value:.0%} of {estimate.n}" if estimate is not None and estimate.n else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Columns under their names, numbers on the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_number = [all(isinstance(cell, int | float) for cell in column) for column in zip(*rows, strict=True)]
    is_number = is_number or [False] * len(header)
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _agreement(store: LabelStore, action: AgreementCommand) -> str:
    from rlhf_lab.labeling.report import agreement_report

    report = agreement_report(store)
    if not action.out:
        return report.text
    title = f"Labels of {html.escape(Path(store.name).name)}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    style = '<body style="font-family: sans-serif; margin: 2em auto; max-width: 60em">'
    page = f"{head}{style}<h1>{title}</h1>{report._repr_html_()}</body></html>\n"
    write_atomic(Path(action.out), page)
    return f"{report.text}\nReport: {action.out}"


def _export(store: LabelStore, action: ExportCommand) -> str:
    if action.out.endswith(".parquet"):
        import datasets

        datasets.disable_progress_bars()
    chosen = {"labeler": action.labeler or None, "kinds": action.kinds or None, "gold": action.gold}
    number = export_labels(store, action.out, action.format, **chosen)
    return f"{number} rows: {action.out}"


def _import(store: LabelStore, action: ImportCommand) -> str:
    number = import_labels(store, action.file, action.format, labeler=action.labeler)
    return f"{number} new labels: {store.name}"


def _assign(store: LabelStore, action: AssignCommand) -> str:
    lines = []
    if action.add_items:
        number = store.add_items(_read_items(action), action.kind, overlap=action.overlap)
        lines.append(f"{number} new items to {action.kind}.")
    _check_items(store, action.items)  # Before anybody is let in.
    if action.labeler or action.close:
        store.add_labelers(action.labeler, closed=True if action.close else None)
    lines += [f"{name}: {_give(store, name, action)}." for name in action.labeler]
    if action.close:
        lines.append("From now on only people who were added may label.")
    return "\n".join(lines)


def _give(store: LabelStore, name: str, action: AssignCommand) -> str:
    given = []
    if action.items:
        given.append(f"{store.assign(name, action.items)} more items by id")
    if action.num:
        given.append(f"{len(store.ask(name, action.kind, num=action.num))} open to {action.kind}")
    return ", ".join(given) or "may label"


def _check_assign(action: AssignCommand) -> None:
    if not (action.add_items or action.labeler or action.close):
        raise StoreError("there is nothing to do; give --add-items, --labeler or --close.")
    if (action.items or action.num) and not action.labeler:
        raise StoreError("items are given to somebody; say to whom with --labeler.")
    if action.num < 0:
        raise StoreError(f"--num is a number of items from 1 on, not {action.num}.")
    check_kind(action.kind)
    if action.add_items:
        _read_items(action)


def _check_items(store: LabelStore, ids: Sequence[str]) -> None:
    known = {item.id for item in store.items()} if ids else set()
    if missing := [name for name in ids if name not in known]:
        raise StoreError(f"the store has no item {missing[0]!r}.")


def _read_items(action: AssignCommand) -> list[Item]:
    path = Path(action.add_items)
    if not path.is_file():
        raise StoreError(f"the file {path} does not exist; check the path.")
    try:
        return items_of(read_jsonl(path), action.kind)
    except StoreError as error:
        raise StoreError(f"{path.name}: {error}") from error


_ACTIONS: dict[type, Any] = {
    StatusCommand: _status,
    AgreementCommand: _agreement,
    ExportCommand: _export,
    ImportCommand: _import,
    AssignCommand: _assign,
}
