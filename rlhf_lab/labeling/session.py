"""One labeler at one front end: the screen to show, and what a message from the page does to the store.

The page holds no state of its own: what it shows comes from here, and this comes from the store. It shows the
answers in the order of the sides, and says of none who wrote it.
"""

import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_lab.labeling import edits
from rlhf_lab.labeling.items import AXES, FILM, FLAGS, Assignment
from rlhf_lab.labeling.schema import StoreBusyError, StoreError
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.records import QUERY_TEMPLATE

_OTHER = {"first": "second", "second": "first"}
VERSION = "1"
"""Of the front ends; each label says with which one it was made."""
_QUERY = re.compile(
    re.escape(QUERY_TEMPLATE).replace(r"\{subreddit\}", "(.*?)").replace(r"\{title\}", "(.*?)")
    .replace(r"\{post\}", "(.*)"),
    re.DOTALL,
)  # fmt: skip

Respond = Callable[[list[dict[str, str]]], str]
"""Conversation so far, as `role` and `content`, to the next reply."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an interface offers; fields that a kind of item does not know are ignored by it."""

    scale: int = 8
    """Steps from one answer to the other: 8 has no middle, 9 has one and is Stiennon et al.'s."""
    tie: bool = True
    cannot_compare: bool = True
    comment: bool = True
    naive_interpretation: bool = False
    """Ask what each answer says before the post is shown, as Stiennon et al. 2020, appendix C.2, do."""
    axes: dict[str, str] = field(default_factory=dict)
    """Axes to rate and their definitions."""
    flags: Sequence[str] = FLAGS
    limit: int | None = None
    """Items for this labeler; None is as many as there are."""

    def __post_init__(self) -> None:
        """Refuse what cannot be shown."""
        if self.scale not in (8, 9):
            raise StoreError(f"scale is 8 (no middle) or 9 (with one), not {self.scale!r}.")
        if self.limit is not None and self.limit < 1:
            raise StoreError(f"limit is a number of items from 1 on, or None, not {self.limit!r}.")
        object.__setattr__(self, "axes", self.axes or AXIS_DEFINITIONS)


AXIS_DEFINITIONS = dict(
    zip(
        AXES,
        (
            "How good is the summary as a whole, for somebody who has not read the post?",
            "Does the summary say only what the post says? 7: every statement is right; 1: it misleads.",
            "Does it say what matters in the post, the question included? 7: all of it; 1: none of it.",
            "Does it read well on its own, without the post? 7: clear and fluent; 1: hard to understand.",
        ),
        strict=True,
    )
)
"""Questions for the axes of Stiennon et al. 2020, arXiv:2009.01325, appendix C.2, in this project's words."""


class Session:
    """Screens for `labeler`, and the effect of the page's messages.

    Args:
        store: Where the items are and the labels go.
        labeler: Who labels.
        kind: How they are asked.
        options: What the interface offers.
        respond: For a chat, one or two ways to reply; the second reply comes from the last of them.

    Raises:
        StoreError: The store does not know the labeler.
    """

    def __init__(
        self, store: LabelStore, labeler: str, kind: str, options: Options, respond: Sequence[tuple[str, Respond]] = ()
    ) -> None:
        """Let the labeler in."""
        self.store, self.labeler, self.kind, self.options, self.respond = store, labeler, kind, options, respond
        self.interface = f"widget {kind} {VERSION}"
        self._place: int | None = None
        self._done: set[str] = set()  # A page that waits too long for a reply sends its message again.
        self._guard = threading.RLock()  # Messages come on another thread than cells run on.
        store.enroll(labeler)

    def screen(self) -> dict[str, Any]:
        """What to show now and next, and how far the labeler is."""
        with self._guard:
            found = self.store.ask(self.labeler, self.kind, limit=self.options.limit)
            if self._place is not None:
                earlier = self.store.at(self.labeler, self.kind, self._place)
                found = [earlier] if earlier else found
            progress = self.store.progress(self.labeler, self.kind, limit=self.options.limit)
            place = found[0].place if found else progress.given
            return {
                "current": self._view(found[0]) if found else None,
                "next": self._view(found[1]) if len(found) > 1 else None,
                "is_earlier": self._place is not None,
                "can_back": place > 0,
                "can_undo": progress.answered + progress.skipped > 0 or bool(found and found[0].steps),
                "progress": {name: getattr(progress, name) for name in ("answered", "skipped", "total", "seconds")},
            }

    def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message says, once for each uid; the reply has the new screen, or says why not.

        Never raises: an error in the kernel would leave the page waiting.
        """
        uid = str(message.get("uid", ""))
        try:
            with self._guard:
                if message.get("action") == "preview":
                    return {"uid": uid, "ok": True, "spans": self._preview(message)}
                if uid not in self._done:
                    self._act(str(message.get("action")), message, uid)
                    self._done.add(uid)
                return {"uid": uid, "ok": True, "screen": self.screen()}
        except StoreBusyError as error:
            return {"uid": uid, "ok": False, "retry": True, "error": str(error)}
        except Exception as error:
            reply = {"uid": uid, "ok": False, "retry": False, "error": f"{error or type(error).__name__}"}
            try:
                return reply | {"screen": self.screen()}
            except Exception:
                return reply

    def _act(self, action: str, message: dict[str, Any], uid: str) -> None:
        if action in ("answer", "skip", "step"):
            self._record(action, message, uid)
        elif action == "undo":
            undone = self.store.undo(self.labeler, self.kind, uid=uid, interface=self.interface)
            self._place = None if undone is None or undone.status == "open" else undone.place
        elif action == "show":
            self._show(int(message["place"]))
        elif action == "say":
            self._reply(message, uid)
        elif action != "refresh":
            raise StoreError(
                f"the page asked for {action!r:.40}, which this version does not know; run the cell again."
            )

    def _preview(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        return edits.spans(self._mine(message).item.answers[0], str(message["text"]))

    def _mine(self, message: dict[str, Any]) -> Assignment:
        found = self.store.assignment(int(message["assignment"]))
        if found is None or found.labeler != self.labeler or found.item.kind != self.kind:
            raise StoreError("this item is not in this store any more; run the cell again.")
        return found

    def _record(self, event: str, message: dict[str, Any], uid: str) -> None:
        mine, value = self._mine(message), message["value"]
        if not isinstance(value, dict):
            raise StoreError(f"{value!r:.40} is no answer.")
        if event == "answer":
            value = in_item_order(value, mine.sides)
            if self.kind == "edit":
                value = {"text": value.get("text"), "spans": edits.spans(mine.item.answers[0], str(value.get("text")))}
        elif event == "step" and "interpretation" in value:
            texts = value["interpretation"]
            value = {"interpretation": [str(texts[mine.sides.index(place)]) for place in range(len(mine.sides))]}
        elif event == "step":
            value = _turn(mine, value.get("chosen"))
        known = {"uid": uid, "comment": str(message.get("comment", "")), "interface": self.interface}
        self.store.record(mine, value, event=event, seconds=float(message.get("seconds", 0.0)), **known)
        if event != "step":
            self._place = None

    def _show(self, place: int) -> None:
        """Go back to an earlier item, or forward to where one was."""
        found = self.store.at(self.labeler, self.kind, place)
        self._place = place if found is not None and found.status in ("answered", "skipped") else None

    def _reply(self, message: dict[str, Any], uid: str) -> None:
        """Have two replies written to what the labeler says, and keep them, so that they are not drawn twice."""
        mine, text = self._mine(message), str(message["text"])
        if not text.strip():
            raise StoreError("write something first.")
        prompt = [*conversation(mine), {"role": "user", "content": text}]
        (first, one), (second, other) = self.respond[0], self.respond[-1]
        replies = [one(list(prompt)), other(list(prompt))]
        sides = [0, 1]
        random.Random(uid).shuffle(sides)
        offer = {"offered": replies, "prompt": prompt, "sources": [first, second], "sides": sides}
        seconds = float(message.get("seconds", 0.0))
        known = {"uid": uid, "interface": self.interface, "seconds": seconds}
        self.store.record(mine, offer, event="step", **known)

    def _view(self, assignment: Assignment) -> dict[str, Any]:
        """An assignment as the page may see it: in the order of the sides, without sources and gold."""
        item, steps = assignment.item, assignment.steps
        is_hidden = self.options.naive_interpretation and not any("interpretation" in step for step in steps)
        view: dict[str, Any] = {
            "assignment": assignment.id,
            "place": assignment.place,
            "status": assignment.status,
            "answers": [item.answers[side].strip() for side in assignment.sides],
            "value": None if assignment.value is None else in_shown_order(assignment.value, assignment.sides),
            "comment": assignment.comment,
            "is_hidden": is_hidden and self.kind == "compare",
        }
        if not view["is_hidden"]:
            view["post"] = post_parts(item.prompt)
        if self.kind == "edit":
            view["answers"] = list(item.answers)  # Spans count its characters.
        if self.kind == "compare_clips":
            view["film"] = {name: item.info[name] for name in FILM}
        if self.kind == "chat":
            view |= {"messages": conversation(assignment), "offer": _offer(assignment)}
        return view


def post_parts(prompt: str) -> dict[str, str]:
    """A prompt's subreddit, title and text, if it is a query of the TL;DR task; otherwise all of it as text."""
    match = _QUERY.fullmatch(prompt)
    return dict(zip(("subreddit", "title", "text"), match.groups(), strict=True)) if match else {"text": prompt}


def in_shown_order(value: dict[str, Any], sides: Sequence[int]) -> dict[str, Any]:
    """An answer as the labeler gave it, with the answers in the order in which they were shown.

    Example:
        >>> in_shown_order({"scale": 8, "step": 2}, (1, 0))
        {'scale': 8, 'step': 7}
    """
    if "step" in value and list(sides) == [1, 0]:
        return value | {"step": value["scale"] + 1 - value["step"]}
    if value.get("choice") in _OTHER and list(sides) == [1, 0]:
        return {"choice": _OTHER[value["choice"]]}
    if "ranks" in value:
        return value | {"ranks": [value["ranks"][side] for side in sides]}
    return value


def in_item_order(value: dict[str, Any], sides: Sequence[int]) -> dict[str, Any]:
    """What was answered about the answers as shown, as an answer in the item's own order.

    Example:
        >>> in_item_order({"ranks": [3, 1, 2]}, (2, 0, 1))
        {'ranks': [1, 2, 3]}
    """
    if isinstance(value.get("ranks"), list) and len(value["ranks"]) == len(sides):
        return value | {"ranks": [value["ranks"][sides.index(place)] for place in range(len(sides))]}
    if value.get("choice") in _OTHER or (isinstance(value.get("step"), int) and value.get("scale") in (8, 9)):
        return in_shown_order(value, sides)  # Two sides: to swap them again is to swap them back.
    return value


def conversation(assignment: Assignment) -> list[dict[str, str]]:
    """The messages of a chat so far: of each turn what was said and the reply that was chosen."""
    turns = [step for step in assignment.steps if "chosen" in step]
    if not turns:
        return []
    last = turns[-1]
    kept = 0 if last["chosen"] == "tie" else last["chosen"]
    return [*last["prompt"], {"role": "assistant", "content": last["replies"][kept]}]


def _offer(assignment: Assignment) -> dict[str, Any] | None:
    """The replies that wait to be chosen from, in the order in which they are shown."""
    last = assignment.steps[-1] if assignment.steps else {}
    if "offered" not in last:
        return None
    replies = [last["offered"][side] for side in last["sides"]]
    return {"text": last["prompt"][-1]["content"], "replies": replies}


def _turn(assignment: Assignment, chosen: Any) -> dict[str, Any]:
    """The turn of a chat in which the labeler chose the reply shown at `chosen`, or found both as good."""
    last = assignment.steps[-1] if assignment.steps else {}
    if "offered" not in last or chosen not in (0, 1, "tie"):
        raise StoreError(f"there are no replies of which {chosen!r:.20} could be the better one; run the cell again.")
    known = {name: last[name] for name in ("prompt", "sources", "sides")}
    turn = 1 + sum("chosen" in step for step in assignment.steps)
    better = chosen if chosen == "tie" else last["sides"][chosen]
    return {"turn": turn, **known, "replies": last["offered"], "chosen": better}
