"""Labels to files and back: the same rows, nothing twice, and nothing at all from a file with a mistake."""

import csv
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lab.data.datasets import comparisons_of, load_comparisons
from rlhf_lab.labeling.edits import spans
from rlhf_lab.labeling.exchange import arrivals_of, export_labels, import_labels, rows_of
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.records import Prompt

Row = dict[str, Any]
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.text(LETTERS, min_size=1, max_size=12).filter(str.strip)
POSTS = st.tuples(TEXTS, TEXTS)
STEPS = st.sampled_from([{"scale": scale, "step": step} for scale in (8, 9) for step in range(1, scale + 1)])
COMPARED = st.one_of(STEPS, st.sampled_from([{"choice": "tie"}, {"choice": "cannot_compare"}]))
SUFFIXES = {"trl": (".jsonl", ".json", ".csv", ".parquet"), "trl-conversational": (".jsonl", ".json", ".parquet")}
SUFFIXES |= {"trl-unpaired": SUFFIXES["trl"], "openai": SUFFIXES["trl-conversational"]}
CASES = [(form, suffix) for form, suffixes in SUFFIXES.items() for suffix in suffixes]


def answer(store: LabelStore, item: Item, labeler: str, value: Row, **known: Any) -> None:
    store.add_items([item], item.kind)
    store.add_labelers([labeler])
    store.assign(labeler, [item.id])
    assignment = next(
        found
        for place in itertools.count()
        if (found := store.at(labeler, item.kind, place)) and found.item.id == item.id
    )
    for step in known.get("steps", ()):
        store.record(assignment, step, event="step")
    store.record(assignment, value)


@st.composite
def answers(draw: st.DrawFn) -> Row:
    """Something that was asked, of whom, and what they said; plain values, as checked types draw random numbers."""
    kind = draw(st.sampled_from(["compare", "compare", "rank", "rate", "thumbs", "edit"]))
    size = {"compare": 2, "rank": draw(st.integers(2, 4))}.get(kind, 1)
    texts = draw(st.lists(TEXTS, min_size=size, max_size=size, unique=True))
    post = draw(st.sampled_from([("It left.", "Cat"), draw(POSTS)]))
    labeler = draw(st.sampled_from(["ana", "ben, jr.", "\u00e7a \U0001f600"]))
    if kind == "compare":
        value = draw(COMPARED)
    elif kind == "rank":
        ranks = draw(st.lists(st.integers(1, size), min_size=size, max_size=size))
        value = {"ranks": [rank - min(ranks) + 1 for rank in ranks]}
    elif kind == "rate":
        value = {"axes": {"overall": draw(st.integers(1, 7))}, "flags": []}
    elif kind == "thumbs":
        value = {"thumb": draw(st.sampled_from(["up", "down"])), "ideal": draw(st.just("") | TEXTS)}
    else:
        value = {"text": draw(TEXTS)}
    return {"kind": kind, "post": post, "answers": texts, "labeler": labeler, "value": value}


def filled(folder: Path, said: list[Row]) -> LabelStore:
    store, seen = LabelStore(folder / "store.sqlite"), set()
    for row in said:
        prompt = Prompt(subreddit="pets", title=row["post"][1], post=row["post"][0]).query
        sources = tuple(f"policy {number}" for number in range(len(row["answers"])))
        item = Item(prompt=prompt, answers=tuple(row["answers"]), kind=row["kind"], sources=sources)
        value = row["value"]
        if row["kind"] == "edit":
            value = value | {"spans": spans(item.answers[0], value["text"])}
        if (item.id, row["labeler"]) not in seen:
            answer(store, item, row["labeler"], value)
            seen.add((item.id, row["labeler"]))
    return store


@pytest.mark.parametrize(("form", "suffix"), CASES)
@settings(max_examples=12)
@given(said=st.lists(answers(), min_size=1, max_size=8))
def test_what_is_exported_and_imported_is_exported_as_the_same_rows(form: str, suffix: str, said: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = filled(folder, said)
        rows = rows_of(store.labels(), form)
        if not rows:
            with pytest.raises(StoreError, match=f"has no labels that {form} can hold"):
                export_labels(store, folder / f"labels{suffix}", form)
            return
        assert export_labels(store, folder / f"labels{suffix}", form) == len(rows)
        fresh = LabelStore(folder / "fresh.sqlite")
        assert import_labels(fresh, folder / f"labels{suffix}", form) == len(rows)
        assert rows_of(fresh.labels(), form) == rows
        labels = fresh.labels()
        assert import_labels(fresh, folder / f"labels{suffix}", form) == 0
        assert fresh.labels() == labels


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "prompt": TEXTS,
                "chosen": TEXTS.map("a".__add__),
                "rejected": TEXTS.map("b".__add__),
                "chosen_prob": st.floats(0.5, 1.0, exclude_min=True),
                "confidence": st.integers(0, 4),
                "group": st.sampled_from(["", "1", "2"]),
                "labeler": st.sampled_from(["ana", "ben"]),
            }
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row["prompt"],
    )
)
def test_any_chosen_prob_and_confidence_survive(rows: list[Row]) -> None:
    """Also those that no scale has: they are kept beside the answer."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "labels.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        store = LabelStore(Path(name) / "store.sqlite")
        import_labels(store, path)
        without = [{**row, "group": None} for row in rows]  # Its own prompt gives each row a group of its own.
        assert [{**row, "group": None} for row in rows_of(store.labels())] == without


def openai_row(**changed: Any) -> Row:
    """A row of openai/summarize_from_feedback, comparisons."""
    info = {"id": "t3_34xale", "post": "My boyfriend went home.", "title": "Help", "subreddit": "relationships"}
    texts = (" Mum thinks so.", " She thinks not.")
    summaries = [{"text": text, "policy": f"sup{i}", "note": f"note {i}"} for i, text in enumerate(texts)]
    row = {"info": info | {"site": None, "article": None}, "summaries": summaries, "choice": 1, "worker": "HNzk"}
    return row | {"batch": "batch3", "split": "valid1", "extra": {"confidence": 8}} | changed


def import_rows(store: LabelStore, folder: Path, rows: list[Row], form: str) -> int:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_labels(store, path, form)


@pytest.fixture
def store(where: str) -> LabelStore:
    return LabelStore(where)


def test_openais_rows_come_back_as_they_were(store: LabelStore, tmp_path: Path) -> None:
    article = {"id": "cnn1", "post": None, "title": "News", "subreddit": "", "site": "cnn", "article": "It rained."}
    other = [{"text": text, "policy": "ref", "note": ""} for text in ("Rain.", "Sun.")]
    rows = [
        openai_row(),
        openai_row(worker="other", extra={"confidence": None}, choice=0),
        openai_row(worker="third", extra={"confidence": 5}, choice=1),
        openai_row(info=article, summaries=other, choice=0, extra={"confidence": 2}),
    ]
    assert import_rows(store, tmp_path, rows, "openai") == 4
    assert rows_of(store.labels(), "openai") == rows
    assert len(store.items()) == 2
    first = store.labels()[0]
    assert (first["value"], first["sources"], first["sides"]) == ({"scale": 9, "step": 8}, ["sup0", "sup1"], [0, 1])


def test_openais_rows_teach_what_the_kits_own_reader_says(store: LabelStore, tmp_path: Path) -> None:
    """Except how sure the choice is, which `comparisons_of` does not take from the strength."""
    rows = [openai_row(), openai_row(worker="w", extra={"confidence": 3}, choice=0), openai_row(worker="v", extra={})]
    import_rows(store, tmp_path, rows, "openai")
    names = ("prompt", "chosen", "rejected", "confidence")
    taught = [{name: row[name] for name in names} for row in rows_of(store.labels())]
    assert taught == [{name: row[name] for name in names} for row in comparisons_of([dict(row) for row in rows])]
    assert [row["chosen_prob"] for row in rows_of(store.labels())] == [15 / 18, 13 / 18, 1.0]


def test_openais_strength_speaks_of_the_shown_order(store: LabelStore) -> None:
    """Here the labeler saw the second answer first; the first is surely better: 9, on the side where it stood."""
    prompt = Prompt(subreddit="pets", title="Cat", post="It left.").query
    for number in range(8):  # Sides are drawn; among eight labelers both orders occur.
        answer(store, Item(prompt=prompt, answers=("A", "B")), f"labeler {number}", {"scale": 8, "step": 1})
    labels = {label["labeler"]: label["sides"] for label in store.labels()}
    rows = rows_of(store.labels(), "openai")
    assert {tuple(sides) for sides in labels.values()} == {(0, 1), (1, 0)}
    for row in rows:
        turned = labels[row["worker"]] == [1, 0]
        assert [summary["text"] for summary in row["summaries"]] == (["B", "A"] if turned else ["A", "B"])
        assert (row["extra"]["confidence"], row["choice"]) == ((9, 1) if turned else (1, 0))


def test_the_naive_interpretation_of_a_summary_is_its_note(store: LabelStore) -> None:
    prompt = Prompt(subreddit="pets", title="Cat", post="It left.").query
    item = Item(prompt=prompt, answers=("A", "B"))
    answer(store, item, "ana", {"scale": 8, "step": 1}, steps=[{"interpretation": ["of A", "of B"]}])
    summaries = rows_of(store.labels(), "openai")[0]["summaries"]
    assert {summary["text"]: summary["note"] for summary in summaries} == {"A": "of A", "B": "of B"}


def test_the_same_comparison_of_two_people_is_one_item_whichever_was_chosen(store: LabelStore, tmp_path: Path) -> None:
    rows = [
        {"prompt": "P", "chosen": "A", "rejected": "B", "labeler": "ana", "chosen_prob": 0.8125, "confidence": 3},
        {"prompt": "P", "chosen": "B", "rejected": "A", "labeler": "ben", "chosen_prob": 0.9375, "confidence": 4},
    ]
    import_rows(store, tmp_path, rows, "trl")
    assert len(store.items()) == 1
    assert [label["value"]["step"] for label in store.labels()] == [2, 8]
    assert [row["chosen"] for row in rows_of(store.labels())] == ["A", "B"]


def test_imported_labels_meet_those_that_were_given_here(store: LabelStore, tmp_path: Path) -> None:
    """At the same item, and an answer that is there stays, even where the file says otherwise."""
    item = Item(prompt="P", answers=("A", "B"), sources=("sft", "ppo"))
    answer(store, item, "ana", {"scale": 8, "step": 1})
    rows = [
        {"prompt": "P", "chosen": "B", "rejected": "A", "labeler": "ana"},
        {"prompt": "P", "chosen": "B", "rejected": "A", "labeler": "ben"},
    ]
    assert import_rows(store, tmp_path, rows, "trl") == 1
    labels = {label["labeler"]: label for label in store.labels()}
    assert [one.id for one in store.items()] == [item.id]
    assert labels["ana"]["value"] == {"scale": 8, "step": 1}
    assert labels["ben"]["value"] == {"scale": 9, "step": 9}
    assert {row["chosen"]: row["chosen_prob"] for row in rows_of(store.labels())} == {"A": 0.9375, "B": 1.0}


def test_an_item_that_somebody_has_open_is_answered_by_the_import(store: LabelStore, tmp_path: Path) -> None:
    item = Item(prompt="P", answers=("A", "B"))
    store.add_items([item])
    store.add_labelers(["ana"])
    assert store.ask("ana", "compare")
    row = {"prompt": "P", "chosen": "B", "rejected": "A", "labeler": "ana", "chosen_prob": 0.75}
    assert import_rows(store, tmp_path, [row], "trl") == 1
    assert store.ask("ana", "compare") == []
    assert rows_of(store.labels())[0]["chosen_prob"] == 0.75
    assert store.progress("ana", "compare").answered == 1


def test_what_was_taken_back_does_not_return_with_the_next_import(store: LabelStore, tmp_path: Path) -> None:
    row = {"prompt": "P", "chosen": "B", "rejected": "A", "labeler": "ana", "chosen_prob": 0.9375, "confidence": 4}
    import_rows(store, tmp_path, [row], "trl")
    store.undo("ana", "compare")
    assert import_rows(store, tmp_path, [row], "trl") == 0
    assert store.labels() == []


def test_a_comparison_that_one_person_made_twice_stays_two(store: LabelStore, tmp_path: Path) -> None:
    row = {"prompt": "P", "chosen": "A", "rejected": "B", "labeler": "ana"}
    rows = [row, row | {"chosen": "B", "rejected": "A"}]
    assert import_rows(store, tmp_path, rows, "trl") == 2
    assert [row["chosen"] for row in rows_of(store.labels())] == ["A", "B"]
    assert import_rows(store, tmp_path, rows, "trl") == 0


def test_imported_items_count_towards_their_overlap(store: LabelStore, tmp_path: Path) -> None:
    import_rows(store, tmp_path, [{"prompt": "P", "chosen": "A", "rejected": "B", "labeler": "ana"}], "trl")
    store.add_labelers(["ben"])
    assert store.ask("ben", "compare") == []  # The overlap is 1.


def test_a_chat_is_exported_as_conversations(store: LabelStore, tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ]
    steps = [{"turn": 1, "prompt": messages, "replies": ["Because.", "So."], "chosen": 1}]
    answer(store, Item(prompt="", kind="chat"), "ana", {"rating": 5}, steps=steps)
    row = rows_of(store.labels(), "trl-conversational")[0]
    assert row["prompt"] == messages
    assert row["chosen"] == [{"role": "assistant", "content": "So."}]
    other = LabelStore(tmp_path / "other.sqlite")
    import_rows(other, tmp_path, [row], "trl-conversational")
    assert rows_of(other.labels(), "trl-conversational") == [row]


def test_thumbs_are_unpaired_rows(store: LabelStore) -> None:
    answer(store, Item(prompt="P", answers=("A",), kind="thumbs"), "ana", {"thumb": "down", "ideal": "B"})
    assert rows_of(store.labels(), "trl-unpaired") == [
        {"prompt": "P", "completion": "A", "label": False, "ideal": "B", "labeler": "ana"}
    ]


def test_exported_files_are_read_by_load_comparisons(store: LabelStore, tmp_path: Path) -> None:
    prompt = Prompt(subreddit="pets", title="Cat", post='It "left",\nthen came.').query
    answer(store, Item(prompt=prompt, answers=(" A, b", " C")), "ana", {"scale": 8, "step": 7})
    for form, suffix in [("trl", ".jsonl"), ("trl", ".csv"), ("trl", ".parquet"), ("openai", ".parquet")]:
        path = tmp_path / f"{form}{suffix}"
        export_labels(store, path, form)
        row = load_comparisons(str(path))[0]
        assert (row["prompt"], row["chosen"], row["confidence"]) == (prompt, " C", 3)
        assert form == "openai" or row["chosen_prob"] == 0.8125


@pytest.mark.parametrize("suffix", SUFFIXES["trl"])
def test_odd_texts_are_the_same_after_a_round_trip(suffix: str, store: LabelStore, tmp_path: Path) -> None:
    prompt = '"quoted", one\r\ntwo\rthree\nfour\u2028five\x85six\ufeff\u202e'
    answer(store, Item(prompt=prompt, answers=(" A, =1+1\r", "\ufeffB\r\n'")), "ana\r", {"scale": 8, "step": 7})
    export_labels(store, tmp_path / f"odd{suffix}")
    other = LabelStore(tmp_path / "other.sqlite")
    import_labels(other, tmp_path / f"odd{suffix}")
    assert rows_of(other.labels()) == rows_of(store.labels())
    assert other.items()[0].prompt == prompt


def test_a_long_post_survives_csv(store: LabelStore, tmp_path: Path) -> None:
    long = "word " * 60_000
    answer(store, Item(prompt=long, answers=("A", "B")), "ana", {"scale": 8, "step": 7})
    export_labels(store, tmp_path / "long.csv")
    other = LabelStore(tmp_path / "other.sqlite")
    import_labels(other, tmp_path / "long.csv")
    assert other.items()[0].prompt == long


# Bad input


def refused(folder: Path, name: str, content: str | bytes, form: str = "trl") -> str:
    """The sentence with which a file is refused; the store stays as it was."""
    path, store = folder / name, LabelStore(folder / "refusing.sqlite")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    import_rows(store, folder, [{"prompt": "P", "chosen": "A", "rejected": "B", "labeler": "ana"}], "trl")
    before = (store.items(), store.labelers(), store.labels())
    with pytest.raises(StoreError) as caught:
        import_labels(store, path, form)
    assert (store.items(), store.labelers(), store.labels()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = {"prompt": "Q", "chosen": "A", "rejected": "B", "labeler": "new"}
BAD_TRL: list[tuple[Row, str]] = [
    (
        {"prompt": "Q", "chosn": "A", "rejected": "B"},
        "no column 'chosen' among prompt, chosn, rejected; rename 'chosn'",
    ),
    ({"chosen": "A", "rejected": "B"}, "no column 'prompt' among chosen, rejected; add it"),
    (GOOD | {"chosen": "B"}, "same text"),
    (GOOD | {"chosen": " "}, "chosen must be text"),
    (GOOD | {"chosen": None}, "chosen must be text"),
    (GOOD | {"prompt": 7}, "prompt must be text"),
    (GOOD | {"prompt": "a\0b"}, "NUL"),
    (GOOD | {"rejected": "\ud800"}, "surrogate"),
    (GOOD | {"chosen_prob": 0.2}, "chosen_prob must be a number from 0.5"),
    (GOOD | {"chosen_prob": "half"}, "chosen_prob is a number, not 'half'"),
    (GOOD | {"chosen_prob": float("nan")}, "chosen_prob must be a number"),
    (GOOD | {"confidence": 5}, "confidence must be 0"),
    (GOOD | {"confidence": 2.5}, "confidence is a whole number, not 2.5"),
    (GOOD | {"labeler": "a\0"}, "a labeler's id"),
]
BAD_OPENAI: list[tuple[Row, str]] = [
    ({"info": {}, "summary": [], "choice": 0}, "no column 'summaries' among info, summary, choice; rename 'summary'"),
    (openai_row(info={"title": "x"}), "neither a post nor an article"),
    (openai_row(info=None), "neither a post nor an article"),
    (openai_row(summaries=[{"text": "a"}]), "two summaries"),
    (openai_row(summaries=["a", "b"]), "another shape"),
    (openai_row(summaries=[{"text": "a"}, {"text": None}]), "summary must be text"),
    (openai_row(choice=2), "choice is 0 or 1, not 2"),
    (openai_row(extra={"confidence": 12}), "confidence is 1 to 9 or null, not 12"),
    (openai_row(choice=0), "choice 0 prefers the first summary, confidence 8 the other"),
]
MESSAGE = [{"role": "user", "content": "Q"}]
REPLY = [{"role": "assistant", "content": "A"}]
TALKED = {"prompt": MESSAGE, "chosen": REPLY, "rejected": [{"role": "assistant", "content": "B"}]}
BAD_TALKED: list[tuple[Row, str]] = [
    (TALKED | {"prompt": "Q"}, "prompt is a list of"),
    (TALKED | {"chosen": MESSAGE + REPLY}, "chosen is one message of the assistant's, not 2"),
    (TALKED | {"rejected": [{"role": "assistant"}]}, "rejected is a list of"),
]
BAD_THUMBS: list[tuple[Row, str]] = [
    ({"prompt": "Q", "completion": "A", "label": "maybe"}, "label is true .* not 'maybe'"),
    ({"prompt": "Q", "completion": "A", "lable": True}, "no column 'label' .* rename 'lable'"),
    ({"prompt": "Q", "completion": "", "label": True}, "completion must be text"),
    ({"prompt": "Q", "completion": "A", "label": True, "ideal": 5}, "no answer"),
]
BAD_ROWS = [
    (form, row, said)
    for form, cases in [
        ("trl", BAD_TRL),
        ("openai", BAD_OPENAI),
        ("trl-conversational", BAD_TALKED),
        ("trl-unpaired", BAD_THUMBS),
    ]
    for row, said in cases
]
FIRST = {
    "trl": GOOD,
    "openai": openai_row(),
    "trl-conversational": TALKED,
    "trl-unpaired": {"prompt": "Q", "completion": "A", "label": True},
}


@pytest.mark.parametrize(("form", "row", "said"), BAD_ROWS, ids=lambda value: str(value)[:40])
def test_a_wrong_row_is_named_and_nothing_is_written(form: str, row: Row, said: str, tmp_path: Path) -> None:
    sentence = refused(tmp_path, "bad.jsonl", lines(FIRST[form], row), form)
    assert sentence.startswith("row 1 of bad.jsonl: ")
    with pytest.raises(StoreError, match=said):
        raise StoreError(sentence)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert "line 2 of" in refused(tmp_path, "bad.jsonl", lines(GOOD) + "{'prompt': 1}\n")
    assert "bad.jsonl could not be read" in refused(tmp_path, "bad.jsonl", b"\xff\xfe")
    assert "is no list of rows" in refused(tmp_path, "bad.json", json.dumps(GOOD))
    assert "could not be read as PARQUET" in refused(tmp_path, "bad.parquet", "PAR1")
    assert "has no rows" in refused(tmp_path, "bad.jsonl", "\n")
    assert "has no rows" in refused(tmp_path, "bad.csv", "prompt,chosen,rejected\n")
    assert "it is no object with columns, but [1]" in refused(tmp_path, "bad.jsonl", lines([1]))
    assert "quote texts with commas" in refused(tmp_path, "bad.csv", "prompt,chosen,rejected\nQ,A,B,C\n")
    assert "no column 'rejected'" in refused(tmp_path, "bad.csv", "prompt,chosen\nQ,A\n")
    assert ".csv file cannot" in refused(tmp_path, "bad.csv", "a\n1\n", "openai")
    assert "rename it" in refused(tmp_path, "bad.txt", lines(GOOD))
    assert "a format is one of trl, " in refused(tmp_path, "bad.jsonl", lines(GOOD), "dpo")
    with pytest.raises(StoreError, match=r"nowhere\.jsonl does not exist"):
        import_labels(LabelStore(tmp_path / "refusing.sqlite"), tmp_path / "nowhere.jsonl")


def test_a_failure_while_writing_leaves_nothing(
    store: LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("power failed")

    monkeypatch.setattr("rlhf_lab.labeling.intake.claims.take", fail)
    with pytest.raises(RuntimeError):
        import_rows(store, tmp_path, [GOOD], "trl")
    assert (store.items(), store.labelers(), store.labels()) == ([], {}, [])


def test_nothing_to_export_is_said_and_no_file_appears(store: LabelStore, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with pytest.raises(StoreError, match=r"has no labels that trl can hold .* it has: none at all"):
        export_labels(store, path)
    answer(store, Item(prompt="P", answers=("A", "B")), "ana", {"choice": "tie"})
    with pytest.raises(StoreError, match=r"has no labels that trl-unpaired can hold .thumbs.; it has: compare"):
        export_labels(store, path, "trl-unpaired")
    with pytest.raises(StoreError, match="is no TL;DR post, and OpenAI's schema knows no other prompts"):
        export_labels(store, path, "openai")
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_old_file_stays_if_the_new_one_cannot_be_written(
    suffix: str, store: LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(store, Item(prompt="P", answers=("A", "B")), "ana", {"choice": "tie"})
    path = tmp_path / f"labels{suffix}"
    path.write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlhf_lab.records.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        export_labels(store, path)
    assert path.read_text() == "old"


def test_rows_without_labelers_get_the_name_that_is_given(store: LabelStore, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "chosen", "rejected", "labeler"])
        writer.writeheader()
        writer.writerows([GOOD | {"labeler": ""}, GOOD | {"prompt": "R", "labeler": "ben"}])
    import_labels(store, path, labeler="crowd", kind="simulated")
    assert store.labelers() == {"ben": "simulated", "crowd": "simulated"}


def test_arrivals_without_rows_are_refused() -> None:
    with pytest.raises(StoreError, match="the rows has no rows"):
        arrivals_of([])


@pytest.mark.slow
def test_ten_thousand_rows_are_imported_within_seconds(
    store: LabelStore, tmp_path: Path, seconds: Callable[[], float]
) -> None:
    rows = [GOOD | {"prompt": f"Post {number}", "labeler": f"labeler {number % 60}"} for number in range(10_000)]
    start = seconds()
    assert import_rows(store, tmp_path, rows, "trl") == 10_000
    assert seconds() - start < 60


@pytest.fixture
def seconds() -> Callable[[], float]:
    import time

    return time.process_time
