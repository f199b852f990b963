"""The pad's messages without a browser: what is pressed is stored, then learnt, and can be played again."""

import json
import uuid
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rlhf_lab.control.tamer import TAMERAgent
from rlhf_lab.control.tasks import make_task, radial_features
from rlhf_lab.labeling.markdown import default_guidelines, parse
from rlhf_lab.labeling.pad import PadSession, replay_pad, tamer_pad
from rlhf_lab.labeling.schema import StoreBusyError, StoreError
from rlhf_lab.labeling.store import LabelStore
from tests.labeling.pads import names

MADE = names()
Walk, new_agent = MADE["Walk"], MADE["new_agent"]


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels.sqlite")


def pad(store: LabelStore, agent: TAMERAgent | None = None, **options: Any) -> PadSession:
    task = Walk(render_mode="rgb_array")
    return tamer_pad(task, agent or new_agent(), store=store, labeler="ana", **options).session


class Page:
    """Sends what a page would."""

    def __init__(self, session: PadSession, view: str = "v") -> None:
        self.session, self.view, self.sent, self.name = session, view, 0, uuid.uuid4().hex

    def say(self, action: str, **others: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"action": action, "view": self.view, "uid": f"{self.name}/{self.sent}", "wall": 1e9 + self.sent}
        reply, pictures = self.session.handle(message | others)
        json.dumps(reply)
        assert len(pictures) == bool(reply.get("frame")) and all(one.startswith(b"\x89PNG") for one in pictures)
        return reply

    def ticks(self, num: int) -> int:
        """The number of the frame that is shown after so many steps."""
        for _ in range(num):
            reply = self.say("tick", uid="tick")
        return reply["frame"]["number"]


def play(session: PadSession, seed: int = 0, num: int = 40) -> None:
    """Somebody who changes their mind about everything."""
    page, rng = Page(session), np.random.default_rng(seed)
    page.say("play")
    for _ in range(num):
        frame = page.ticks(int(rng.integers(1, 6)))
        page.say(
            "press", value=int(rng.choice([-1, 1])), frame=frame - int(rng.integers(0, 2)), late=rng.uniform(0, 0.3)
        )
        if rng.random() < 0.3:
            page.say("pace", value=int(rng.integers(2, 11)))
        if rng.random() < 0.1:
            page.say("new_episode")
        if rng.random() < 0.1:
            assert page.say("pause")["ok"] and page.say("tick", uid="tick")["frame"] is None
            page.say("play")
    assert page.say("stop")["ok"]


def same(agent: TAMERAgent, other: TAMERAgent) -> bool:
    assert agent.weights is not None and other.weights is not None
    return torch.equal(agent.weights, other.weights) and (agent.clock, agent.config) == (other.clock, other.config)


def test_a_session_played_again_gives_the_same_agent(store: LabelStore) -> None:
    agent = new_agent()
    for seed in range(3):  # The third begins where the second ended.
        if seed == 1:
            agent = new_agent(seed=2)
        session = pad(store, agent, seed=10 * seed, max_steps=25)
        play(session, seed)
    again = new_agent()
    replay_pad(Walk(), again, store, labeler="ana", session=0)
    assert not same(again, agent)
    again = new_agent(seed=2)
    replay_pad(Walk(), again, store, labeler="ana", session=1)
    assert not same(again, agent)
    rows = replay_pad(Walk(), again, store, labeler="ana")
    assert same(again, agent) and rows == session.live.rows
    assert sum(row["presses"] for row in rows) == 40 and len(rows) > 3


def test_a_session_that_was_never_stopped_can_be_played_again_too(store: LabelStore) -> None:
    session = pad(store)
    page = Page(session)
    page.say("play")
    frame = page.ticks(9)
    page.say("press", value=1, frame=frame, late=0.1)
    again = new_agent()
    replay_pad(Walk(), again, store, labeler="ana")
    assert same(again, session.live.agent)


def test_a_press_counts_from_when_its_frame_was_drawn(store: LabelStore) -> None:
    session = pad(store)
    page = Page(session)
    page.say("play")
    page.ticks(4)
    page.say("press", value=1, frame=3, late=0.05)
    page.say("press", value=-1, frame=4, late=9.0)  # The fifth is late, and no step lasts 9 s.
    page.say("press", value=-1, frame=0, late=0.1)
    found = store.at("ana", "tamer_pad", 0)
    assert found is not None
    presses = [step for step in found.steps if step["what"] == "press"]
    assert [press["time"] for press in presses] == pytest.approx([0.45, 0.8, 0.0])
    assert [press["value"] for press in presses] == [1.0, -1.0, -1.0]
    assert [(press["frame"], press["after"], press["wall"]) for press in presses] == [
        (3, 4, 1e9 + 6),
        (4, 4, 1e9 + 7),
        (0, 4, 1e9 + 8),
    ]


def test_what_is_sent_twice_is_learnt_once(store: LabelStore) -> None:
    page, other = Page(pad(store)), Page(pad(store))
    for one in (page, other):
        one.say("play")
        one.ticks(5)
        for _ in range(2 if one is page else 1):
            reply = one.say("press", uid=one.name, value=1, frame=4, late=0.1)
        assert reply["ok"] and reply["presses"] == 1
    assert same(page.session.live.agent, other.session.live.agent)
    assert sum(step["what"] == "press" for step in store.at("ana", "tamer_pad", 0).steps) == 1  # type: ignore[union-attr]


def test_what_is_not_stored_is_not_learnt(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(pad(store))
    page.say("play")
    page.ticks(5)
    before = page.session.live.agent.weights.clone()  # type: ignore[union-attr]

    def full(*_: Any, **__: Any) -> None:
        raise StoreBusyError("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "record", full)
        reply = page.say("press", uid="p", value=1, frame=5, late=0.1)
    assert reply["retry"] and reply["error"] == "the disk is full."
    assert torch.equal(page.session.live.agent.weights, before)  # type: ignore[arg-type]
    assert page.say("press", uid="p", value=1, frame=5, late=0.1)["ok"]
    assert not torch.equal(page.session.live.agent.weights, before)  # type: ignore[arg-type]


def test_nothing_happens_before_play_nor_after_pause_nor_for_another_view(store: LabelStore) -> None:
    session = pad(store)
    one, other = Page(session, "one"), Page(session, "other")
    assert one.say("show")["frame"]["number"] == 0 and one.say("tick", uid="tick")["frame"] is None
    assert not store.item_ids("tamer_pad")  # Nobody played yet.
    one.say("play")
    assert one.say("tick", uid="tick")["frame"]["number"] == 1
    other.say("play")
    assert one.say("tick", uid="tick")["frame"] is None
    assert other.say("tick", uid="tick")["frame"]["number"] == 2
    other.say("pause")
    assert other.say("tick", uid="tick")["frame"] is None
    assert session.live.num_steps == 2 and len(store.item_ids("tamer_pad")) == 1


def test_the_end_is_the_end_and_is_a_label(store: LabelStore) -> None:
    page = Page(pad(store))
    page.say("play")
    page.ticks(3)
    page.say("press", value=1, frame=3, late=0.1, seconds=0.7)
    page.say("stop", seconds=0.5)
    for action in ("play", "press", "new_episode"):
        reply = page.say(action, value=1, frame=3, late=0.1)
        assert not reply["ok"] and "was stopped; run the cell again" in reply["error"]
    assert page.say("tick", uid="tick")["frame"] is None and page.say("show")["end"]
    (label,) = store.labels()
    assert label["value"] == {"steps": 3, "episodes": 1} and label["labeler"] == "ana" and label["seconds"] == 1.2
    assert [step["what"] for step in label["steps"]] == ["play", "press"]
    assert label["interface"] == "widget tamer_pad 1"


class Broken(Walk):
    def step(self, action: int) -> Any:
        raise ZeroDivisionError("no more ground")


def test_an_error_in_the_task_is_one_sentence_and_the_end(store: LabelStore) -> None:
    session = tamer_pad(Broken(render_mode="rgb_array"), new_agent(), store=store, labeler="ana").session
    page = Page(session)
    page.say("play")
    reply = page.say("tick", uid="tick")
    assert not reply["ok"] and reply["error"] == "ZeroDivisionError: no more ground"
    assert page.say("play")["error"] == reply["error"]
    assert "does not know" in page.say("dance")["error"]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (lambda: Walk(), "Walk has a missing renderer .render_mode is None.; make it with lab.make_task"),
        (lambda: make_task("MountainCarContinuous-v0", render_mode="rgb_array"), "must be a finite set"),
    ],
)
def test_a_task_that_cannot_be_shown_or_shaped_is_refused(task: Any, says: str, store: LabelStore) -> None:
    with pytest.raises(ValueError, match=says):
        tamer_pad(task(), new_agent(), store=store)


def test_a_task_without_its_library_and_one_that_draws_no_picture_are_refused(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(self: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed, run `pip install pygame`")

    task = Walk(render_mode="rgb_array")
    monkeypatch.setattr(Walk, "render", lacks)
    with pytest.raises(ValueError, match="Walk cannot be drawn: pygame is not installed"):
        tamer_pad(task, new_agent(), store=store)
    monkeypatch.setattr(Walk, "render", lambda self: np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"that of Walk gave float64 \(4, 4\)"):
        tamer_pad(task, new_agent(), store=store)


def test_a_pace_that_nobody_can_follow_is_refused(store: LabelStore) -> None:
    with pytest.raises(ValueError, match=r"2 to 10 steps a second, not 20; make the agent with"):
        pad(store, new_agent(20.0))
    session = pad(store)
    page = Page(session)
    page.say("play")
    assert page.say("pace", value=50)["pace"] == 10.0


def test_another_agent_is_not_taken_for_the_sessions(store: LabelStore) -> None:
    with pytest.raises(StoreError, match="'ana' has 0 sessions"):
        replay_pad(Walk(), new_agent(), store, labeler="ana")
    play(pad(store), num=3)
    with pytest.raises(ValueError, match="'steps_per_second': 5"):
        replay_pad(Walk(), new_agent(4.0), store, labeler="ana")
    agent = new_agent()
    agent.act(np.array([2.0]), 3.0)
    with pytest.raises(ValueError, match=r"began at 0 s .* shows 3.2 s; make the agent anew"):
        replay_pad(Walk(), agent, store, labeler="ana")
    with pytest.raises(StoreError, match="none 1"):
        replay_pad(Walk(), new_agent(), store, labeler="ana", session=1)


def test_gymnasiums_tasks_are_told_what_they_lack_or_shown(store: LabelStore) -> None:
    task = make_task("MountainCar-v0", render_mode="rgb_array")
    agent = TAMERAgent(radial_features(task, grid=4))
    try:
        import pygame  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match="MountainCar-v0 cannot be drawn: pygame is not installed"):
            tamer_pad(task, agent, store=store)
    else:
        page = Page(tamer_pad(task, agent, store=store).session)
        page.say("play")
        assert page.ticks(2) == 2


def test_guidelines_ship_with_an_example() -> None:
    text = default_guidelines("tamer_pad")
    assert len(text.split()) > 60 and parse(text) and "Example" in text
