"""Labels of single answers as what they teach, and what simulated people write when they are careful."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.revising import require_feedback
from rlhf_lab.data.world import CARELESS, World
from rlhf_lab.experiments.systems.people_time import asked
from rlhf_lab.feedback import Labeler, Population, population
from rlhf_lab.labeling.edits import apply_spans
from rlhf_lab.labeling.exchange import export_labels, import_labels
from rlhf_lab.labeling.people import simulated_people
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.single import comment_rows, edit_rows, rating_rows, thumb_rows
from rlhf_lab.labeling.store import LabelStore

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(number: int) -> list[dict[str, Any]]:
    world = World()
    return [
        {"prompt": post.query, "answers": [completion_text(world.summary(random.Random(index), post, CARELESS))]}
        for index, post in enumerate(world.posts(0, "single", number))
    ]


def steady(**known: Any) -> Population:
    """One person whose noise is all but nothing."""
    return Population((Labeler(id="steady", axes={"overall": 1.0}, tastes={}, noise=1e-6, **known),))


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "store.sqlite")


def test_ratings_and_thumbs_become_numbers(store: LabelStore) -> None:
    for kind in ("rate", "thumbs"):
        store.add_items(rows(12), kind)
        simulated_people(store, kind, steady(), temperature=1.0)
    grades = dict(zip([(row["prompt"], row["answers"][0]) for row in rows(12)], range(12), strict=True))
    rated, thumbs = rating_rows(store.labels()), thumb_rows(store.labels())
    assert rated.column_names == thumbs.column_names == ["prompt", "response", "rating", "labeler"]
    assert {(row["prompt"], row["response"]) for row in rated} == set(grades)
    for row in rated:
        label = next(one for one in store.labels("rate") if one["prompt"] == row["prompt"])
        assert row["rating"] == float(label["value"]["axes"]["overall"])
    assert set(thumbs["rating"]) == {0.0, 1.0}
    assert set(rating_rows(store.labels(), axis="accuracy")["rating"]) <= {float(grade) for grade in range(1, 8)}


def test_what_is_not_there_is_said(store: LabelStore) -> None:
    store.add_items(rows(2), "rate")
    simulated_people(store, "rate", steady())
    with pytest.raises(StoreError, match="no labels of the kind thumbs"):
        thumb_rows(store.labels())
    with pytest.raises(StoreError, match="no rating has the axis 'wit'; they have overall"):
        rating_rows(store.labels(), axis="wit")
    with pytest.raises(StoreError, match="no comments among the labels"):
        comment_rows(store.labels())
    with pytest.raises(StoreError, match="no labels of the kind edit"):
        edit_rows(store.labels())


def test_who_is_careful_mends_what_others_only_strike_out(tmp_path: Path) -> None:
    gained = {}
    for careful in (False, True):
        store = LabelStore(tmp_path / f"{careful}.sqlite")
        store.add_items(rows(20), "edit")
        people = steady()
        simulated_people(store, "edit", people, careful=careful)
        edited = edit_rows(store.labels())
        for label, row in zip(store.labels(), edited, strict=True):
            assert apply_spans(label["answers"][0], label["value"]["spans"]) == row["completion"]
        before = people.judge([label["prompt"] for label in store.labels()], [x["answers"][0] for x in store.labels()])
        gained[careful] = np.mean(people.judge(edited["prompt"], edited["completion"])) - np.mean(before)
    assert gained[True] > gained[False] + 2.0


def test_comments_say_what_should_change_and_can_be_followed(store: LabelStore) -> None:
    store.add_items(rows(20), "rate")
    simulated_people(store, "rate", steady(), careful=True)
    comments = comment_rows(store.labels())
    assert comments.column_names == ["prompt", "response", "feedback", "labeler"]
    assert len(comments) > 10
    for row in comments:
        assert require_feedback(row["feedback"]) == row["feedback"]


def test_writing_changes_nothing_else_that_is_said(tmp_path: Path) -> None:
    found = []
    for careful in (False, True):
        store = LabelStore(tmp_path / f"{careful}.sqlite")
        store.add_items(rows(8), "rate")
        simulated_people(store, "rate", population(num_labelers=2), careful=careful)
        found.append([(label["item"], label["value"], label["seconds"]) for label in store.labels()])
        assert any(label["comment"] for label in store.labels()) == careful
    assert found[0] == found[1]


def test_at_a_temperature_a_rating_has_the_noise_of_a_comparison() -> None:
    """The spread of a steady person's ratings of one answer: none; of somebody whose noise is 1 point, pi / sqrt(6)."""
    spread = []
    for noise in (1e-6, 1.0):
        people = Population((Labeler(id="one", axes={"overall": 1.0}, tastes={}, noise=noise),))
        prompts = [f"P{index}" for index in range(600)]
        labels = asked("rate", people, prompts, [[" zzz"]] * len(prompts), temperature=1.0)
        spread.append(np.std(rating_rows(labels)["rating"]))
    assert spread[0] == 0.0
    assert spread[1] == pytest.approx(np.pi / np.sqrt(6), abs=0.15)  # Rounding adds 0.03, the ends of the scale take.


def test_edits_travel_and_need_their_originals(store: LabelStore, tmp_path: Path) -> None:
    store.add_items(rows(5), "edit")
    simulated_people(store, "edit", steady(), careful=True)
    path = tmp_path / "edits.jsonl"
    assert export_labels(store, path, "edits") == 5
    other = LabelStore(tmp_path / "other.sqlite")
    with pytest.raises(StoreError, match=r"an edit's original ' .*' is no answer in the store; add the item"):
        import_labels(other, path, "edits")
    assert other.items() == []
    other.add_items([row | {"answers": [*row["answers"], " Else."]} for row in rows(5)], "compare")
    assert import_labels(other, path, "edits") == 5
    assert sorted(edit_rows(other.labels())["completion"]) == sorted(edit_rows(store.labels())["completion"])
    row = json.loads(path.read_text().splitlines()[0]) | {"edited": " "}
    path.write_text(json.dumps(row))
    with pytest.raises(StoreError, match=r"row 0 of edits\.jsonl: edited must be text"):
        import_labels(other, path, "edits")
