"""The store against a model of it, in random sequences of what labelers and instructors do (hypothesis)."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scipy import stats

from rlhf_lab.labeling.claims import gold_places
from rlhf_lab.labeling.store import LabelStore

NAMES = ("ana", "bob", "cem")
VALUES = st.one_of(
    st.builds(lambda step: {"scale": 8, "step": step}, st.integers(1, 8)),
    st.sampled_from([{"choice": "tie"}, {"choice": "cannot_compare"}]),
)


class LabelingMachine(RuleBasedStateMachine):
    """Answers, skips, undoes and repeats, and says after each step what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.said: dict[str, list[tuple[int, str, dict[str, Any]]]] = {name: [] for name in NAMES}
        self.items: dict[int, str] = {}
        self.num_events = 0

    @initialize(overlap=st.integers(1, 3), num=st.integers(1, 9), gold_rate=st.sampled_from([0.0, 0.25, 0.5]))
    def begin(self, overlap: int, num: int, gold_rate: float) -> None:
        self.overlap, self.gold_rate = overlap, gold_rate
        self.store = LabelStore(Path(self.folder.name) / "labels.sqlite", overlap=overlap, gold_rate=gold_rate)
        rows = [{"id": f"i{k}", "prompt": f"p{k}", "answers": ["a", "b"]} for k in range(num)]
        golds = [{"id": f"g{k}", "prompt": f"g{k}", "answers": ["a", "b"], "gold": 0} for k in range(20)]
        self.store.add_items(rows + golds)
        self.store.add_labelers(NAMES)

    def _say(self, name: str, event: str, value: dict[str, Any]) -> None:
        found = self.store.ask(name, "compare", num=1)
        if not found:
            return
        self.num_events += 1
        self.store.record(found[0], value, event=event, uid=f"u{self.num_events}")
        self.said[name].append((found[0].id, event, value))
        self.items[found[0].id] = found[0].item.id

    @rule(name=st.sampled_from(NAMES), value=VALUES)
    def answer(self, name: str, value: dict[str, Any]) -> None:
        self._say(name, "answer", value)

    @rule(name=st.sampled_from(NAMES))
    def skip(self, name: str) -> None:
        self._say(name, "skip", {"reason": "no"})

    @rule(name=st.sampled_from(NAMES), value=VALUES)
    def correct(self, name: str, value: dict[str, Any]) -> None:
        """Answer again what was answered first."""
        answered = [number for number, event, _ in self.said[name] if event == "answer"]
        if answered:
            self.num_events += 1
            self.store.record(answered[0], value, uid=f"u{self.num_events}")
            self.said[name].append((answered[0], "answer", value))

    @rule(name=st.sampled_from(NAMES))
    def undo(self, name: str) -> None:
        undone = self.store.undo(name, "compare")
        if not self.said[name]:
            assert undone is None
            return
        number, _, _ = self.said[name].pop()
        assert undone is not None and undone.id == number
        self.num_events += 1

    @rule(name=st.sampled_from(NAMES), value=VALUES)
    def send_again(self, name: str, value: dict[str, Any]) -> None:
        """A uid that the store has already changes nothing, whatever comes with it."""
        if self.said[name] and self.num_events:
            number = self.said[name][-1][0]
            with self.store._reading() as connection:
                from rlhf_lab.labeling.schema import events

                uid = connection.execute(events.select().where(events.c.assignment == number)).first().uid
            self.store.record(number, value, uid=uid)

    @invariant()
    def labels_are_what_was_said_last(self) -> None:
        if not hasattr(self, "store"):
            return
        expected: dict[tuple[str, str], dict[str, Any]] = {}
        for name, said in self.said.items():
            last: dict[int, tuple[str, dict[str, Any]]] = {}
            for number, event, value in said:
                last[number] = (event, value)
            expected |= {
                (self.items[number], name): value for number, (event, value) in last.items() if event == "answer"
            }
        found = {(label["item"], label["labeler"]): label["value"] for label in self.store.labels()}
        assert found == expected

    @invariant()
    def no_item_has_more_labelers_than_its_overlap(self) -> None:
        if hasattr(self, "store"):
            counts = Counter(label["item"] for label in self.store.labels() if label["gold"] is None)
            # Undo of a skip gives a labeler back an item that another may have been given meanwhile.
            skips = any(event == "skip" for said in self.said.values() for _, event, _ in said)
            assert skips or all(count <= max(self.overlap, 1) for count in counts.values())

    @invariant()
    def gold_questions_lie_where_they_belong(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in NAMES:
            place = 0
            while (asked := self.store.at(name, "compare", place)) is not None:
                wants = place in gold_places(self.gold_rate, place, place + 1, f"0/{name}/compare")
                # Where ordinary items have run out, nothing more is asked; a gold place takes one if none is left.
                assert asked.item.gold is None or wants
                place += 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        self.folder.cleanup()


TestLabelingMachine = pytest.mark.slow(LabelingMachine.TestCase)
LabelingMachine.TestCase.settings = hypothesis.settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_each_answer_is_as_often_on_either_side(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", overlap=5)
    store.add_items([{"id": f"i{k}", "prompt": f"p{k}", "answers": ["a", "b"]} for k in range(400)])
    first = Counter()
    for name in ("a", "b", "c", "d", "e"):
        store.enroll(name)
        sides = [asked.sides for asked in store.ask(name, "compare", num=400)]
        first.update(side[0] for side in sides)
        assert stats.binomtest(sum(side[0] == 0 for side in sides), 400).pvalue > 0.001
    assert first.total() == 2000
    assert stats.binomtest(first[0], 2000).pvalue > 0.01
