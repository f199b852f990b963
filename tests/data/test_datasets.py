"""The task's rows from files in the schemas that real data has, and what is said about files that cannot be meant."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from rlhf_lab.data.datasets import (
    WORLD_SIZES,
    comparisons_of,
    demonstrations_of,
    load_comparisons,
    load_tldr,
    pretraining_texts,
    prompts_of,
)
from rlhf_lab.records import Comparison, Demonstration, Prompt, require_chosen_prob, require_group

Row = dict[str, Any]
FORMATS = [".jsonl", ".json", ".csv", ".parquet"]
QUERY = "SUBREDDIT: r/pets\n\nTITLE: My cat\n\nPOST: It left.\n\nTL;DR:"
POST: Row = {"subreddit": "pets", "title": "My cat", "post": "It left.", "summary": "My cat is gone. "}
PREFERENCE: Row = {"prompt": QUERY, "chosen": " My cat is gone.", "rejected": " A pet."}
PLAIN: Row = {"labeler": "", "confidence": 0, "chosen_prob": 1.0, "group": ""}
"""What a comparison that says no more is taken for."""
OPENAI: Row = {
    "info": {"id": "t3_1", "post": "It left.", "title": "My cat", "subreddit": "pets", "site": None, "article": None},
    "summaries": [
        {"text": " A pet.", "policy": "sup4", "note": None},
        {"text": " My cat is gone.", "policy": "ref", "note": None},
    ],
    "choice": 1,
    "worker": "ikNm",
    "batch": "batch9",
    "split": "train",
    "extra": {"confidence": 8},
}
"""The README's example row: the second summary is the better one, quite surely."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go to the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes rows as a file and returns its path."""

    def write(rows: list[Row], suffix: str = ".jsonl") -> str:
        path = tmp_path / f"rows{suffix}"
        if suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif suffix == ".json":
            path.write_text(json.dumps(rows))
        elif suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)

    return write


def posts(count: int) -> list[Row]:
    return [{**POST, "post": f"It left {index}."} for index in range(count)]


def without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}


def renamed(row: Row, name: str, new: str) -> Row:
    return {new if key == name else key: value for key, value in row.items()}


@pytest.mark.parametrize("suffix", FORMATS)
def test_posts_become_queries_and_completions(suffix: str, write: Callable[..., str]) -> None:
    data = load_tldr(write([{"id": str(index), **POST} for index in range(20)], suffix))
    assert (len(data.demonstrations), len(data.prompts), len(data.validation)) == (18, 18, 2)
    for rows in (data.demonstrations, data.prompts, data.validation):
        assert set(rows["prompt"]) == {QUERY}
        assert set(rows["completion"]) == {" My cat is gone."}


@pytest.mark.parametrize("name", ["completion", "label", "summary"], ids=["trl-lib", "CarperAI", "summary"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_ready_queries_are_kept_as_they_are(name: str, suffix: str, write: Callable[..., str]) -> None:
    """trl-lib/tldr calls the summary `completion`, CarperAI/openai_summarize_tldr calls it `label`."""
    rows = load_tldr(write([{"prompt": QUERY, name: "My cat is gone."}] * 2, suffix)).demonstrations
    assert rows["prompt"][:] == [QUERY]
    assert rows["completion"][:] == [" My cat is gone."]


def test_a_file_is_split_by_the_seed_without_loss_or_overlap(write: Callable[..., str]) -> None:
    path = write(posts(40))
    splits = []
    for seed in (0, 0, 1):
        data = load_tldr(path, seed=seed)
        train, validation = list(data.demonstrations["post"]), list(data.validation["post"])
        assert (len(train), len(validation)) == (36, 4)
        assert sorted(train + validation) == sorted(row["post"] for row in posts(40))
        splits.append((train, validation))
    assert splits[0] == splits[1]
    assert set(splits[0][1]) != set(splits[2][1])


@pytest.fixture
def no_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints pickle the functions that make the rows, which is slow when type checks wrap them."""

    def refuse(*_: Any) -> None:
        raise AssertionError("A function was fingerprinted.")

    monkeypatch.setattr(datasets.arrow_dataset, "update_fingerprint", refuse)


@pytest.mark.usefixtures("no_fingerprints")
@pytest.mark.parametrize(("make", "row"), [(demonstrations_of, POST), (comparisons_of, PREFERENCE)])
def test_rows_are_made_without_fingerprint_or_cache(
    make: Callable[..., Dataset], row: Row, write: Callable[..., str], tmp_path: Path
) -> None:
    source = datasets.load_dataset("json", data_files=write([row] * 3), split="train")
    files = set(tmp_path.rglob("*.arrow"))
    first, again = make(source), make(source)
    assert first.cache_files == []
    assert set(tmp_path.rglob("*.arrow")) == files
    assert first._fingerprint != again._fingerprint  # What is cached of one is never taken for the other.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bad", [0, 17, 39])
def test_the_row_that_is_named_is_the_file_s(bad: int, seed: int, write: Callable[..., str]) -> None:
    rows = posts(40)
    rows[bad]["post"] = " "
    path = write(rows)
    with pytest.raises(ValueError) as caught:
        load_tldr(path, seed=seed)
    assert str(caught.value).startswith(f"row {bad} of {path}: post must be text")


@pytest.mark.parametrize(("name", "said"), [("train", ""), ("validation", r" \(validation\)")])
def test_a_split_of_the_source_s_own_is_named_with_its_row(name: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "own_splits"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = posts(5)
        rows[3]["post"] = " " if split == name else "It came back."
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=f"row 3 of {folder}{said}: post must be text"):
        load_tldr(str(folder))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_null_title_or_subreddit_is_an_empty_one(suffix: str, write: Callable[..., str]) -> None:
    rows = [{**POST, "title": None}, {**POST, "subreddit": None}, POST]
    data = load_tldr(write(rows, suffix))
    prompts = {*data.demonstrations["prompt"], *data.validation["prompt"]}
    assert prompts == {QUERY, QUERY.replace("My cat", ""), QUERY.replace("pets", "")}


@pytest.fixture
def few_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORLD_SIZES, "tiny", {"demonstrations": 6, "prompts": 5, "validation": 3})


@pytest.mark.usefixtures("few_posts")
def test_the_world_has_the_promised_splits_that_share_no_post() -> None:
    data = load_tldr(scale="tiny")
    assert data.held_out is not None
    parts = [data.demonstrations, data.prompts, data.validation, data.held_out]
    assert [len(part) for part in parts] == [6, 5, 3, 3]
    assert len({prompt for part in parts for prompt in part["prompt"]}) == 17
    for part in parts:
        assert all(prompt.endswith("\n\nTL;DR:") for prompt in part["prompt"])
        assert all(text == f" {text.strip()}" for text in part["completion"])


@pytest.mark.usefixtures("few_posts")
def test_the_seed_draws_the_world() -> None:
    first, again, other = (load_tldr(scale="tiny", seed=seed).validation["prompt"][:] for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other)


def test_pretraining_texts_are_queries_with_an_answer() -> None:
    texts = pretraining_texts(20, seed=1)
    assert texts[:5] == pretraining_texts(5, seed=1)
    assert texts[:5] != pretraining_texts(5, seed=2)
    assert all(text.partition("\n\nTL;DR:")[2].startswith(" ") for text in texts)


@pytest.mark.parametrize("suffix", FORMATS)
def test_preferences_in_trl_s_columns(suffix: str, write: Callable[..., str]) -> None:
    """As in trl-lib/tldr-preference and CarperAI/openai_summarize_comparisons; other columns stay."""
    rows = load_comparisons(write([{**PREFERENCE, "rejected": "A pet. ", "labeler": "ann", "confidence": 4}], suffix))
    assert rows[0] == {**PREFERENCE, **PLAIN, "labeler": "ann", "confidence": 4}


@pytest.mark.parametrize("suffix", FORMATS)
def test_preferences_without_further_fields(suffix: str, write: Callable[..., str]) -> None:
    assert load_comparisons(write([PREFERENCE], suffix))[0] == {**PREFERENCE, **PLAIN}


SOFT = {
    "all": ([0.5, 0.75, 1.0], [0.5, 0.75, 1.0]),
    "whole": ([1, 1, 1], [1.0, 1.0, 1.0]),
    "mixed": ([1, 0.625, 1], [1.0, 0.625, 1.0]),
    "gaps": ([None, 0.625, None], [1.0, 0.625, 1.0]),
    "gaps among whole": ([None, 1, 1], [1.0, 1.0, 1.0]),
    "nulls": ([None, None, None], [1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_soft_labels_are_read_as_numbers(suffix: str, name: str, write: Callable[..., str]) -> None:
    """Also where all are whole numbers, and where a null, which is a plain label, is among them."""
    given, expected = SOFT[name]
    rows = [{**PREFERENCE, "chosen_prob": prob} for prob in given]
    read = load_comparisons(write(rows, suffix)) if suffix else comparisons_of(rows)
    assert read["chosen_prob"][:] == expected
    assert all(type(prob) is float for prob in read["chosen_prob"])


GROUPS = {
    "texts": (["ann/1", "ann/1", "bob/1"], ["ann/1", "ann/1", "bob/1"]),
    "gaps": (["ann/1", None, ""], ["ann/1", "", ""]),
    "numbers": ([1, 1, 2], ["1", "1", "2"]),
    "gaps among numbers": ([1, None, 2], ["1", "", "2"]),
    "nulls": ([None, None, None], ["", "", ""]),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_groups_are_read_as_text(suffix: str, name: str, write: Callable[..., str]) -> None:
    """A CSV cannot say that 1 is text, and has 1.0 where the column has gaps."""
    given, expected = GROUPS[name]
    rows = [{**PREFERENCE, "group": group} for group in given]
    read = load_comparisons(write(rows, suffix)) if suffix else comparisons_of(rows)
    assert read["group"][:] == expected


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_null_labeler_or_confidence_was_not_asked(suffix: str, write: Callable[..., str]) -> None:
    """Nulls turn a CSV's column of whole numbers into one of floats; the confidence is a whole number all the same."""
    known = [{"labeler": "ann", "confidence": 4}, {"labeler": None, "confidence": None}]
    rows = load_comparisons(write([PREFERENCE | entry for entry in known], suffix))
    assert [Comparison.from_dict(row) for row in rows] == [
        Comparison(**PREFERENCE, labeler="ann", confidence=4),
        Comparison(**PREFERENCE, labeler="", confidence=0),
    ]
    assert all(type(confidence) is int for confidence in rows["confidence"])


def test_columns_of_nulls_only_were_not_asked() -> None:
    rows = comparisons_of([{**PREFERENCE, "labeler": None, "confidence": None}])
    assert rows[0] == {**PREFERENCE, **PLAIN}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_openai_s_schema_becomes_trl_s(suffix: str, write: Callable[..., str]) -> None:
    rows = load_comparisons(write([OPENAI, {**OPENAI, "choice": 0, "extra": {"confidence": 1}}], suffix))
    assert rows[0] == {**PREFERENCE, **PLAIN, "labeler": "ikNm", "confidence": 3}
    swapped = {"prompt": QUERY, "chosen": " A pet.", "rejected": " My cat is gone."}
    assert rows[1] == {**swapped, **PLAIN, "labeler": "ikNm", "confidence": 4}


@pytest.mark.parametrize(
    ("given", "folded"), [(1, 4), (2, 3), (3, 2), (4, 1), (6, 1), (7, 2), (8, 3), (9, 4), (None, 0)]
)
def test_nine_points_of_confidence_are_folded(given: int | None, folded: int) -> None:
    row = {**OPENAI, "choice": 0 if (given or 9) < 5 else 1, "extra": {"confidence": given}}
    assert comparisons_of([row])[0]["confidence"] == folded


@pytest.mark.parametrize("choice", [0, 1])
def test_undecided_goes_with_either_choice_and_is_not_the_same_as_not_asked(choice: int) -> None:
    comparison = comparisons_of([{**OPENAI, "choice": choice, "extra": {"confidence": 5}}])[0]
    assert comparison["confidence"] == 1
    assert comparison["chosen"] == OPENAI["summaries"][choice]["text"]


@pytest.mark.parametrize("row", [without(OPENAI, "extra"), {**OPENAI, "extra": None}, {**OPENAI, "worker": None}])
def test_openai_rows_may_lack_confidence_and_worker(row: Row) -> None:
    comparison = comparisons_of([row])[0]
    assert comparison["chosen"] == " My cat is gone."
    assert comparison["confidence"] == (3 if row.get("extra") else 0)
    assert comparison["labeler"] == (row["worker"] or "")


def test_news_articles_of_openai_s_data_are_posts_without_a_title() -> None:
    info = {"id": "1", "post": None, "title": None, "subreddit": None, "site": "cnn", "article": "It left."}
    prompt = comparisons_of([{**OPENAI, "info": info}])[0]["prompt"]
    assert prompt == "SUBREDDIT: r/\n\nTITLE: \n\nPOST: It left.\n\nTL;DR:"


def test_records_and_dicts_are_rows_too() -> None:
    for comparison in (
        Comparison(prompt="p", chosen=" a", rejected=" b"),
        Comparison(prompt="p", chosen=" a", rejected=" b", labeler="ann", confidence=1, chosen_prob=0.6, group="ann/1"),
    ):
        assert comparisons_of([comparison])[0] == comparison.to_dict()
        assert Comparison.from_json(comparison.to_json()) == comparison
    demonstration = Demonstration(prompt="p", completion=" a")
    assert demonstrations_of([demonstration])[0] == demonstrations_of([demonstration.to_dict()])[0]
    assert demonstrations_of([demonstration])[0] == demonstration.to_dict()


def test_prompts_may_be_texts_records_or_a_dataset() -> None:
    prompt = Prompt(subreddit="pets", title="My cat", post="It left.")
    assert prompts_of([prompt, "a text"]) == [QUERY, "a text"]
    assert prompts_of(Dataset.from_list([{"prompt": "a text"}])) == ["a text"]
    with pytest.raises(ValueError, match="there are no prompts; give at least one"):
        prompts_of([])
    with pytest.raises(ValueError, match="prompt must be text that is not empty, not ' '"):
        prompts_of(["a text", " "])


@pytest.mark.parametrize(
    ("row", "missing", "found"),
    [
        (renamed(POST, "summary", "sumary"), "summary", "subreddit, title, post, sumary"),
        (renamed(POST, "post", "text"), "post", "subreddit, title, text, summary"),
        (without(POST, "title"), "title", "subreddit, post, summary"),
        ({"prompt": QUERY, "completon": " a"}, "completion", "prompt, completon"),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_column_of_posts_is_named(
    row: Row, missing: str, found: str, suffix: str, write: Callable[..., str]
) -> None:
    path = write([row] * 3, suffix)
    with pytest.raises(ValueError, match=f"has no column '{missing}'; it has {found}") as caught:
        load_tldr(path)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        (renamed(PREFERENCE, "chosen", "choosen"), "chosen"),
        (without(PREFERENCE, "rejected"), "rejected"),
        (without(PREFERENCE, "prompt"), "prompt"),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_column_of_comparisons_is_named(
    row: Row, missing: str, suffix: str, write: Callable[..., str]
) -> None:
    path = write([row], suffix)
    with pytest.raises(ValueError, match=f"has no column '{missing}'; it has {', '.join(row)}") as caught:
        load_comparisons(path)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["promt", "completion"], "no column 'prompt'; it has promt, completion; did you mean promt?"),
        (["promt", "summary"], "no column 'prompt'; it has promt, summary; did you mean promt?"),
        (["Prompt", "label"], "no column 'prompt'; it has Prompt, label; did you mean Prompt?"),
        (["prompt", "completon"], "no column 'completion'; it has prompt, completon; did you mean completon?"),
        (["prompt", "sumary"], "no column 'summary'; it has prompt, sumary; did you mean sumary?"),
        (
            ["subreddit", "title", "pots", "summary"],
            "'post'; it has subreddit, title, pots, summary; did you mean pots?",
        ),
        (
            ["subredit", "titel", "post", "summary"],
            "'subreddit'; it has subredit, titel, post, summary; did you mean sub",
        ),
        (["question", "answer"], "no column 'prompt'; it has question, answer."),
    ],
)
def test_a_misspelt_column_of_demonstrations_is_guessed(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        demonstrations_of([dict.fromkeys(names, "a")])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (renamed(PREFERENCE, "prompt", "promt"), "'prompt'; it has promt, chosen, rejected; did you mean promt?"),
        (renamed(PREFERENCE, "chosen", "choosen"), "'chosen'; it has prompt, choosen, rejected; did you mean choosen?"),
        ({**renamed(PREFERENCE, "prompt", "promt"), "choice": 0}, "no column 'prompt'; it has promt, chosen,"),
        (without(PREFERENCE, "prompt"), "no column 'prompt'; it has chosen, rejected."),
        ({"text": "a"}, "no column 'prompt'; it has text."),
        ({name: OPENAI[name] for name in ("info", "summaries")}, "no column 'choice'; it has info, summaries."),
        (renamed(OPENAI, "choice", "choise"), "did you mean choise?"),
    ],
)
def test_a_misspelt_column_of_comparisons_is_guessed(row: Row, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        comparisons_of([row])


def test_columns_beside_the_schema_do_not_matter() -> None:
    """Every schema is known by its own columns, whatever others are like them."""
    assert demonstrations_of([{**POST, "prompts": "a", "label": "b"}])[0]["prompt"] == QUERY
    assert demonstrations_of([{"prompt": "p", "label": "a", "completions": "b"}])[0]["completion"] == " a"
    assert comparisons_of([{**OPENAI, "chosen": "a", "rejected": "b"}])[0]["prompt"] == QUERY


BAD_COMPARISONS = {
    "chosen and rejected alike": ({**PREFERENCE, "rejected": PREFERENCE["chosen"]}, "are the same text.*drop it"),
    "alike but for white space": ({**PREFERENCE, "rejected": "My cat is gone.  "}, "are the same text.*drop it"),
    "empty chosen": ({**PREFERENCE, "chosen": ""}, "chosen must be text that is not empty, not ''; remove the row"),
    "blank rejected": ({**PREFERENCE, "rejected": "\n "}, r"rejected must be text that is not empty, not '\\n '"),
    "absent rejected": ({**PREFERENCE, "rejected": None}, "rejected must be text that is not empty, not None"),
    "blank prompt": ({**PREFERENCE, "prompt": "  "}, "prompt must be text that is not empty, not '  '"),
    "messages": (
        {**PREFERENCE, "chosen": [{"role": "user", "content": "a"}]},
        r"chosen must be text .* not \[\{'role'",
    ),
    "confidence 5": ({**PREFERENCE, "confidence": 5}, r"confidence must be 0 \(not asked\) or 1 to 4, not 5"),
    "confidence -1": ({**PREFERENCE, "confidence": -1}, r"confidence must be 0 \(not asked\) or 1 to 4, not -1"),
    "an unlikely choice": ({**PREFERENCE, "chosen_prob": 0.25}, "chosen_prob must be .* not 0.25; .* swap the two"),
    "more than sure": (
        {**PREFERENCE, "chosen_prob": 1.5},
        r"chosen_prob must be a number from 0.5 .* to 1 .*, not 1.5",
    ),
    "a percentage": ({**PREFERENCE, "chosen_prob": 75}, "chosen_prob must be .* not 75"),
    "no number": ({**PREFERENCE, "chosen_prob": math.nan}, "chosen_prob must be .* not nan; leave it out for a plain"),
    "prob is text": ({**PREFERENCE, "chosen_prob": "0.7"}, "chosen_prob must be .* not '0.7'"),
    "prob is a truth": ({**PREFERENCE, "chosen_prob": True}, "chosen_prob must be .* not True"),
    "group is a truth": (
        {**PREFERENCE, "group": True},
        "group must be text .* not True; write the group's name as text",
    ),
    "group is a list": ({**PREFERENCE, "group": ["ann"]}, r"group must be text .* not \['ann'\]"),
    "group is no number": ({**PREFERENCE, "group": math.nan}, "group must be text .* not nan"),
    "group is a fraction": ({**PREFERENCE, "group": 1.5}, "group must be text .* not 1.5"),
    "choice 2": ({**OPENAI, "choice": 2}, "choice must be 0 or 1, not 2"),
    "choice -1": ({**OPENAI, "choice": -1}, "choice must be 0 or 1, not -1"),
    "no choice": ({**OPENAI, "choice": None}, "choice must be 0 or 1, not None"),
    "confidence 0 of 9": ({**OPENAI, "extra": {"confidence": 0}}, "confidence must be 1 to 9, not 0"),
    "confidence 10 of 9": ({**OPENAI, "extra": {"confidence": 10}}, "confidence must be 1 to 9, not 10"),
    "summaries alike": ({**OPENAI, "summaries": OPENAI["summaries"][:1] * 2}, "are the same text.*drop it"),
    "blank summary": ({**OPENAI, "summaries": [{"text": " "}, {"text": "a"}]}, "summary must be text .* not ' '"),
    "one summary": ({**OPENAI, "summaries": OPENAI["summaries"][:1]}, "a choice needs two summaries, not 1; mend or"),
    "three summaries": ({**OPENAI, "summaries": OPENAI["summaries"] + [{"text": "b"}]}, "needs two summaries, not 3"),
    "no summaries": ({**OPENAI, "summaries": None}, "a choice needs two summaries, not 0"),
    "absent summary": ({**OPENAI, "summaries": [None, {"text": "a"}]}, "summary must be text .* not None"),
    "blank post": ({**OPENAI, "info": {**OPENAI["info"], "post": " "}}, "post must be text that is not empty, not ' '"),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_a_comparison_that_cannot_be_meant_is_refused_with_its_row(name: str) -> None:
    bad, message = BAD_COMPARISONS[name]
    good = OPENAI if "choice" in bad else PREFERENCE
    first = {**good, **{key: None if key in ("chosen_prob", "group") else 0 for key in bad if key not in good}}
    rows = [bad] if name == "messages" else [first, bad]  # A column has one type.
    with pytest.raises(ValueError, match=f"row {len(rows) - 1} of some.jsonl: .*{message}"):
        comparisons_of(rows, source="some.jsonl")


@pytest.mark.parametrize("prob", [0.25, 1.01, math.nan, math.inf, -0.6])
def test_a_record_refuses_a_chosen_prob_out_of_its_range(prob: float) -> None:
    with pytest.raises(ValueError, match=f"chosen_prob must be a number from 0.5 .* to 1 .*, not {prob}; leave it out"):
        Comparison(**PREFERENCE, chosen_prob=prob)


@pytest.mark.parametrize("value", [True, False, "0.7", None, [0.7], math.nan])
def test_a_chosen_prob_is_a_number(value: object) -> None:
    """Type checks, which are on in tests only, would stop a record of these before its own check."""
    with pytest.raises(ValueError, match=re.escape(f"not {value!r}; leave it out for a plain label")):
        require_chosen_prob(value)
    assert [require_chosen_prob(given) for given in (1, 0.5, 0.75)] == [1.0, 0.5, 0.75]


@pytest.mark.parametrize("value", [3, None, True, ["ann"]])
def test_a_group_is_text(value: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"not {value!r}; write the group's name as text")):
        require_group(value)
    assert [require_group(given) for given in ("", "ann/1")] == ["", "ann/1"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"summaries": [{"policy": "ref"}, {"policy": "sup4"}]}, "summary must be text that is not empty, not None"),
        ({"info": without(OPENAI["info"], "subreddit")}, "info has no field 'subreddit'; it has id, post, title"),
        ({"info": renamed(OPENAI["info"], "title", "titel")}, "info has no field 'title'; .*; did you mean titel?"),
        ({"info": without(OPENAI["info"], "post")}, "info has no field 'post'; it has id, title, subreddit"),
        ({"info": None}, "info has no field 'subreddit'; it has none"),
    ],
)
def test_a_field_that_openai_s_rows_lack_is_named_with_the_row(bad: Row, message: str) -> None:
    with pytest.raises(ValueError, match=f"row 0 of some.jsonl: {message}"):
        comparisons_of([{**OPENAI, **bad}], source="some.jsonl")


def test_news_need_no_fields_of_posts() -> None:
    info = {"id": "1", "site": "cnn", "article": "It left."}
    assert comparisons_of([{**OPENAI, "info": info}])[0]["prompt"].endswith("POST: It left.\n\nTL;DR:")


BAD_DEMONSTRATIONS = {
    "empty post": ({**POST, "post": ""}, "post must be text that is not empty, not ''; remove the row or fill it in"),
    "blank post": ({**POST, "post": " \n"}, r"post must be text that is not empty, not ' \\n'"),
    "absent post": ({**POST, "post": None}, "post must be text that is not empty, not None"),
    "blank summary": ({**POST, "summary": " "}, "summary must be text that is not empty, not ' '"),
    "blank prompt": ({"prompt": " ", "completion": "a"}, "prompt must be text that is not empty, not ' '"),
    "absent completion": ({"prompt": "p", "completion": None}, "summary must be text that is not empty, not None"),
}


@pytest.mark.parametrize("name", BAD_DEMONSTRATIONS)
def test_a_demonstration_that_cannot_be_meant_is_refused_with_its_row(name: str) -> None:
    bad, message = BAD_DEMONSTRATIONS[name]
    good = {"prompt": "p", "completion": "a"} if "prompt" in bad else POST
    with pytest.raises(ValueError, match=f"row 1 of some.jsonl: {message}"):
        demonstrations_of([good, bad], source="some.jsonl")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_blank_post_anywhere_in_a_file_is_found(suffix: str, write: Callable[..., str]) -> None:
    path = write([*posts(5), {**POST, "post": "  "}, *posts(5)], suffix)
    with pytest.raises(ValueError, match="post must be text that is not empty, not '  '; remove the row or fill") as it:
        load_tldr(path)
    assert path in str(it.value)


def test_a_summary_that_is_a_number_is_refused(write: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="summary must be text that is not empty, not 3"):
        load_tldr(write([{**POST, "summary": 3}] * 3))


@pytest.mark.parametrize("load", [load_tldr, load_comparisons])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_without_content_is_refused(load: Callable[[str], Any], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    path.touch()
    with pytest.raises(ValueError, match="is empty; give at least one row") as caught:
        load(str(path))
    assert str(path) in str(caught.value)


def test_a_dataset_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="the dataset is empty; give at least one row"):
        demonstrations_of(Dataset.from_dict({"prompt": [], "completion": []}))
    with pytest.raises(ValueError, match="the dataset is empty; give at least one row"):
        comparisons_of(Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []}))
    with pytest.raises(ValueError, match="the dataset is empty; give at least one row"):
        comparisons_of(Dataset.from_dict({"info": [], "summaries": [], "choice": []}))


@pytest.mark.parametrize("make", [demonstrations_of, comparisons_of])
def test_no_rows_at_all_are_refused(make: Callable[[list[Row]], Dataset]) -> None:
    with pytest.raises(ValueError, match="the dataset is empty; give at least one row"):
        make([])


NO_ROWS = {
    "header.csv": "prompt,completion\n",
    "header_and_blank_lines.csv": "prompt,completion\n\n \n",
    "blank.csv": "\n\n",
    "blank.jsonl": "\n \n\n",
    "list.json": "[]",
    "long_list.json": "[\n\n  ]\n",
}


@pytest.mark.parametrize("load", [load_tldr, load_comparisons])
@pytest.mark.parametrize("name", NO_ROWS)
def test_a_file_without_rows_is_refused(load: Callable[[str], Any], name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(NO_ROWS[name])
    with pytest.raises(ValueError, match=rf"the file .*{name} has no rows or is empty; give at least one row"):
        load(str(tmp_path / name))


@pytest.mark.parametrize("load", [load_tldr, load_comparisons])
def test_parquet_without_rows_is_refused(load: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(ValueError, match=r"rows.parquet has no rows or is empty; give at least one row"):
        load(str(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_one_row_has_rows(suffix: str, write: Callable[..., str]) -> None:
    assert len(load_comparisons(write([PREFERENCE], suffix))) == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_suffix_may_be_in_capitals(suffix: str, write: Callable[..., str]) -> None:
    path = Path(write([PREFERENCE], suffix))
    rows = load_comparisons(str(path.rename(path.with_suffix(suffix.upper()))))
    assert rows["chosen"][:] == [PREFERENCE["chosen"]]


def test_the_world_has_no_comparisons_to_load() -> None:
    with pytest.raises(
        ValueError, match=r"the world's comparisons are not stored: simulated_labels\(policy, prompts\)"
    ):
        load_comparisons("world")


def test_one_row_cannot_be_split(write: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"has 1 row\(s\); training and validation need at least 2"):
        load_tldr(write([POST]))


@pytest.mark.parametrize("load", [load_tldr, load_comparisons])
def test_a_file_that_does_not_exist_is_refused(load: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the file .*nowhere\.jsonl does not exist; check the path"):
        load(str(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize(("suffix", "kind"), [(".jsonl", "JSONL"), (".parquet", "PARQUET")])
def test_a_file_that_is_not_what_its_name_says_is_refused(suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("{this is neither")
    with pytest.raises(ValueError, match=f"could not be read as {kind}") as caught:
        load_comparisons(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("load", "source"),
    [
        (load_tldr, "trl-lib/tldr"),
        (load_comparisons, "trl-lib/tldr-preference"),
        (load_comparisons, "openai/summarize_from_feedback"),
    ],
)
def test_an_id_of_the_hub_without_a_network_is_one_clear_error(load: Callable[[str], Any], source: str) -> None:
    with pytest.raises(ValueError, match=r"check the id and the network, or give a local file") as caught:
        load(source)
    assert repr(source) in str(caught.value)


def test_a_split_that_a_file_does_not_have_is_refused(write: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="has no split 'valid1'; it has train"):
        load_comparisons(write([PREFERENCE]), split="valid1")


def test_a_dataset_of_the_hub_without_a_train_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = {"test": datasets.Dataset.from_list([POST])}
    monkeypatch.setattr("rlhf_lab.data.datasets.load_dataset", lambda _: hub)
    with pytest.raises(ValueError, match="someone/posts has no split 'train'; it has test"):
        load_tldr("someone/posts")


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale 'big' is unknown; choose one of tiny, laptop, gpu"):
        load_tldr(scale="big")
