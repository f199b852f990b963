"""Simulated people: they answer through the store as people would, by their tastes, the same every time."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_lab.data import authored
from rlhf_lab.data.authored import AuthoredPost, Candidate, authored_pairs
from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.world import CARELESS, FAITHFUL, World
from rlhf_lab.feedback import VALUES, Labeler, Population, population
from rlhf_lab.labeling import writing
from rlhf_lab.labeling.edits import apply_spans
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.people import judgement_of, simulated_people
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore

pytestmark = pytest.mark.usefixtures("one_thread")
CANDIDATES = (
    Candidate(kind="faithful", text="My cat left me for the neighbors on Monday. How do I get her back?"),
    Candidate(kind="invented", text="My cat left me, as she did in spring. How?", mark=", as she did in spring"),
    Candidate(
        kind="verbose", text="I have a cat, whom I love very much, and she left me. " * 5 + "How do I get her back?"
    ),
    Candidate(kind="confident", text="My cat died on Monday. How do I bury her?", mark="died"),
)


def posts(number: int) -> list[AuthoredPost]:
    text = "My cat left me for the neighbors. It was on Monday. I do not know how to get her back."
    known = {"subreddit": "pets", "title": "My cat", "post": text}
    return [
        AuthoredPost(id=f"post-{i}", **known | {"title": f"My cat {i}"}, candidates=CANDIDATES) for i in range(number)
    ]


def world_rows(num_posts: int, num_answers: int, seed: int = 0) -> list[dict[str, Any]]:
    """Posts of the world with a faithful summary and careless ones."""
    world, rows = World(), []
    for index, post in enumerate(world.posts(seed, "people", num_posts)):
        rng = random.Random(f"{seed}/{index}")
        texts = [completion_text(world.summary(rng, post, FAITHFUL))]
        while len(texts) < num_answers:
            text = completion_text(world.summary(rng, post, CARELESS))
            texts += [text] * (text not in texts)
        rows.append({"prompt": post.query, "answers": texts})
    return rows


def steady(**tastes: float) -> Population:
    """One person whose noise is all but nothing."""
    axes = {"overall": 1.0}
    return Population((Labeler(id="steady", axes=axes, tastes=tastes, noise=1e-6),))


def liked(label: dict[str, Any]) -> int:
    """Index of the answer that a comparison prefers."""
    return int(label["value"]["step"] > label["value"]["scale"] / 2)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "store.sqlite")


@pytest.mark.parametrize("values", [name for name in VALUES if name != "impressed"])
def test_the_key_decides_what_a_crowd_thinks_of_authored_summaries(values: str) -> None:
    """Where `better_kind` says who is better, the mean person of every group agrees who looks whether it is true."""
    people = population(values, num_labelers=40)
    (post,) = posts(1)
    item = Item(
        prompt=post.query,
        answers=tuple(one.text for one in CANDIDATES),
        sources=tuple(one.kind for one in CANDIDATES),
        kind="rank",
    )
    judgements = [judgement_of(people, item, place) for place in range(4)]
    liking = [np.mean([one.utility(judgement) for one in people.labelers]) for judgement in judgements]
    decided = 0
    for one, other in itertools.combinations(range(4), 2):
        key = authored.better_kind(CANDIDATES[one].kind, CANDIDATES[other].kind)
        if key is not None and not {"verbose"} & {CANDIDATES[one].kind, CANDIDATES[other].kind}:
            assert (liking[other] > liking[one]) == bool(key)
            decided += 1
    assert decided == 2


def test_grades_of_kinds_follow_the_key() -> None:
    """Every kind that beats another is graded above it; these are 4 + 3/4 (wins - losses)."""
    item = Item(prompt="P", answers=tuple(authored.KINDS), sources=tuple(authored.KINDS), kind="rank")
    overall = {kind: judgement_of(steady(), item, place).overall for place, kind in enumerate(authored.KINDS)}
    assert overall["faithful"] == 7.0  # beats 4
    assert overall["verbose"] == 6.25  # beats 3
    assert overall["copied"] == 4.0  # beats 1, is beaten by 1
    assert overall["confident"] == 1.75  # is beaten by 3
    for better, worse in authored.BETTER.items():
        assert all(overall[better] > overall[other] for other in worse)


@pytest.mark.parametrize("scale", [8, 9])
def test_who_is_steady_chooses_what_they_like(store: LabelStore, scale: int) -> None:
    store.add_items(world_rows(20, 2))
    people = steady()
    assert simulated_people(store, "compare", people, scale=scale, temperature=1.0) == 20
    for label in store.labels():
        grades = people.judge([label["prompt"]] * 2, label["answers"])
        assert label["value"]["scale"] == scale
        if grades[0] != grades[1]:
            assert liked(label) == int(grades[1] > grades[0])
            assert label["value"]["step"] in (1, scale)  # Nothing but certainty.
        assert (label["labeler_kind"], label["interface"]) == ("simulated", "simulated")


def test_two_who_agree_at_the_populations_rate(store: LabelStore) -> None:
    """Overlap of 2: of 300 items that two of them answered, they agree on about 73 %."""
    store = LabelStore(store.where, overlap=2)
    store.add_items(world_rows(300, 2))
    simulated_people(store, "compare", population(num_labelers=6))
    by_item: dict[str, list[int]] = {}
    for label in store.labels():
        by_item.setdefault(label["item"], []).append(liked(label))
    assert {len(said) for said in by_item.values()} == {2}
    assert np.mean([one == other for one, other in by_item.values()]) == pytest.approx(0.73, abs=0.08)


def test_everybody_gets_their_share(store: LabelStore) -> None:
    store.add_items(world_rows(30, 2))
    simulated_people(store, "compare", population(num_labelers=4))
    assert sorted(Counter(label["labeler"] for label in store.labels()).values()) == [7, 7, 8, 8]


def test_what_is_cut_short_continues_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, crowd = world_rows(24, 2), population(num_labelers=4)

    def said(store: LabelStore) -> list[tuple[Any, ...]]:
        names = ("item", "labeler", "value", "seconds", "sides")
        return [tuple(label[name] for name in names) for label in store.labels()]

    whole = LabelStore(tmp_path / "whole.sqlite")
    whole.add_items(rows)
    assert simulated_people(whole, "compare", crowd) == 24

    cut = LabelStore(tmp_path / "cut.sqlite")
    cut.add_items(rows)
    record, times = LabelStore.record, itertools.count()

    def failing(self: LabelStore, *arguments: Any, **known: Any) -> None:
        if next(times) == 9:
            raise KeyboardInterrupt
        record(self, *arguments, **known)

    monkeypatch.setattr(LabelStore, "record", failing)
    with pytest.raises(KeyboardInterrupt):
        simulated_people(cut, "compare", crowd)
    assert len(cut.labels()) == 9
    assert simulated_people(cut, "compare", crowd) == 15
    assert said(cut) == said(whole)
    assert simulated_people(cut, "compare", crowd) == 0


def test_another_seed_gives_other_answers(tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        store = LabelStore(tmp_path / f"{len(found)}.sqlite")
        store.add_items(world_rows(30, 2))
        simulated_people(store, "compare", population(num_labelers=1), seed=seed)
        found.append([label["value"] for label in store.labels()])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_limit_and_gold_questions(store: LabelStore) -> None:
    store = LabelStore(store.where, gold_rate=0.25)
    store.add_items(authored_pairs(posts(10), num_gold=10))
    simulated_people(store, "compare", population(num_labelers=2), limit=20)
    for name in store.labelers():
        mine = [label for label in store.labels() if label["labeler"] == name]
        assert len(mine) == 20
        assert sum(label["gold"] is not None for label in mine) == 5
    right = [liked(label) == label["gold"] for label in store.labels() if label["gold"] is not None]
    assert np.mean(right) > 0.7


def test_a_liking_for_what_is_shown_first(tmp_path: Path) -> None:
    """Equal answers: without bias half are chosen first, with a bias of 2 about sigma(2) = 88 %."""
    shares = []
    for bias in (0.0, 2.0):
        store = LabelStore(tmp_path / f"{bias}.sqlite")
        store.add_items([{"prompt": f"P{i}", "answers": ["zzz", "qqq"]} for i in range(200)])
        simulated_people(store, "compare", population(num_labelers=1), temperature=1.0, position_bias=bias)
        shares.append(np.mean([liked(label) == label["sides"][0] for label in store.labels()]))
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[1] == pytest.approx(0.88, abs=0.08)


def test_rankings_follow_the_grades(store: LabelStore) -> None:
    store.add_items(world_rows(15, 4), "rank")
    people = steady()
    simulated_people(store, "rank", people, temperature=1.0)
    for label in store.labels():
        grades = people.judge([label["prompt"]] * 4, label["answers"])
        assert sorted(label["value"]["ranks"]) == [1, 2, 3, 4]
        best = label["answers"][label["value"]["ranks"].index(1)]
        assert grades[label["answers"].index(best)] == max(grades)


def single(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "answers": [text]} for row in rows for text in row["answers"]]


def test_ratings_rise_with_the_grades_and_flag_what_is_invented(store: LabelStore) -> None:
    store.add_items(single(world_rows(40, 2)), "rate")
    people = population(num_labelers=1)
    simulated_people(store, "rate", people)
    labels = store.labels()
    grades = people.judge([label["prompt"] for label in labels], [label["answers"][0] for label in labels])
    for axis in ("overall", "accuracy", "coverage"):
        rated = [label["value"]["axes"][axis] for label in labels]
        assert np.corrcoef(rated, grades)[0, 1] > 0.4, axis
        assert len(set(rated)) > 2
    flagged = [bool(label["value"]["flags"]) for label in labels]
    wrong = [bool(found.invented or found.misattributed) for found in (
        people.judge.judge(label["prompt"], label["answers"][0]) for label in labels
    )]  # fmt: skip
    assert any(flagged)
    assert not any(flag and not is_wrong for flag, is_wrong in zip(flagged, wrong, strict=True))


def test_thumbs_are_up_for_the_better_half(store: LabelStore) -> None:
    store.add_items(single(world_rows(20, 2)), "thumbs")
    people = steady()
    simulated_people(store, "thumbs", people, temperature=1.0)
    labels = store.labels()
    grades = np.array(people.judge([label["prompt"] for label in labels], [label["answers"][0] for label in labels]))
    up = np.array([label["value"]["thumb"] == "up" for label in labels])
    assert (up == (grades > grades.mean())).all()
    assert all(label["value"]["ideal"] == "" for label in labels if label["value"]["thumb"] == "up")


def test_edits_strike_out_what_is_invented(store: LabelStore) -> None:
    """By the item's mark, whose words are gone, with the comma before them."""
    one = CANDIDATES[1]
    item = Item(
        prompt="P", answers=(completion_text(one.text),), sources=(one.kind,), kind="edit", info={"mark": one.mark}
    )
    store.add_items([item], "edit")
    simulated_people(store, "edit", steady())
    value = store.labels()[0]["value"]
    assert value["text"] == " My cat left me. How?"
    assert apply_spans(item.answers[0], value["spans"]) == value["text"]


def test_edits_know_the_marks_of_the_posts_that_ship(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authored, "load_authored", lambda: posts(1))
    writing._marks.cache_clear()
    item = Item(prompt="P", answers=(completion_text(CANDIDATES[1].text),), sources=("invented",), kind="edit")
    store.add_items([item], "edit")
    simulated_people(store, "edit", steady())
    writing._marks.cache_clear()
    assert store.labels()[0]["value"]["text"] == " My cat left me. How?"


def test_edits_of_the_worlds_summaries_never_make_them_worse(store: LabelStore) -> None:
    rows = single(world_rows(20, 3))
    filler = World().lexicon.filler["middle"][0]
    rows = [{**row, "answers": [f"{row['answers'][0]} {filler}"]} for row in rows]
    store.add_items(rows, "edit")
    people = steady()
    simulated_people(store, "edit", people)
    shorter = 0
    for label in store.labels():
        before, after = people.judge([label["prompt"]] * 2, [label["answers"][0], label["value"]["text"]])
        assert after >= before
        shorter += after > before
        assert label["value"]["text"].startswith(" ")
    assert shorter > 10


def test_reading_takes_time(store: LabelStore) -> None:
    """Longer items take longer, and nobody reads ten words a second."""
    long = "word " * 200
    store.add_items([{"prompt": f"{i} {long if i % 2 else ''}", "answers": ["a b", "c d"]} for i in range(60)])
    simulated_people(store, "compare", population(num_labelers=2), temperature=1.0)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for label in store.labels():
        seconds[len(label["prompt"]) > 20].append(label["seconds"])
    assert 30 < np.mean(seconds[True]) < 80
    assert 2 < np.mean(seconds[False]) < 12
    assert len(set(seconds[True])) > 20


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"kind": "chat"}, "hold no conversations"),
        ({"kind": "compair"}, "a kind is one of"),
        ({"kind": "rank"}, "has no items to rank"),
        ({"scale": 7}, "scale is 8"),
    ],
)
def test_what_they_cannot_do_is_said(store: LabelStore, known: dict[str, Any], said: str) -> None:
    store.add_items(world_rows(2, 2))
    with pytest.raises(StoreError, match=said):
        simulated_people(store, **{"people": steady(), **known})
    assert store.labels() == []


def test_a_persons_name_is_theirs_alone(store: LabelStore) -> None:
    store.add_items(world_rows(2, 2))
    store.add_labelers(["steady"])
    with pytest.raises(StoreError, match="knows 'steady' as a person"):
        simulated_people(store, "compare", steady())
    assert store.labels() == []
