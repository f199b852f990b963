"""What to ask next: the order that the store then follows."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_lab.data.world import World
from rlhf_lab.labeling.asking import choose_next, disagreement
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.models import load_base, new_reward_model

pytestmark = pytest.mark.usefixtures("one_thread")
Scorer = Callable[[Sequence[str], Sequence[str]], list[float]]


def reading(sign: float) -> Scorer:
    """A reward that is written in the answer, times `sign`."""
    return lambda prompts, responses: [sign * float(response) for response in responses]


def item(name: str, *answers: str, kind: str = "compare", gold: int | None = None) -> Item:
    return Item(prompt=f"prompt of {name}", answers=answers, id=name, kind=kind, gold=gold)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    store = LabelStore(tmp_path / "store.sqlite")
    store.add_items([item("close", "0", "0.1"), item("far", "0", "4"), item("middle", "0", "1")], order="given")
    store.add_labelers(["ana"])
    return store


def test_models_disagree_by_the_spread_of_their_probabilities() -> None:
    """Two models with margins +1 and -1 say sigma(1) and sigma(-1): the standard deviation is (0.7311 - 0.2689) / 2."""
    (found,) = disagreement([item("i", "0", "1")], [reading(1.0), reading(-1.0)])
    assert found == pytest.approx(0.7310585786 - 0.5, abs=1e-6)


def test_models_that_agree_do_not_disagree_however_far_the_answers_are() -> None:
    assert disagreement([item("i", "0", "9"), item("j", "0", "1")], [reading(1.0), reading(1.0)]) == [0.0, 0.0]


def test_of_a_ranking_the_pair_counts_on_which_they_disagree_most() -> None:
    ranked, pair = item("i", "0", "0.1", "2", kind="rank"), item("j", "0", "2")
    models = [reading(1.0), reading(-1.0)]
    assert disagreement([ranked], models) == pytest.approx(disagreement([pair], models))


def test_of_single_answers_the_scores_are_compared_in_their_own_units() -> None:
    """Scores (0, 1, 2) and (0, 10, 20) are the same, up to units; (0, 1, 2) and (2, 1, 0) differ at both ends."""
    items = [item(str(i), str(i), kind="rate") for i in range(3)]
    assert disagreement(items, [reading(1.0), reading(10.0)]) == pytest.approx([0, 0, 0], abs=1e-6)
    end = np.sqrt(1.5)  # (2 - 1) / std(0, 1, 2)
    assert disagreement(items, [reading(1.0), reading(-1.0)]) == pytest.approx([end, 0, end], abs=1e-6)


def test_the_store_asks_first_where_models_disagree_most(store: LabelStore) -> None:
    order = choose_next(store, [reading(1.0), reading(-1.0)])
    assert order == ["far", "middle", "close"]
    assert [one.item.id for one in store.ask("ana", "compare", num=3)] == order


def test_only_some_can_be_brought_to_the_front(store: LabelStore) -> None:
    assert choose_next(store, [reading(1.0), reading(-1.0)], strategy="disagreement", num=1) == ["far"]
    assert [one.item.id for one in store.ask("ana", "compare", num=3)] == ["far", "close", "middle"]


def test_random_order_depends_on_the_seed_alone(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "many.sqlite")
    store.add_items([item(str(i), "0", "1") for i in range(20)])
    orders = [choose_next(store, seed=seed) for seed in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(str(i) for i in range(20))
    assert [one.id for one in store.items()] == orders[2]


def test_what_is_answered_and_gold_questions_are_left_where_they_are(store: LabelStore) -> None:
    store.add_items([item("gold", "0", "5", gold=1)])
    (first,) = store.ask("ana", "compare", num=1)
    assert first.item.id == "close"
    store.record(first, {"choice": "tie"})
    assert choose_next(store, [reading(1.0), reading(-1.0)], strategy="disagreement") == ["far", "middle"]


def test_reward_models_are_scored_on_texts(tmp_path: Path) -> None:
    """An ensemble of models with other heads, on the world's posts."""
    base = load_base("small")
    models = [new_reward_model(base, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    store, world = LabelStore(tmp_path / "world.sqlite"), World()
    rows = [
        {"prompt": post.query, "answers": [f" {post.title}", " I do not know."]} for post in world.posts(0, "asking", 4)
    ]
    store.add_items(rows)
    items = store.items()
    felt = disagreement(items, models)
    assert len(set(felt)) == 4
    order = choose_next(store, models, strategy="disagreement")
    assert order[0] == items[int(np.argmax(felt))].id
    assert disagreement(items, [models[0], models[0]]) == pytest.approx([0.0] * 4, abs=1e-7)


def test_what_cannot_be_asked_is_said(store: LabelStore) -> None:
    for known, said in [
        ({"strategy": "newest"}, "a strategy is one of random, disagreement"),
        ({"strategy": "disagreement"}, "takes two reward models or more, not 0"),
        ({"strategy": "disagreement", "reward_models": [reading(1.0)]}, "not 1; train another"),
        ({"num": 0}, "num is a number of items from 1 on"),
        ({"kind": "rank"}, "has no items to rank that nobody has answered"),
    ]:
        with pytest.raises(StoreError, match=said):
            choose_next(store, **known)
    with pytest.raises(ValueError, match="the reward function raised"):
        broken = [lambda prompts, responses: 1 / 0, reading(1.0)]
        choose_next(store, broken, strategy="disagreement")
    assert [one.id for one in store.items()] == ["close", "far", "middle"]
    with pytest.raises(StoreError, match="item talk has no answers"):
        disagreement([item("talk", kind="chat")], [reading(1.0), reading(-1.0)])
