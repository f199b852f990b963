"""Clips as items: every frame is kept, and what was said becomes the probability that the first one is better."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_lab.labeling.clips import clip_preferences, clips_of
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.labeling.widget import compare_clips
from tests.labeling.front_ends import clips


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels.sqlite")


def answer(session: Any, choice: str) -> int:
    """Answer what is shown now; the number of the pair of `clips` that it was, by its frames."""
    current = session.screen()["current"]
    uid = f"{session.labeler}/{current['assignment']}"
    message = {"action": "answer", "assignment": current["assignment"], "value": {"choice": choice}, "uid": uid}
    assert session.handle(message)["ok"]
    item = session.store.assignment(current["assignment"]).item
    return next(number for number, pair in enumerate(clips(6)) if np.array_equal(pair[0], clips_of(item)[0]))


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17])
def test_the_store_has_every_frame_to_the_bit(frames: int, store: LabelStore) -> None:
    rng = np.random.default_rng(frames)
    pair = tuple(rng.integers(0, 256, (frames, 3 + side, 5, 3), np.uint8) for side in range(2))
    compare_clips([pair], store=store)
    (item,) = store.items("compare_clips")
    assert all(np.array_equal(one, other) for one, other in zip(clips_of(item), pair, strict=True))
    assert item.info["frames"] == frames and item.info["frames_per_second"] == 10.0


def test_choices_become_probabilities_of_the_first_whatever_side_it_stood_on(store: LabelStore) -> None:
    session = compare_clips(clips(6), store=store, labeler="ana").session
    expected: dict[int, float | None] = {}
    sides = set()
    for choice in ("first", "first", "first", "tie", "cannot_compare"):
        asked = store.assignment(session.screen()["current"]["assignment"])
        assert asked is not None
        sides.add(asked.sides)
        # What stands first on the page is the pair's own first only where the sides were not swapped.
        mu = {"first": float(asked.sides == (0, 1)), "tie": 0.5}.get(choice)
        expected[answer(session, choice)] = mu
    assert clip_preferences(clips(6), store) == [expected.get(number) for number in range(6)]
    assert set(expected.values()) == {0.0, 1.0, 0.5, None} and sides == {(0, 1), (1, 0)}


def test_several_people_make_a_share(store: LabelStore) -> None:
    store = LabelStore(store.where, overlap=3)
    pairs = clips(1)
    for labeler, choice in (("ana", "first"), ("bob", "second"), ("eve", "cannot_compare"), ("joe", "first")):
        session = compare_clips(pairs, store=store, labeler=labeler).session
        shown = store.at(labeler, "compare_clips", 0)
        if shown is None:
            store.assign(labeler, [item.id for item in store.items()])
            shown = store.at(labeler, "compare_clips", 0)
        assert shown is not None
        other = {"first": "second", "second": "first"}
        answer(session, choice if shown.sides == (0, 1) else other.get(choice, choice))
    assert clip_preferences(pairs, store) == [pytest.approx(2 / 3)]
    assert clip_preferences(pairs, store, labeler="bob") == [0.0]
    assert clip_preferences([pairs[0][::-1]], store) == [None]  # The pair turned round was never asked.


def test_a_pair_asked_again_finds_its_label_and_new_pairs_come_after(store: LabelStore) -> None:
    session = compare_clips(clips(2), store=store, labeler="ana").session
    answer(session, "first"), answer(session, "second")
    session = compare_clips(clips(3), store=store, labeler="ana").session
    assert session.screen()["progress"] | {"seconds": 0} == {"answered": 2, "skipped": 0, "total": 3, "seconds": 0}
    assert answer(session, "tie") == 2
    assert clip_preferences(clips(3), store)[2] == 0.5
    # Another question about the same frames is another item.
    session = compare_clips(clips(3), store=store, labeler="ana", question="Which is faster?").session
    assert session.screen()["progress"]["total"] == 6
    assert clip_preferences(clips(3), store, question="Which is faster?") == [None] * 3


def test_labels_of_clips_are_no_texts_for_a_reward_model(store: LabelStore) -> None:
    from rlhf_lab.labeling.learning import comparisons_from

    answer(compare_clips(clips(2), store=store, labeler="ana").session, "first")
    assert len(store.labels()) == 1 and not comparisons_from(store.labels())


def _clip(*shape: int, kind: Any = np.uint8) -> np.ndarray:
    return np.zeros(shape, kind)


@pytest.mark.parametrize(
    ("pairs", "settings", "says"),
    [
        ([], {}, "no pairs of clips"),
        ([(_clip(4, 2, 2, 3), _clip(5, 2, 2, 3))], {}, "pair 0 have 4 and 5 frames; cut them to one length"),
        ([(_clip(4, 2, 2, 3), _clip(4, 2, 2, 3))], {}, "pair 0 are the same"),
        ([(_clip(4, 2, 2, 3),)], {}, "pair 0 has 1 clips; give two"),
        ([(_clip(4, 2, 2), _clip(4, 2, 2))], {}, r"pair 0 has uint8 \(4, 2, 2\)"),
        ([(_clip(4, 2, 2, 3, kind=float), _clip(4, 2, 2, 3))], {}, r"pair 0 has float64 \(4, 2, 2, 3\)"),
        ([(_clip(0, 2, 2, 3), _clip(0, 2, 2, 3))], {}, "without frames"),
        (clips(1), {"frames_per_second": 0.0}, "above 0 and at most 60, not 0.0"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    pairs: list[Any], settings: dict[str, Any], says: str, store: LabelStore
) -> None:
    with pytest.raises(ValueError, match=says):
        compare_clips(pairs, store=store, **settings)
    assert not store.item_ids("compare_clips")


def test_texts_are_no_clips(store: LabelStore) -> None:
    with pytest.raises(StoreError, match=r"made of arrays of frames, by lab\.compare_clips"):
        store.add_items([{"prompt": "Which?", "answers": ["a", "b"]}], "compare_clips")
