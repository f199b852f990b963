"""The pad in JupyterLab and Chromium: its pace, its keys, and an agent that can be had again from the store."""

import itertools
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlhf_lab.labeling.pad import replay_pad
from rlhf_lab.labeling.store import LabelStore
from tests.labeling.pads import cell, names

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.jupyter import Lab

pytestmark = [pytest.mark.alone, pytest.mark.needs("browser"), pytest.mark.slow, pytest.mark.timeout(300)]
# When the page showed each step, on its own clock.
SHOWN = """async ([root, ms]) => {
  const info = root.querySelector('[data-testid="info"]');
  const times = [];
  const observer = new MutationObserver(() => times.push(performance.now()));
  observer.observe(info, { childList: true, characterData: true, subtree: true });
  await new Promise((done) => setTimeout(done, ms));
  observer.disconnect();
  return times; }"""

# The value of an expression in the kernel.
ASK = """async (expression) => {
  const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
  const { content } = await kernel.requestExecute({ code: '', user_expressions: { it: expression } }).done;
  return content.user_expressions.it.data['text/plain']; }"""


def says(widget: "Locator", text: str) -> None:
    from playwright.sync_api import expect

    expect(widget.locator(".rl-status")).to_contain_text(text)


def events(where: Path, session: int = 0) -> list[dict[str, Any]]:
    found = LabelStore(where).at("ana", "tamer_pad", session)
    return [] if found is None else list(found.steps)


def played(lab: "Lab", widget: "Locator", pace: int) -> float:
    """The pace that is reached, of about 4 s between Play and Pause."""
    root = widget.element_handle()
    widget.get_by_test_id("play").click()
    says(widget, "Playing.")
    lab.page.wait_for_timeout(500)
    times = lab.page.evaluate(SHOWN, [root, 4000])
    widget.get_by_test_id("play").click()
    says(widget, "Paused.")
    lab.page.wait_for_timeout(200)  # A frame that was on its way is drawn yet.
    assert lab.page.evaluate(SHOWN, [root, 700]) == []
    gaps = [b - a for a, b in itertools.pairwise(times)]
    reached = 1000 * len(gaps) / sum(gaps)
    middle, longest = statistics.median(gaps), max(gaps)
    print(f"{pace} steps a second: {reached:.2f} reached; one takes {middle:.0f} ms, at most {longest:.0f} ms")
    return reached


def test_it_holds_its_pace_and_stands_still_in_a_pause(lab: "Lab", tmp_path: Path, record_property: Any) -> None:
    where = tmp_path / "labels.sqlite"
    widget = lab.switch(lab.server.notebook(cell(where))).run()
    for pace in (5, 2, 10):
        widget.get_by_role("slider", name="Steps per second").fill(str(pace))
        for _ in range(3):  # Where others use the machine too, one measurement may fall into a bad moment.
            reached = played(lab, widget, pace)
            if abs(reached / pace - 1) < 0.1:
                break
        record_property(f"steps_per_second_at_{pace}", reached)
        assert abs(reached / pace - 1) < 0.1, (pace, reached)
    said = events(where)
    seconds = dict.fromkeys(("play", "pause"), 0.0)
    for one, other in itertools.pairwise(event for event in said if event["what"] in seconds):
        seconds[one["what"]] += other["wall"] - one["wall"]
    agent = names()["new_agent"]()
    replay_pad(names()["Walk"](), agent, where, labeler="ana")
    assert seconds["pause"] > 1.8  # Of which the agent's clock must know nothing.
    assert 0.8 * seconds["play"] < agent.clock < seconds["play"] + 0.5


HOLE = """
class Walk(Walk):
    steps = 0

    def step(self, action):
        Walk.steps += 1
        if Walk.steps == 8:
            raise ZeroDivisionError("no more ground")
        return super().step(action)
"""


def test_it_keeps_no_cell_waiting_says_what_went_wrong_and_ends_with_its_page(lab: "Lab", tmp_path: Path) -> None:
    from playwright.sync_api import expect

    widget = lab.switch(lab.server.notebook(cell(tmp_path / "labels.sqlite", 10.0, HOLE))).run()
    widget.get_by_test_id("play").click()
    says(widget, "Playing.")
    assert lab.page.evaluate(ASK, "6 * 7") == "42"
    says(widget, "Stopped: ZeroDivisionError: no more ground")
    expect(widget).to_have_attribute("data-state", "failed")
    assert lab.page.evaluate(ASK, "_.session.live.num_steps") == "7"
    widget = lab.run()  # Its first steps are counted anew.
    widget.get_by_test_id("play").click()
    expect(widget.get_by_test_id("info")).to_contain_text("step")
    lab.run()
    steps = lab.page.evaluate(ASK, "__.session.live.num_steps")
    widget = lab.page.get_by_test_id("rlhf-label").last
    widget.get_by_test_id("play").click()
    says(widget, "Playing.")
    lab.page.wait_for_timeout(500)
    assert lab.page.evaluate(ASK, "__.session.live.num_steps") == steps and int(steps) < 7
    lab.restart_kernel()
    says(widget, "Run this cell again: all that was saved is kept.")
    assert len(LabelStore(tmp_path / "labels.sqlite").item_ids("tamer_pad")) == 3


def test_keys_alone_train_an_agent_that_the_store_gives_again(lab: "Lab", tmp_path: Path) -> None:
    from playwright.sync_api import expect

    from tests.labeling.test_front_ends import by_keyboard_alone

    where = tmp_path / "labels.sqlite"
    widget = lab.switch(lab.server.notebook("1", cell(where))).run()
    # Keys mean nothing to the notebook while the pad has them.
    before = lab.cells()
    by_keyboard_alone(lab)
    press = lab.page.keyboard.press
    press("Space")
    says(widget, "Playing.")
    for key, word in zip(("1", "2", "ArrowUp", "ArrowDown"), ("Good", "Bad", "Good", "Bad"), strict=True):
        lab.page.wait_for_timeout(400)
        press(key)
        says(widget, f"{word}, press")
    for key in ("+", "+", "-"):
        press(key)
    says(widget, "6 steps a second.")
    press("n")
    says(widget, "A new episode.")
    lab.page.keyboard.down("1")
    for _ in range(5):
        lab.page.keyboard.down("1")  # Held down: the browser repeats it.
    lab.page.keyboard.up("1")
    says(widget, "Good, press 5.")
    press("Space")
    says(widget, "Paused.")
    press("1")
    says(widget, "Good, press 6.")
    expect(widget.locator(".rl-count")).to_have_text("Session 1 · 6 presses")
    widget.get_by_role("button", name="Stop").focus()
    press("Enter")
    says(widget, "Stopped after 6 presses, which are saved.")
    expect(widget.get_by_test_id("good")).to_be_disabled()
    for key in ("d", "d", "x", "b"):
        press(key)
    assert [cell["source"] for cell in lab.cells()] == [cell["source"] for cell in before]

    presses = [event for event in events(where) if event["what"] == "press"]
    assert [event["value"] for event in presses] == [1, -1, 1, -1, 1, 1]
    agent = names()["new_agent"]()
    rows = replay_pad(names()["Walk"](), agent, where, labeler="ana")
    assert sum(row["presses"] for row in rows) == 6 and any(agent.weights.tolist())
    assert json.loads(lab.page.evaluate(ASK, "agent.weights.tolist()")) == agent.weights.tolist()
