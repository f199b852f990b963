"""The authored posts: what the datasheet says of them, and clear errors for files that are none."""

import json
from collections import Counter
from pathlib import Path

import pytest

from rlhf_lab.data.authored import KINDS, AuthoredPost, authored_pairs, better_kind, load_authored

POSTS = load_authored()


def num_words(text: str) -> int:
    return len(text.split())


def test_there_are_enough_and_half_are_about_relationships() -> None:
    assert len(POSTS) == 128
    subreddits = Counter(post.subreddit for post in POSTS)
    assert 0.4 <= subreddits["relationships"] / len(POSTS) <= 0.6
    assert len(subreddits) >= 12
    assert len({post.title for post in POSTS}) == len({post.post for post in POSTS}) == len(POSTS)


@pytest.mark.parametrize("post", POSTS, ids=lambda post: post.id)
def test_each_post_keeps_the_rules(post: AuthoredPost) -> None:
    assert 100 <= num_words(post.post) <= 300 and 5 <= num_words(post.title) <= 20
    assert (post.post + post.title).isascii() and "TL;DR" not in post.post
    by_kind = {candidate.kind: candidate for candidate in post.candidates}
    lengths = {kind: num_words(candidate.text) for kind, candidate in by_kind.items()}
    allowed = {"faithful": (20, 40), "verbose": (60, 110), "off_topic": (15, 40)}
    for kind, length in lengths.items():
        least, most = allowed.get(kind, (20, 45))
        assert least <= length <= most, (kind, length)
    if "verbose" in lengths:
        assert lengths["verbose"] >= 1.8 * lengths["faithful"]
    for kind in ("invented", "confident"):
        if kind in by_kind:
            assert by_kind[kind].mark in by_kind[kind].text and by_kind[kind].mark not in post.post


def test_the_kinds_are_balanced() -> None:
    counts = Counter(candidate.kind for post in POSTS for candidate in post.candidates)
    assert counts.pop("faithful") == 128
    assert set(counts) == set(KINDS) - {"faithful"} and all(76 <= count <= 80 for count in counts.values())


def test_the_key_has_no_contradiction() -> None:
    for one in KINDS:
        for other in KINDS:
            first, second = better_kind(one, other), better_kind(other, one)
            assert (first, second) in ((None, None), (0, 1), (1, 0))
    assert better_kind("faithful", "verbose") is None


def test_pairs_know_which_is_better_and_ask_some_as_gold() -> None:
    rows = authored_pairs(POSTS, num_gold=10)
    assert len(rows) == 128 * 6 and len({row["id"] for row in rows}) == len(rows)
    golds = [row for row in rows if row["gold"] is not None]
    assert len(golds) == 10 and all(row["gold"] == 0 and row["sources"][0] == "faithful" for row in golds)
    assert all(row["info"]["key"] == better_kind(*row["sources"]) for row in rows)
    assert authored_pairs(POSTS, num_gold=10) == rows != authored_pairs(POSTS, num_gold=10, seed=1)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no \.jsonl files"):
        load_authored(tmp_path)
    good = {"id": "x", "subreddit": "s", "title": "t", "post": "a b c"}
    kinds = [{"kind": "faithful", "text": "f"}, {"kind": "verbose", "text": "v"}, {"kind": "copied", "text": "a b"}]
    good["candidates"] = [*kinds, {"kind": "invented", "text": "i j", "mark": "j"}]
    file = tmp_path / "posts.jsonl"
    file.write_text(json.dumps(good) + "\n")
    assert load_authored(tmp_path)[0].id == "x"
    wrong = {
        "not the opening": good | {"candidates": [*kinds[:2], {"kind": "copied", "text": "b"}, good["candidates"][3]]},
        "faithful candidate and three": good | {"candidates": kinds},
        "does not occur": good | {"candidates": [*kinds, {"kind": "invented", "text": "i", "mark": "z"}]},
        "has the mark ''": good | {"candidates": [*kinds, {"kind": "invented", "text": "i"}]},
        "kind is one of": good | {"candidates": [*kinds, {"kind": "odd", "text": "i"}]},
        "title": good | {"title": ""},
        "comes twice": good,
    }
    for message, row in wrong.items():
        file.write_text(json.dumps(good) + "\n" + json.dumps(row | ({} if row is good else {"id": "y"})) + "\n")
        with pytest.raises(ValueError, match=rf"line 2 of .*{message}"):
            load_authored(tmp_path)
    file.write_text("not json\n")
    with pytest.raises(ValueError, match="line 1 of"):
        load_authored(tmp_path)
