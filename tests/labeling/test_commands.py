"""`rlhf-lab labels`: what each command says and does, and that a mistake is one sentence and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lab import cli
from rlhf_lab.labeling.store import LabelStore
from tests.capabilities import ROOT


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints."""
    code = cli.main(["labels", *arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which a command is refused."""
    assert cli.main(["labels", *arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "labels.sqlite")


@pytest.fixture
def labeled(db: str) -> LabelStore:
    """Ana is right on one of two gold questions, and prefers the first answer of an ordinary item; Ben skipped one."""
    store = LabelStore(db, overlap=2)
    rows = [{"id": f"item {i}", "prompt": f"P{i}", "answers": ["A", "B"]} for i in range(3)]
    store.add_items([row | ({} if i == 0 else {"gold": 0}) for i, row in enumerate(rows)], order="given")
    store.add_labelers(["ana", "ben"])
    store.assign("ana", [row["id"] for row in rows])
    store.assign("ben", ["item 0"])
    for place, step in enumerate([1, 2, 7]):
        assignment = store.at("ana", "compare", place)
        assert assignment
        store.record(assignment, {"scale": 8, "step": step}, seconds=60.0)
    skipped = store.at("ben", "compare", 0)
    assert skipped
    store.record(skipped, {"reason": "too long"}, event="skip", seconds=6.0)
    return store


def table(text: str, first: str) -> dict[str, list[str]]:
    """Rows of the table whose header starts with `first`, by their first cell."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    rows = {}
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        cells = line.split()
        rows[cells[0]] = cells[1:]
    return rows


def test_status_counts_items_labels_and_labelers(labeled: LabelStore, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "status", "--db", labeled.where)
    assert "overlap 2, gold rate 0%, open to all" in text
    assert table(text, "kind") == {"compare": ["3", "2", "3", "3"]}
    rows = table(text, "labeler")
    assert rows["ana"] == ["person", "compare", "3", "0", "3", "3.0", "50%", "of", "2"]
    assert rows["ben"] == ["person", "compare", "0", "1", "3", "0.1", "-"]


def test_status_of_a_store_without_labelers(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    LabelStore(db)
    assert "Nobody has labeled yet." in said(capsys, "status", "--db", db)


def test_agreement_prints_and_writes_the_report(
    labeled: LabelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    text = said(capsys, "agreement", "--db", labeled.where, "--out", str(out))
    assert "Do labelers agree" in text
    assert text.endswith(f"Report: {out}\n")
    page = out.read_text()
    assert page.startswith("<!doctype html>")
    assert "Do labelers agree" in page


def test_export_and_import(labeled: LabelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, other = tmp_path / "labels.jsonl", str(tmp_path / "other.sqlite")
    assert said(capsys, "export", "--db", labeled.where, "--out", str(out)) == f"1 rows: {out}\n"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["prompt"], row["chosen"], row["chosen_prob"]) for row in rows] == [("P0", "A", 0.9375)]
    assert "3 rows" in said(capsys, "export", "--db", labeled.where, "--out", str(out), "--gold", "--labeler", "ana")
    assert "3 new labels" in said(capsys, "import", "--db", other, str(out))
    assert "0 new labels" in said(capsys, "import", "--db", other, str(out), "--format", "trl")
    assert len(LabelStore(other).labels()) == 3


def test_export_of_some_kinds_and_formats(
    labeled: LabelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.parquet"
    for form in ("trl", "trl-conversational"):
        assert "1 rows" in said(capsys, "export", "--db", labeled.where, "--out", str(out), "--format", form)
    message = refused(capsys, "export", "--db", labeled.where, "--out", str(out), "--kinds", "rank")
    assert "has no labels that trl can hold" in message


def items_file(folder: Path, *rows: object) -> str:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROW = {"id": "one", "prompt": "P", "answers": ["A", "B"]}


def test_assign_adds_items_and_gives_them_to_people(
    db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = items_file(tmp_path, ROW, ROW | {"id": "two", "prompt": "Q"})
    text = said(capsys, "assign", "--db", db, "--add-items", file, "--overlap", "2", "--labeler", "ana", "--num", "1")
    assert text == "2 new items to compare.\nana: 1 open to compare.\n"
    text = said(capsys, "assign", "--db", db, "--labeler", "ben", "cleo", "--items", "two", "--close")
    assert text.splitlines()[:2] == ["ben: 1 more items by id.", "cleo: 1 more items by id."]
    store = LabelStore(db)
    assert store.settings()["closed"] is True
    assert store.labelers() == {"ana": "person", "ben": "person", "cleo": "person"}
    first = store.at("cleo", "compare", 0)
    assert first is not None
    assert first.item.id == "two"
    assert "closed: only those below may label" in said(capsys, "status", "--db", db)


@pytest.mark.parametrize("command", ["status", "agreement", "export"])
@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_a_store_that_is_not_there_is_not_made(
    command: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere.sqlite"
    more = ["--out", str(tmp_path / "out.jsonl")] if command == "export" else []
    assert f"there is no label store {path}" in refused(capsys, command, "--db", form.format(path), *more)
    assert not list(tmp_path.iterdir())


def test_mistakes_leave_no_store_behind(db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = items_file(tmp_path, ROW, {"prompt": "P", "answers": ["A"]})
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    for arguments, sentence in [
        (["import", str(tmp_path / "none.jsonl")], "none.jsonl does not exist"),
        (["import", file], "row 0 of items.jsonl: there is no column 'chosen'"),
        (["import", file, "--format", "dpo"], "a format is one of trl"),
        (["assign"], "there is nothing to do; give --add-items, --labeler or --close"),
        (["assign", "--num", "3", "--close"], "say to whom with --labeler"),
        (["assign", "--labeler", "ana", "--num", "-1"], "--num is a number of items"),
        (["assign", "--labeler", "ana", "--kind", "compair"], "a kind is one of compare"),
        (["assign", "--add-items", file], "items.jsonl: row 1: an item to compare has 2 answer"),
        (["assign", "--add-items", str(broken)], "line 1 of"),
        (["assign", "--add-items", str(tmp_path / "none.jsonl")], "none.jsonl does not exist"),
    ]:
        assert sentence in refused(capsys, arguments[0], "--db", db, *arguments[1:])
        assert not Path(db).exists()


def test_an_unknown_item_lets_nobody_in(labeled: LabelStore, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "assign", "--db", labeled.where, "--labeler", "dan", "--items", "item 9")
    assert "the store has no item 'item 9'" in message
    assert "dan" not in labeled.labelers()


def test_nothing_to_report_or_export_is_said(db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LabelStore(db)
    assert "there are no labels yet" in refused(capsys, "agreement", "--db", db)
    out = tmp_path / "labels.jsonl"
    assert "has no labels that trl can hold" in refused(capsys, "export", "--db", db, "--out", str(out))
    assert not out.exists()


def test_labels_commands_need_not_wait_for_pytorch(labeled: LabelStore) -> None:
    code = f"""
import sys
from rlhf_lab import cli
assert cli.main(["labels", "status", "--db", {labeled.where!r}]) == 0
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_unknown_command_ends_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["labels", "exprt"])
    assert ended.value.code == 2
    assert "status, agreement, export, import, assign" in capsys.readouterr().err
