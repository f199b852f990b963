"""The pad for TAMER: an agent acts before a person, who says good or bad; each press is stored before it is learnt.

The page keeps the time. It asks for each step when it is due, and says of each press how long the frame that it shows
had been in sight: both are its own clock, so that no two clocks have to agree, and where nobody looks nothing runs.
"""

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rlhf_lab.control.live import LiveTamer
from rlhf_lab.control.tamer import TAMERAgent
from rlhf_lab.labeling.clips import png
from rlhf_lab.labeling.items import Assignment, Item
from rlhf_lab.labeling.markdown import default_guidelines, parse
from rlhf_lab.labeling.schema import StoreBusyError, StoreError
from rlhf_lab.labeling.session import VERSION
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.labeling.widget import FrontWidget

KIND = "tamer_pad"
PACES = (2.0, 10.0)
"""The slowest and the fastest [steps per second]."""
Reply = tuple[dict[str, Any], list[bytes]]
"""A message for the page, and the picture that belongs to it, if there is one."""


class PadSession:
    """What the page's messages do to the agent and the store."""

    def __init__(self, live: LiveTamer, store: LabelStore, labeler: str, info: Mapping[str, Any]) -> None:
        """Let the labeler in; the store gets a session when they first press Play."""
        store.enroll(labeler)
        self.live, self.store, self.labeler = live, store, labeler
        self.end = ""
        """Why it cannot go on, once that is so."""
        self._info, self._item = dict(info), f"{labeler}/{KIND}/{uuid.uuid4().hex[:12]}"
        self._assignment: Assignment | None = None
        self._spans = {0: (live.agent.clock, live.agent.clock)}
        self._driver: str | None = None  # The view that is playing: another one of the same widget looks on.
        self._action: int | None = None
        self._done: set[str] = set()  # A page that waits too long for a reply sends its message again.
        self._guard = threading.RLock()  # Messages come on another thread than cells run on.

    def handle(self, message: Mapping[str, Any]) -> Reply:
        """Do what a message says, once for each uid. Never raises: the page shows what went wrong."""
        known = {"uid": str(message.get("uid", "")), "view": message.get("view")}
        with self._guard:
            try:
                is_new = self._act(str(message.get("action")), message, known["uid"])
                picture = [png(picture_of(self.live.task), compress_level=1)] if is_new else []
                return known | {"ok": True, "frame": self._frame() if is_new else None, **self._counts()}, picture
            except StoreError as error:
                return known | {"ok": False, "retry": isinstance(error, StoreBusyError), "error": str(error)}, []
            except Exception as error:  # Of the task, the features or the agent: none of them can be trusted now.
                name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                self.end = f"{name}{error}"
                return known | {"ok": False, "retry": False, "error": self.end}, []

    def _act(self, action: str, message: Mapping[str, Any], uid: str) -> bool:
        """Whether there is something new to see."""
        if action == "show":
            return True
        if action == "tick":
            return self._tick(message.get("view"))
        if uid not in self._done:
            self._happen(action, message, uid)
            self._done.add(uid)
        return action == "new_episode"

    def _tick(self, view: Any) -> bool:
        if self.end or self._driver is None or view != self._driver:
            return False
        start = self.live.agent.clock
        self._action = self.live.step()
        self._spans[self.live.num_steps] = (start, self.live.agent.clock)
        return True

    def _happen(self, what: str, message: Mapping[str, Any], uid: str) -> None:
        if what not in ("play", "pause", "press", "pace", "new_episode", "stop"):
            raise StoreError(f"the page asked for {what!r:.40}, which this version does not know; run the cell again.")
        if self.end:
            raise StoreError(self.end)
        event: dict[str, Any] = {"what": what, "after": self.live.num_steps, "wall": float(message.get("wall", 0.0))}
        if what == "press":
            event |= self._moment(int(message["frame"]), float(message["late"]))
            event["value"] = 1.0 if float(message["value"]) > 0 else -1.0
        elif what == "pace":
            event["value"] = min(max(float(message["value"]), PACES[0]), PACES[1])
        self._record(event, uid, float(message.get("seconds", 0.0)))
        self.live.apply(event)
        if what in ("play", "pause", "stop"):
            self._driver = str(message.get("view")) if what == "play" else None
        if what == "stop":
            self.end = "this session was stopped; run the cell again for another."

    def _moment(self, frame: int, late: float) -> dict[str, Any]:
        """When on the agent's clock a press was made, `late` seconds after the page had drawn the frame.

        A frame stands for its step. One that stays longer, as the next is late, does not make the step longer.
        """
        start, end = self._spans[frame]
        return {"frame": frame, "late": late, "time": min(start + max(late, 0.0), end)}

    def _record(self, event: dict[str, Any], uid: str, seconds: float) -> None:
        """On disk when this returns; and only then may it happen."""
        if self._assignment is None:
            if event["what"] in ("stop", "pause"):
                return
            self._assignment = self._open()
        said = {"seconds": max(seconds, 0.0), "interface": f"widget {KIND} {VERSION}"}
        if event["what"] != "stop":
            self.store.record(self._assignment, event, event="step", uid=uid, **said)
            return
        value = {"steps": self.live.num_steps, "episodes": len(self.live.rows)}
        self.store.record(self._assignment, value, uid=uid, **said)

    def _open(self) -> Assignment:
        item = Item(id=self._item, kind=KIND, prompt=task_name(self.live.task), info=self._info)
        self.store.add_items([item], KIND, order="given")
        self.store.assign(self.labeler, [item.id])
        return next(one for one in self.store.given(self.labeler, KIND) if one.item.id == item.id)

    def _frame(self) -> dict[str, Any]:
        row = self.live.rows[-1]
        return {
            "number": self.live.num_steps,
            "episode": row["episode"] + 1,
            "step": row["steps"],
            "action": self._action if row["steps"] else None,
            "is_over": self.live.is_over,
        }

    def _counts(self) -> dict[str, Any]:
        return {
            "session": None if self._assignment is None else self._assignment.place,
            "presses": sum(row["presses"] for row in self.live.rows),
            "pace": self.live.agent.config.steps_per_second,
            "end": self.end,
        }


class PadWidget(FrontWidget):
    """A page before which an agent acts."""

    def __init__(self, session: PadSession, guidelines: str) -> None:
        """Show the agent, at rest, under the guidelines."""
        setup = {
            "kind": KIND,
            "title": f"Train an agent: {task_name(session.live.task)}",
            "guidelines": parse(guidelines),
        }
        pace = session.live.agent.config.steps_per_second
        super().__init__(session, setup=setup | {"pace": pace, "paces": list(PACES)})


def tamer_pad(
    task: gymnasium.Env[Any, Any],
    agent: TAMERAgent,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    seed: int = 0,
    max_steps: int = 1000,
    guidelines: str | None = None,
) -> PadWidget:
    """Let a person shape the agent, which acts before them 2 to 10 times a second and learns from each press at once.

    The cell returns at once. The agent acts while somebody plays, and rests when they pause, look elsewhere, or close
    the page. Its clock stands still then.

    Args:
        task: With a finite set of actions, made with `render_mode="rgb_array"`.
        agent: It changes. Its pace is `steps_per_second` of its config, and the person may change that.
        store: Where each press goes before it is learnt; see `replay_pad`.
        labeler: Who presses.
        seed: Of where episodes begin.
        max_steps: An episode ends there, if the task does not end it before.
        guidelines: Markdown shown above the agent; by default those that ship.

    Raises:
        ValueError: The task cannot be drawn, its actions are no finite set, or the agent's pace is out of bounds.
        StoreError: The store cannot be used, or does not know the labeler.

    Reference:
        Knox and Stone 2009, 'Interactively Shaping Agents via Human Reinforcement: The TAMER Framework'.
    """
    pace = agent.config.steps_per_second
    if not PACES[0] <= pace <= PACES[1]:
        raise ValueError(
            f"a person can follow {PACES[0]:g} to {PACES[1]:g} steps a second, not {pace:g}; make the agent with "
            "lab.TAMERConfig(steps_per_second=5)."
        )
    if getattr(task, "render_mode", None) != "rgb_array":
        name = task_name(task)
        raise ValueError(
            f"the pad has to draw the task, but {name} has a missing renderer (render_mode is {task.render_mode!r}); "
            f'make it with lab.make_task("{name}", render_mode="rgb_array").'
        )
    info = {
        "seed": seed,
        "max_steps": max_steps,
        "config": asdict(agent.config),
        "clock": agent.clock,
        "started_at": time.time(),
    }
    live = LiveTamer(task, agent, seed=seed, max_steps=max_steps)
    picture_of(task)
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    session = PadSession(live, store, labeler, info)
    return PadWidget(session, default_guidelines(KIND) if guidelines is None else guidelines)


def replay_pad(
    task: gymnasium.Env[Any, Any],
    agent: TAMERAgent,
    store: LabelStore | str | Path = "labels.sqlite",
    *,
    labeler: str = "me",
    session: int = -1,
) -> list[dict[str, Any]]:
    """Play a session of `tamer_pad` again, without waiting: the agent becomes the one that the person had in the end.

    Args:
        task: Made as for the session; it need not be drawn.
        agent: As the session's was before it: made with the same features, config and seed. It changes.
        store: Where the session is.
        labeler: Who pressed.
        session: 0 for their first, -1 for their last.

    Returns:
        `episode`, `steps`, `return`, `presses` of each episode, as of `lab.tamer`.

    Raises:
        ValueError: The store has no such session, or the agent is not as that one was.
    """
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    given = store.progress(labeler, KIND).given
    found = store.at(labeler, KIND, session if session >= 0 else given + session)
    if found is None:
        raise StoreError(f"{labeler!r} has {given} sessions in the store {store.name}, so there is none {session}.")
    info = found.item.info
    if asdict(agent.config) != info["config"]:
        raise ValueError(f"the session's agent had {info['config']}, not {asdict(agent.config)}; make it with these.")
    if agent.clock != info["clock"]:
        raise ValueError(
            f"the session began at {info['clock']:g} s on the agent's clock, and this agent's shows {agent.clock:g} s; "
            "make the agent anew, or replay the sessions before this one first."
        )
    live = LiveTamer(task, agent, seed=info["seed"], max_steps=info["max_steps"])
    end = [] if found.value is None else [{"what": "stop", "after": found.value["steps"]}]
    live.replay([*found.steps, *end])
    return live.rows


def task_name(task: gymnasium.Env[Any, Any]) -> str:
    """What Gymnasium calls it, or else its class."""
    return task.spec.id if task.spec is not None else type(task.unwrapped).__name__


def picture_of(task: gymnasium.Env[Any, Any]) -> np.ndarray:
    """The task as it stands: uint8 (height, width, 3).

    Raises:
        ValueError: It lacks a library to draw with, or gives no such array.
    """
    try:
        picture = task.render()
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"{task_name(task)} cannot be drawn: {error}.") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        has = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ValueError(f"render() must give an array uint8 (height, width, 3); that of {task_name(task)} gave {has}.")
    return picture
