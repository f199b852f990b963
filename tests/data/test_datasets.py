"""The task's rows from files in the schemas that real data has, and what is said about files that cannot be meant."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from datasets.fingerprint import generate_random_fingerprint

from rlhf_lab.data.datasets import (
    WORLD_SIZES,
    comparisons_of,
    demonstrations_of,
    load_comparisons,
    load_tldr,
    pretraining_texts,
    prompts_of,
)
from rlhf_lab.records import Comparison, Demonstration, Prompt

Row = dict[str, Any]
FORMATS = [".jsonl", ".json", ".csv", ".parquet"]
QUERY = "SUBREDDIT: r/pets\n\nTITLE: My cat\n\nPOST: It left.\n\nTL;DR:"
POST: Row = {"subreddit": "pets", "title": "My cat", "post": "It left.", "summary": "My cat is gone. "}
PREFERENCE: Row = {"prompt": QUERY, "chosen": " My cat is gone.", "rejected": " A pet."}
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
    """Files go to the test's folder. No fingerprints: to pickle functions that the tests' type checks wrap is slow."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.arrow_dataset, "update_fingerprint", lambda *_: generate_random_fingerprint())


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
    assert rows[0] == {**PREFERENCE, "labeler": "ann", "confidence": 4}


def test_preferences_without_labeler_or_confidence(write: Callable[..., str]) -> None:
    assert load_comparisons(write([PREFERENCE]))[0] == {**PREFERENCE, "labeler": "", "confidence": 0}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_openai_s_schema_becomes_trl_s(suffix: str, write: Callable[..., str]) -> None:
    rows = load_comparisons(write([OPENAI, {**OPENAI, "choice": 0, "extra": {"confidence": 1}}], suffix))
    assert rows[0] == {**PREFERENCE, "labeler": "ikNm", "confidence": 3}
    assert rows[1] == {
        "prompt": QUERY,
        "chosen": " A pet.",
        "rejected": " My cat is gone.",
        "labeler": "ikNm",
        "confidence": 4,
    }


@pytest.mark.parametrize(
    ("given", "folded"), [(1, 4), (2, 3), (3, 2), (4, 1), (6, 1), (7, 2), (8, 3), (9, 4), (None, 0)]
)
def test_nine_points_of_confidence_are_folded(given: int | None, folded: int) -> None:
    row = {**OPENAI, "choice": 0 if (given or 9) < 5 else 1, "extra": {"confidence": given}}
    assert comparisons_of([row])[0]["confidence"] == folded


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
    comparison = Comparison(prompt="p", chosen=" a", rejected=" b")
    assert comparisons_of([comparison])[0] == comparison.to_dict()
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
    "choice 2": ({**OPENAI, "choice": 2}, "choice must be 0 or 1, not 2"),
    "choice -1": ({**OPENAI, "choice": -1}, "choice must be 0 or 1, not -1"),
    "no choice": ({**OPENAI, "choice": None}, "choice must be 0 or 1, not None"),
    "confidence 0 of 9": ({**OPENAI, "extra": {"confidence": 0}}, "confidence must be 1 to 9, not 0"),
    "confidence 10 of 9": ({**OPENAI, "extra": {"confidence": 10}}, "confidence must be 1 to 9, not 10"),
    "summaries alike": ({**OPENAI, "summaries": OPENAI["summaries"][:1] * 2}, "are the same text.*drop it"),
    "blank summary": ({**OPENAI, "summaries": [{"text": " "}, {"text": "a"}]}, "summary must be text .* not ' '"),
    "blank post": ({**OPENAI, "info": {**OPENAI["info"], "post": " "}}, "post must be text that is not empty, not ' '"),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_a_comparison_that_cannot_be_meant_is_refused_with_its_row(name: str) -> None:
    bad, message = BAD_COMPARISONS[name]
    good = OPENAI if "choice" in bad else PREFERENCE
    first = {**good, **{key: 0 for key in bad if key not in good}}
    rows = [bad] if name == "messages" else [first, bad]  # A column has one type.
    with pytest.raises(ValueError, match=f"row {len(rows) - 1} of some.jsonl: .*{message}"):
        comparisons_of(rows, source="some.jsonl")


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


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale 'big' is unknown; choose one of tiny, laptop, gpu"):
        load_tldr(scale="big")
