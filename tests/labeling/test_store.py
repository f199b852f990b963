"""The label store: what is asked of whom, what is kept, and clear errors; in SQLite and in PostgreSQL."""

import pickle
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rlhf_lab.labeling import schema
from rlhf_lab.labeling.claims import gold_places
from rlhf_lab.labeling.edits import apply_spans, spans
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.schema import StoreBusyError, StoreError
from rlhf_lab.labeling.store import LabelStore


def rows(num: int, **others: Any) -> list[dict[str, Any]]:
    return [{"id": f"i{k}", "prompt": f"post {k}", "answers": ["one", "other"], **others} for k in range(num)]


@pytest.fixture
def store(where: str) -> LabelStore:
    store = LabelStore(where)
    store.add_items(rows(6), order="given")
    store.add_labelers(["ana", "bob"])
    return store


def test_an_answer_is_kept_as_it_was_given(store: LabelStore) -> None:
    first, second = store.ask("ana", "compare")
    store.record(first, {"scale": 9, "step": 5}, comment="\u00e9\U0001f600 \u202e", seconds=1.5, interface="test 1")
    store.record(second, {"choice": "tie"}, seconds=2.0)
    store.record(second, {"choice": "cannot_compare"}, seconds=0.5)  # To answer again is to correct oneself.
    one, other = store.labels()
    assert (one["item"], one["value"], one["comment"]) == ("i0", {"scale": 9, "step": 5}, "\u00e9\U0001f600 \u202e")
    assert (one["seconds"], one["interface"], one["labeler"], one["kind"]) == (1.5, "test 1", "ana", "compare")
    assert other["value"] == {"choice": "cannot_compare"} and other["seconds"] == 2.5
    assert sorted(one["sides"]) == [0, 1] and one["answers"] == ["one", "other"]


def test_undo_returns_to_what_was_before_and_deletes_nothing(store: LabelStore) -> None:
    first, second = store.ask("ana", "compare")
    store.record(first, {"scale": 8, "step": 1})
    store.record(second, {"scale": 8, "step": 2})
    store.record(first, {"scale": 8, "step": 8})
    undone = store.undo("ana", "compare")
    assert undone is not None and undone.value == {"scale": 8, "step": 1} and undone.status == "answered"
    undone = store.undo("ana", "compare", uid="u")
    assert undone is not None and undone.id == second.id and undone.status == "open"
    assert store.undo("ana", "compare", uid="u") == undone  # Sent twice, it is done once.
    assert [label["item"] for label in store.labels()] == ["i0"]
    assert store.undo("ana", "compare") is not None and store.undo("ana", "compare") is None
    with store._reading() as connection:
        kinds = list(connection.scalars(sa.select(schema.events.c.kind).order_by(schema.events.c.id)))
    assert kinds == ["answer"] * 3 + ["undo"] * 3


@pytest.mark.parametrize("change", ["UPDATE events SET comment = 'x'", "DELETE FROM events"])
def test_the_log_is_append_only_whoever_writes(store: LabelStore, change: str) -> None:
    store.record(store.ask("ana", "compare")[0], {"choice": "tie"})
    with pytest.raises(StoreError, match="append-only"), store._writing() as connection:
        connection.execute(sa.text(change))
    assert len(store.labels()) == 1


def test_an_event_sent_twice_is_kept_once(store: LabelStore) -> None:
    first, second = store.ask("ana", "compare")
    for _ in range(2):
        store.record(first, {"choice": "tie"}, uid="same")
    with pytest.raises(StoreError, match="was about another item"):
        store.record(second, {"choice": "tie"}, uid="same")
    assert len(store.labels()) == 1


def test_each_item_gets_its_overlap(where: str) -> None:
    store = LabelStore(where, overlap=2)
    store.add_items(rows(4))
    names = ["a", "b", "c", "d"]
    store.add_labelers(names)
    given: list[str] = []
    while found := [asked for name in names for asked in store.ask(name, "compare", num=1)]:
        for asked in found:
            store.record(asked, {"choice": "tie"})
        given += [asked.item.id for asked in found]
    assert sorted(given) == sorted(["i0", "i1", "i2", "i3"] * 2)


def test_a_skipped_item_is_given_to_somebody_else(store: LabelStore) -> None:
    skipped = store.ask("ana", "compare")[0]
    store.record(skipped, {"reason": "no"}, event="skip")
    seen = set()
    while found := store.ask("bob", "compare"):
        store.record(found[0], {"choice": "tie"})
        seen.add(found[0].item.id)
    assert skipped.item.id in seen
    assert skipped.item.id not in {asked.item.id for asked in store.ask("ana", "compare")}
    assert store.progress("ana", "compare").skipped == 1


def test_an_item_left_lying_goes_to_somebody_else_but_an_answer_is_never_refused(where: str) -> None:
    store = LabelStore(where, hold_minutes=1 / 300)
    store.add_items(rows(1))
    store.add_labelers(["ana", "bob"])
    (left,) = store.ask("ana", "compare")
    time.sleep(0.25)
    (taken,) = store.ask("bob", "compare")
    assert taken.item == left.item
    store.record(taken, {"choice": "tie"})
    store.record(left, {"choice": "tie"})
    assert len(store.labels()) == 2


def test_priorities_come_first(store: LabelStore) -> None:
    store.prioritize({"i4": 0.2, "i5": 0.9})
    assert [asked.item.id for asked in store.ask("ana", "compare", num=3)] == ["i5", "i4", "i0"]
    with pytest.raises(StoreError, match="no item 'ix'"):
        store.prioritize({"ix": 1.0})


def test_assigned_items_come_beside_the_overlap(store: LabelStore) -> None:
    assert store.assign("bob", ["i3", "i3", "i1"]) == 2
    assert [asked.item.id for asked in store.ask("bob", "compare")] == ["i3", "i1"]
    assert store.assign("ana", ["i3"]) == 1
    assert store.assign("ana", ["i3"]) == 0


def test_gold_questions_come_at_their_rate_and_to_everybody(where: str) -> None:
    store = LabelStore(where, gold_rate=0.2)
    store.add_items(
        rows(80) + [{"id": f"g{k}", "prompt": "g", "answers": ["x", f"y{k}"], "gold": 0} for k in range(30)]
    )
    for name in ("ana", "bob"):
        store.enroll(name)
        asked = store.ask(name, "compare", num=50, limit=40)
        golds = [one.place for one in asked if one.item.gold is not None]
        assert len(asked) == 40 and len(golds) == 8
        assert all(sum(start <= place < start + 5 for place in golds) == 1 for start in range(0, 40, 5))


@pytest.mark.parametrize(("rate", "num"), [(0.0, 0), (1.0, 50), (0.5, 25), (0.1, 5), (0.02, 1)])
def test_gold_places_are_as_many_as_the_rate_says(rate: float, num: int) -> None:
    chosen = gold_places(rate, 0, 50, "s")
    assert len(chosen) == num and chosen <= set(range(50))
    assert chosen == {place for place in range(50) if gold_places(rate, place, place + 1, "s")}


def test_a_closed_store_lets_nobody_else_in(store: LabelStore) -> None:
    store.enroll("eve")
    store.add_labelers([], closed=True)
    store.enroll("ana")
    with pytest.raises(StoreError, match="no labeler 'anna'; did you mean ana"):
        store.enroll("anna")


def test_a_store_travels_as_its_address(store: LabelStore) -> None:
    store.record(store.ask("ana", "compare")[0], {"choice": "tie"})
    copy = pickle.loads(pickle.dumps(store))
    assert copy.labels() == store.labels()
    copy.close()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "answers": ["a"]}, "has 2 answer"),
        ({"prompt": "p", "answers": ["a", " "]}, "answer 1 of 'p' has no text"),
        ({"prompt": "", "answers": ["a", "b"]}, "the prompt of '' has no text"),
        ({"prompt": "p", "answers": ["a", "a"]}, "two answers are the same"),
        ({"prompt": "p", "answers": ["a", "b\0"]}, "NUL"),
        ({"prompt": "p", "answers": ["a", "b"], "gold": 2}, "gold is the index"),
        ({"prompt": "p", "answers": ["a", "b"], "sources": ["x"]}, "2 answers came with 1 sources"),
        ({"post": "p"}, "needs a column 'prompt'; this row has post"),
        ("text", "needs a column 'prompt'; this row has str"),
        (Item(prompt="p", answers=("a",), kind="rate"), "is one to rate, not to compare"),
    ],
)
def test_an_item_that_cannot_be_asked_is_refused_and_none_is_added(store: LabelStore, row: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        store.add_items([{"id": "new", "prompt": "new", "answers": ["a", "b"]}, row])
    assert len(store.items()) == 6


def test_two_items_of_one_id_are_refused(store: LabelStore) -> None:
    with pytest.raises(StoreError, match="two different items have the id 'x'"):
        store.add_items(
            [{"id": "x", "prompt": "p", "answers": ["a", "b"]}, {"id": "x", "prompt": "q", "answers": ["a", "b"]}]
        )
    with pytest.raises(StoreError, match="the store has another item of the id 'i0'"):
        store.add_items([{"id": "i0", "prompt": "p", "answers": ["a", "b"]}])
    assert store.add_items(rows(7)) == 1


@pytest.mark.parametrize(
    ("kind", "num", "value"),
    [
        ("compare", 2, {"scale": 8, "step": 0}),
        ("compare", 2, {"scale": 8, "step": 9}),
        ("compare", 2, {"scale": 7, "step": 1}),
        ("compare", 2, {"scale": 8, "step": 1.0}),
        ("compare", 2, {"scale": 8, "step": True}),
        ("compare", 2, {"choice": "maybe"}),
        ("rank", 3, {"ranks": [1, 2]}),
        ("rank", 3, {"ranks": [2, 3, 3]}),
        ("rank", 3, {"ranks": [1, 2, 4]}),
        ("rate", 1, {"axes": {}, "flags": []}),
        ("rate", 1, {"axes": {"overall": 8}, "flags": []}),
        ("rate", 1, {"axes": {"overall": 7}, "flags": [1]}),
        ("thumbs", 1, {"thumb": "sideways", "ideal": ""}),
        ("edit", 1, {"text": "new", "spans": []}),
        ("chat", 0, {"rating": 0}),
    ],
)
def test_a_value_that_is_no_answer_is_refused(where: str, kind: str, num: int, value: dict[str, Any]) -> None:
    store = LabelStore(where)
    store.add_items([{"prompt": "p", "answers": [f"a{k}" for k in range(num)]}], kind)
    store.add_labelers(["ana"])
    (asked,) = store.ask("ana", kind)
    with pytest.raises(StoreError, match=f"is no answer to an item of kind {kind}; one is"):
        store.record(asked, value)
    assert store.labels() == []


def test_unknown_names_and_settings_are_refused(store: LabelStore, where: str) -> None:
    with pytest.raises(StoreError, match="no labeler 'anna'; did you mean ana"):
        store.ask("anna", "compare")
    with pytest.raises(StoreError, match="a kind is one of compare"):
        store.ask("ana", "guess")
    with pytest.raises(StoreError, match="has no assignment 999"):
        store.record(999, {"choice": "tie"})
    with pytest.raises(StoreError, match="seconds is a number"):
        store.record(store.ask("ana", "compare")[0], {"choice": "tie"}, seconds=float("nan"))
    for name, value in {"overlap": 0, "gold_rate": 1.5, "hold_minutes": 0.0}.items():
        with pytest.raises(StoreError, match=name):
            LabelStore(where, **{name: value})


# Places where there is no store


def test_places_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the folder .*none does not exist; create it"):
        LabelStore(tmp_path / "none" / "labels.sqlite")
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreError, match="is a folder; give a file"):
        LabelStore(tmp_path)
    with pytest.raises(StoreError, match="would lose the labels"):
        LabelStore(":memory:")
    with pytest.raises(StoreError, match="not in 'mysql'"):
        LabelStore("mysql://host/name")
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look at: " * 100)
    with pytest.raises(StoreError, match="is not a label store, or it is damaged"):
        LabelStore(text)
    assert text.read_text().startswith("not a database")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    where = tmp_path / "shop.sqlite"
    with sqlite3.connect(where) as connection:
        connection.execute("CREATE TABLE items (price INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="another program's database: it has a table 'items'"):
        LabelStore(where)


def test_a_damaged_file(tmp_path: Path) -> None:
    where = tmp_path / "labels.sqlite"
    store = LabelStore(where)
    store.add_items(rows(200))
    store.close()
    content = bytearray(where.read_bytes())
    content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
    where.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        LabelStore(where).items()


@pytest.mark.needs("mount")
def test_a_read_only_disk(small_disk: Path) -> None:
    where = small_disk / "labels.sqlite"
    LabelStore(where).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="cannot be opened; check that you may write it and its folder"):
        LabelStore(where)


def test_a_read_only_file(tmp_path: Path) -> None:
    """As root may write any file, by SQLite's own word."""
    store = LabelStore(tmp_path / "labels.sqlite")
    with pytest.raises(StoreError, match="cannot be written; change its permissions"), store._writing() as connection:
        connection.execute(sa.text("PRAGMA query_only = ON"))
        connection.execute(schema.labelers.insert().values(id="x", kind="person", created_at=0.0))


def test_a_server_out_of_reach() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreBusyError, match="cannot be reached"):
        LabelStore("postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(StoreError) as caught:
        LabelStore("postgresql://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


# Versions of the schema


def test_a_store_of_a_newer_schema_is_refused(where: str) -> None:
    store = LabelStore(where)
    with store._writing() as connection:
        connection.execute(schema.settings.update().where(schema.settings.c.key == "version").values(value=99))
    store.close()
    with pytest.raises(StoreError, match=r"written by a newer rlhf_lab \(its schema is 99"):
        LabelStore(where)


def test_an_older_store_is_brought_up_to_date(store: LabelStore, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a step that adds a column, as a later version would."""
    store.record(store.ask("ana", "compare")[0], {"choice": "tie"})
    before = store.labels()
    store.close()
    monkeypatch.setattr(schema, "VERSION", 2)
    steps = {2: lambda operations: operations.add_column("labelers", sa.Column("email", sa.Text))}
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    migrated = LabelStore(where)
    with migrated._reading() as connection:
        assert "email" in {column["name"] for column in sa.inspect(connection).get_columns("labelers")}
        assert connection.scalar(sa.select(schema.settings.c.value).where(schema.settings.c.key == "version")) == 2
    assert migrated.labels() == before
    migrated.close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LabelStore(where).close()

    def fail(operations: Any) -> None:
        operations.add_column("labelers", sa.Column("email", sa.Text))
        raise RuntimeError("no")

    with monkeypatch.context() as later:
        later.setattr(schema, "VERSION", 2)
        later.setattr(schema, "MIGRATIONS", {2: fail})
        with pytest.raises(RuntimeError):
            LabelStore(where)
    store = LabelStore(where)
    with store._reading() as connection:
        assert "email" not in {column["name"] for column in sa.inspect(connection).get_columns("labelers")}
    store.close()


# Edits


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("My cat left.", ""),
        ("", "My cat left."),
        ("same", "same"),
        ("a b c d", "a c b d"),
        ("caf\u00e9 \U0001f600 ok", "cafe \U0001f600\U0001f600 ok"),
        ("x " * 3000, "y " * 3000),
    ],
)
def test_spans_give_the_edited_text(before: str, after: str) -> None:
    assert apply_spans(before, spans(before, after)) == after
