"""What the browser tests ask about, and how a person answers it at each front end, by mouse and by keyboard."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from tests.labeling import pads

Act = Callable[[Locator, dict[str, Any]], None]
KINDS = ("compare", "rank", "rate", "thumbs", "edit", "chat", "compare_clips")
CLIPS = """
def clips(num):
    import numpy as np
    frames = np.full((2 * num, 8, 60, 90, 3), 235, np.uint8)
    for index, time in np.ndindex(frames.shape[:2]):
        place = 2 * index + 6 * time
        frames[index, time, 24:36, place:place + 12] = 10 * index, 60, 160
    return list(zip(frames[::2], frames[1::2]))
"""
"""Pairs of clips in which a square moves to the right."""


def rows(kind: str, num: int) -> list[dict[str, Any]]:
    """Items of which each text says which it is."""
    made = []
    for index in range(num):
        prompt = f"SUBREDDIT: r/pets\n\nTITLE: Post {index}\n\nPOST: My cat number {index} left.\n\nTL;DR:"
        answers = [f" Cat {index} left, answer {place}." for place in range({"compare": 2, "rank": 4}.get(kind, 1))]
        made.append({"id": f"i{index}", "prompt": prompt, "answers": answers})
    return made


def cell(kind: str, store: Path, num: int = 8, options: str = "") -> str:
    """A cell that asks about them."""
    lines = ["import itertools, json", "from rlhf_lab.labeling.widget import *"]
    if kind == "tamer_pad":
        return pads.cell(store)
    if kind == "chat":
        lines += [
            "count = itertools.count()",
            "def respond(messages): return f'reply {next(count)} of {len(messages)}'",
        ]
        return "\n".join([*lines, f"chat(respond, store={str(store)!r}, labeler='ana' {options})"])
    if kind == "probe":
        return probe_cell(store)
    if kind == "compare_clips":
        lines.append(f"{CLIPS}\ncompare_clips(clips({num}), store={str(store)!r}, labeler='ana' {options})")
        return "\n".join(lines)
    items = f"json.loads({json.dumps(rows(kind, num))!r})"
    return "\n".join([*lines, f"{kind}({items}, store={str(store)!r}, labeler='ana' {options})"])


def probe_cell(store: Path) -> str:
    """A cell in which a function answers: it copies the start, and takes a moment for it."""
    post = "SUBREDDIT: r/pets\\n\\nTITLE: My cat\\n\\nPOST: My cat {} left.\\n\\nTL;DR:"
    lines = ["import time", "import rlhf_lab as lab", "def answer(prompt):", "    time.sleep(0.4)"]
    lines.append("    return ' the cat left.' if 'cat' in prompt else ' somebody left.'")
    lines.append("rules = {'cat': 'Do not name a cat.', 'dog': 'Do not name a dog.'}")
    lines.append(f"posts = ['{post}'.format(number) for number in range(3)]")
    return "\n".join([*lines, f"lab.probe(answer, rules=rules, posts=posts, store={str(store)!r}, labeler='ana')"])


def saved(widget: Locator) -> None:
    expect(widget).to_have_attribute("data-state", "saved")


def done(widget: Locator, num: int) -> None:
    """Until `num` items are done, and saved."""
    expect(widget.locator(".rl-count")).to_have_text(re.compile(rf"^{num} of "))
    saved(widget)


def clips(num: int) -> list[tuple[Any, Any]]:
    """The clips of `CLIPS`."""
    names: dict[str, Any] = {}
    exec(CLIPS, names)
    return names["clips"](num)


_CHOICES = {"first": ("1", "ArrowLeft"), "second": ("2", "ArrowRight"), "tie": ("T", "t"), "cannot_compare": ("C", "c")}


def _mouse_clips(widget: Locator, value: dict[str, Any]) -> None:
    widget.get_by_test_id(f"choice-{_CHOICES[value['choice']][0]}").click()


def _keys_clips(widget: Locator, value: dict[str, Any]) -> None:
    widget.page.keyboard.press(_CHOICES[value["choice"]][1])


def _mouse_compare(widget: Locator, value: dict[str, Any]) -> None:
    if value.get("choice") == "cannot_compare":
        widget.get_by_test_id("choice-C").click()
    else:
        widget.get_by_test_id("choice-T" if "choice" in value else f"choice-{value['step']}").click()


def _keys_compare(widget: Locator, value: dict[str, Any]) -> None:
    keys = {"tie": "t", "cannot_compare": "c"}
    widget.page.keyboard.press(keys[value["choice"]] if "choice" in value else str(value["step"]))


def _drag(widget: Locator, letter: str, place: int) -> None:
    """Drag a card to where the card at `place` lies."""
    mouse = widget.page.mouse
    grip = widget.get_by_test_id(f"card-{letter}").locator(".rl-grip")
    grip.scroll_into_view_if_needed()
    start = grip.bounding_box()
    goal = widget.locator(".rl-card").nth(place).bounding_box()
    assert start is not None and goal is not None
    mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    mouse.down()
    mouse.move(start["x"] + 20, goal["y"] + goal["height"] / 4, steps=12)
    mouse.up()


def _order(value: dict[str, Any]) -> list[tuple[int, str]]:
    return sorted((rank, "ABCDEFGHI"[index]) for index, rank in enumerate(value["ranks"]))


def _mouse_rank(widget: Locator, value: dict[str, Any]) -> None:
    before = 0
    for place, (rank, letter) in enumerate(_order(value)):
        if widget.locator(".rl-card").nth(place).get_attribute("data-testid") != f"card-{letter}":
            _drag(widget, letter, place)
        if rank == before:
            widget.get_by_role("button", name=f"Tie Answer {letter} with").click()
        before = rank
    widget.get_by_role("button", name="Save and next").click()


def _keys_rank(widget: Locator, value: dict[str, Any]) -> None:
    press = widget.page.keyboard.press
    press("ArrowDown")
    before = 0
    for place, (rank, letter) in enumerate(_order(value)):
        letters = [str(card.get_attribute("data-testid"))[-1] for card in widget.locator(".rl-card").all()]
        at = letters.index(str(widget.page.evaluate("document.activeElement.dataset.testid"))[-1])
        for _ in range(abs(letters.index(letter) - at)):
            press("ArrowDown" if letters.index(letter) > at else "ArrowUp")
        for _ in range(letters.index(letter) - place):
            press("Shift+ArrowUp")
        if rank == before:
            press("=")
        before = rank
    press("Enter")


def _mouse_rate(widget: Locator, value: dict[str, Any]) -> None:
    for axis, grade in value["axes"].items():
        widget.get_by_test_id(f"{axis}-{grade}").click()
    for flag in value["flags"]:
        widget.get_by_label(flag).click()
    widget.get_by_role("button", name="Save and next").click()


def _keys_rate(widget: Locator, value: dict[str, Any]) -> None:
    keyboard = widget.page.keyboard
    for grade in value["axes"].values():
        keyboard.press(str(grade))
    for flag in value["flags"]:
        while widget.page.evaluate("document.activeElement.value") != flag:
            keyboard.press("Tab")
        keyboard.press("Space")
    keyboard.press("Enter")


def _mouse_thumbs(widget: Locator, value: dict[str, Any]) -> None:
    widget.get_by_test_id(f"thumb-{value['thumb']}").click()
    if value["ideal"]:
        widget.get_by_role("textbox", name="What would an ideal").fill(value["ideal"])
    widget.get_by_role("button", name="Save and next").click()


def _keys_thumbs(widget: Locator, value: dict[str, Any]) -> None:
    keyboard = widget.page.keyboard
    keyboard.press("1" if value["thumb"] == "up" else "2")
    for key in ("i", "Control+a", "Delete"):  # What was written before an undo is still there.
        keyboard.press(key)
    keyboard.type(value["ideal"])
    keyboard.press("Control+Enter")


def _mouse_edit(widget: Locator, value: dict[str, Any]) -> None:
    text = widget.get_by_role("textbox", name="Your version")
    if value["text"].startswith(" Cat"):  # Struck out at the end: the last word of the answer.
        text.evaluate(
            "(node, at) => { node.focus(); node.setSelectionRange(at, node.value.length); }", len(value["text"])
        )
        widget.get_by_role("button", name="Strike out").click()
    else:
        text.fill(value["text"])
    widget.get_by_role("button", name="Save and next").click()


def _keys_edit(widget: Locator, value: dict[str, Any]) -> None:
    keyboard = widget.page.keyboard
    for key in ("e", "Control+a", "Delete"):
        keyboard.press(key)
    keyboard.type(value["text"])
    keyboard.press("Control+Enter")


def _turn(widget: Locator) -> None:
    widget.get_by_test_id("choice-1").wait_for()


def _mouse_chat(widget: Locator, value: dict[str, Any]) -> None:
    widget.get_by_role("textbox", name="Your message").fill("Summarize it.")
    widget.get_by_role("button", name="Send").click()
    _turn(widget)
    widget.get_by_test_id("choice-2").click()
    widget.get_by_test_id(f"rating-{value['rating']}").click()


def _keys_chat(widget: Locator, value: dict[str, Any]) -> None:
    keyboard = widget.page.keyboard
    keyboard.press("e")
    keyboard.type("Summarize it.")
    keyboard.press("Control+Enter")
    _turn(widget)
    keyboard.press("2")
    widget.get_by_test_id(f"rating-{value['rating']}").wait_for()
    keyboard.press("Escape")
    keyboard.press(str(value["rating"]))


@dataclass(frozen=True)
class Way:
    """How a person answers one kind of item, and five answers as they see the answers on the page."""

    by_mouse: Act
    by_keys: Act
    values: tuple[dict[str, Any], ...]


def _grades(*grades: int) -> dict[str, int]:
    return dict(zip(("overall", "accuracy", "coverage", "coherence"), grades, strict=True))


WAYS = {
    "compare": Way(
        _mouse_compare,
        _keys_compare,
        (
            {"scale": 8, "step": 1},
            {"scale": 8, "step": 7},
            {"choice": "tie"},
            {"scale": 8, "step": 4},
            {"choice": "cannot_compare"},
        ),
    ),
    "rank": Way(
        _mouse_rank,
        _keys_rank,
        tuple({"ranks": ranks} for ranks in ([1, 2, 3, 4], [4, 1, 3, 2], [2, 1, 3, 3], [3, 4, 1, 1], [2, 2, 1, 4])),
    ),
    "rate": Way(
        _mouse_rate,
        _keys_rate,
        (
            {"axes": _grades(1, 2, 3, 4), "flags": []},
            {"axes": _grades(7, 6, 5, 4), "flags": ["sexual content", "moralizes"]},
            {"axes": _grades(4, 4, 4, 4), "flags": ["moralizes"]},
            {"axes": _grades(7, 7, 7, 7), "flags": []},
            {"axes": _grades(1, 1, 1, 1), "flags": ["fails to follow the task"]},
        ),
    ),
    "thumbs": Way(
        _mouse_thumbs,
        _keys_thumbs,
        (
            {"thumb": "up", "ideal": ""},
            {"thumb": "down", "ideal": "My cat left, what now?"},
            {"thumb": "down", "ideal": ""},
            {"thumb": "up", "ideal": "b u s d d"},
            {"thumb": "down", "ideal": "1 2 3"},
        ),
    ),
    "edit": Way(
        _mouse_edit,
        _keys_edit,
        (
            {"text": "My cat left."},
            {"text": "b a d d x"},
            {"text": " Cat "},
            {"text": "A cat left \u00e9\U0001f600."},
            {"text": ""},
        ),
    ),
    "compare_clips": Way(
        _mouse_clips,
        _keys_clips,
        tuple({"choice": choice} for choice in ("first", "second", "tie", "cannot_compare", "second")),
    ),
    "chat": Way(_mouse_chat, _keys_chat, tuple({"rating": rating} for rating in (1, 7, 4, 2, 6))),
}
