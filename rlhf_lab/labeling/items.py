"""What people are asked and what they may answer: items, assignments, and the check of each kind of answer.

Answers are kept in the order of the item's answers, whatever the order in which they were shown.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_lab.labeling.schema import StoreError

KINDS = {
    "compare": (2, 2),
    "rank": (2, 9),
    "rate": (1, 1),
    "thumbs": (1, 1),
    "edit": (1, 1),
    "chat": (0, 0),
    "compare_clips": (2, 2),
    "tamer_pad": (0, 0),
    "probe": (1, 1),
}
"""Ways of asking, with the least and the largest number of answers that an item of the kind has."""
AXES = ("overall", "accuracy", "coverage", "coherence")
"""What a summary is rated on, 1 to 7. Stiennon et al. 2020, arXiv:2009.01325, appendix C.2."""
FLAGS = (
    "fails to follow the task",
    "says something that the post does not",
    "sexual content",
    "violent content",
    "demeans a group of people",
    "gives harmful advice",
    "expresses an opinion",
    "moralizes",
)
"""What a rated answer can be flagged for; after the metadata of Ouyang et al. 2022, arXiv:2203.02155, table 3."""
FILM = {"frames": "how many", "columns": "frames in a row of the picture", "frames_per_second": "when played"}
"""What the `info` of two clips has, whose answers are pictures of all their frames; see `clips`."""
TRY = {"rule": "in words", "rule_id": "what it is known by", "post": "as it was asked", "start": "of the answer"}
"""What the `info` of a try to break a rule has, whose answer came from a policy; see `probe`."""
_MADE = {
    "compare_clips": (FILM, "clips are made of arrays of frames, by lab.compare_clips"),
    "probe": (TRY, "tries are made by asking a policy about a rule, by lab.probe"),
}
"""Of items that are not made by hand: what their `info` must have, and how they are made."""
VERDICTS = ("broken", "kept", "cannot_tell")
"""What a person may say of such an answer and its rule."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to ask about: a prompt and its answers.

    Item(prompt="SUBREDDIT: r/pets ... TL;DR:", answers=(" My cat left.", " Cats."), sources=("supervised", "ppo"))
    """

    prompt: str
    answers: Sequence[str] = ()
    sources: Sequence[str] = ()
    """Who wrote each answer. It is stored and never shown."""
    kind: str = "compare"
    id: str = ""
    """By default derived from the contents, so that the same item is added once."""
    gold: int | None = None
    """Index of the answer that is right, where that is known: such an item is a gold question."""
    info: dict[str, Any] = field(default_factory=dict)
    """Whatever else belongs to it, such as `kinds` of the answers."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if self.kind not in KINDS:
            raise StoreError(f"an item's kind is one of {', '.join(KINDS)}, not {self.kind!r}.")
        object.__setattr__(self, "answers", tuple(self.answers))
        object.__setattr__(self, "sources", tuple(self.sources) or ("",) * len(self.answers))
        least, most = KINDS[self.kind]
        if not least <= len(self.answers) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise StoreError(f"an item to {self.kind} has {wanted} answer(s), not {len(self.answers)}: {self._name()}.")
        if len(self.sources) != len(self.answers):
            raise StoreError(f"{len(self.answers)} answers came with {len(self.sources)} sources: {self._name()}.")
        if len(set(self.answers)) < len(self.answers):
            raise StoreError(f"two answers are the same text, so there is nothing to choose: {self._name()}; drop one.")
        for name, text in [("prompt", self.prompt), *((f"answer {i}", text) for i, text in enumerate(self.answers))]:
            self._check_text(name, text)
        needed, made = _MADE.get(self.kind, ({}, ""))
        if not needed.keys() <= self.info.keys():
            raise StoreError(f"{made}: {self._name()} has none.")
        if self.gold is not None and self.gold not in range(len(self.answers)):
            raise StoreError(f"gold is the index of the right answer or None, not {self.gold!r}: {self._name()}.")
        object.__setattr__(self, "id", self.id or self._digest())

    def _name(self) -> str:
        return f"item {self.id}" if self.id else f"{self.prompt[:40]!r}"

    def _check_text(self, name: str, text: object) -> None:
        may_be_empty = name == "prompt" and self.kind == "chat"
        if not isinstance(text, str) or not (text.strip() or may_be_empty):
            raise StoreError(f"the {name} of {self._name()} has no text ({text!r:.40}); fill it in, or leave it out.")
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise StoreError(f"the {name} of {self._name()} has a NUL character or half a surrogate pair; remove it.")

    def _digest(self) -> str:
        content = json.dumps([self.kind, self.prompt, self.answers, self.sources], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def items_of(rows: Iterable[Any], kind: str) -> list[Item]:
    """Items, from items or rows: `prompt` with `answers`, or with `chosen` and `rejected`, or with `completion`.

    Raises:
        StoreError: A row has none of these columns, or cannot be asked (the row is named).
    """
    items = []
    for index, row in enumerate(rows):
        try:
            items.append(row if isinstance(row, Item) else _item_of(row, kind))
        except StoreError as error:
            raise StoreError(f"row {index}: {error}") from error
    if wrong := next((item for item in items if item.kind != kind), None):
        raise StoreError(f"item {wrong.id} is one to {wrong.kind}, not to {kind}; add it under its own kind.")
    return items


def _item_of(row: Any, kind: str) -> Item:
    if not isinstance(row, Mapping) or "prompt" not in row:
        has = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise StoreError(f"an item needs a column 'prompt'; this row has {has or 'none'}.")
    known: dict[str, Any] = {name: row[name] for name in ("id", "gold", "info", "sources") if row.get(name) is not None}
    if row.get("answers") is not None:
        answers = tuple(row["answers"])
    elif "chosen" in row and "rejected" in row:
        answers = (row["chosen"], row["rejected"])
    else:
        answers = tuple(row[name] for name in ("completion",) if name in row)
    return Item(prompt=row["prompt"], answers=answers, kind=kind, **known)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One item given to one labeler, with what they have said of it so far."""

    id: int
    item: Item
    labeler: str
    place: int
    """0 for the first item that they were given of this kind, and so on."""
    sides: tuple[int, ...]
    """Indices of the answers in the order in which they are shown."""
    status: str
    """open, answered, skipped or released (given to somebody else, as its time ran out)."""
    value: dict[str, Any] | None = None
    """Their answer as it stands."""
    comment: str = ""
    steps: tuple[dict[str, Any], ...] = ()
    """What they said on the way to it: the turns of a chat, a naive interpretation."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a labeler is with one kind of item.

    Progress(answered=12, skipped=1, total=40, given=14, seconds=312.5)
    """

    answered: int
    skipped: int
    total: int
    """What they have been given and what is still there for them."""
    given: int
    """What they have ever been given: the place of the next item."""
    seconds: float


def check_kind(kind: str) -> str:
    """`kind` if it is one of `KINDS`.

    Raises:
        StoreError: It is not.
    """
    if kind not in KINDS:
        raise StoreError(f"a kind is one of {', '.join(KINDS)}, not {kind!r}.")
    return kind


def check_event(event: str, comment: str, seconds: float) -> None:
    """Refuse an event that is none.

    Raises:
        StoreError: An unknown event, a comment that is no text, or a time that is no number of seconds.
    """
    if event not in ("answer", "skip", "step"):
        raise StoreError(f"an event is answer, skip or step, not {event!r}.")
    if not isinstance(comment, str):
        raise StoreError(f"a comment is text, not {comment!r:.40}.")
    if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise StoreError(f"seconds is a number from 0 on, not {seconds!r:.40}.")


def check_value(item: Item, value: Any) -> dict[str, Any]:
    """`value` if it is an answer to `item`.

    Raises:
        StoreError: It is not; the message says what one looks like.
    """
    if not isinstance(value, dict) or not _CHECKS[item.kind](item, value):
        raise StoreError(f"{value!r:.100} is no answer to an item of kind {item.kind}; one is {_EXAMPLES[item.kind]}.")
    return value


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_comparison(item: Item, value: dict[str, Any]) -> bool:
    if set(value) == {"choice"}:
        return value["choice"] in ("tie", "cannot_compare")
    return set(value) == {"scale", "step"} and value["scale"] in (8, 9) and _is_whole(value["step"], 1, value["scale"])


def _is_clip_choice(item: Item, value: dict[str, Any]) -> bool:
    return set(value) == {"choice"} and value["choice"] in ("first", "second", "tie", "cannot_compare")


def _is_ranking(item: Item, value: dict[str, Any]) -> bool:
    ranks = value.get("ranks")
    if set(value) != {"ranks"} or not isinstance(ranks, list) or len(ranks) != len(item.answers):
        return False
    return all(_is_whole(rank, 1, len(ranks)) for rank in ranks) and min(ranks) == 1


def _is_rating(item: Item, value: dict[str, Any]) -> bool:
    axes, flags = value.get("axes"), value.get("flags")
    if set(value) != {"axes", "flags"} or not isinstance(axes, dict) or not isinstance(flags, list):
        return False
    return bool(axes) and all(_is_whole(grade, 1, 7) for grade in axes.values()) and all(map(_is_text, flags))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_thumb(item: Item, value: dict[str, Any]) -> bool:
    return set(value) == {"thumb", "ideal"} and value["thumb"] in ("up", "down") and _is_text(value["ideal"])


def _is_edit(item: Item, value: dict[str, Any]) -> bool:
    return (
        set(value) == {"text", "spans"} and _is_text(value["text"]) and value["spans"] == spans_of(item, value["text"])
    )


def _is_verdict(item: Item, value: dict[str, Any]) -> bool:
    return set(value) == {"rating"} and _is_whole(value["rating"], 1, 7)


def _is_session(item: Item, value: dict[str, Any]) -> bool:
    return set(value) == {"steps", "episodes"} and all(_is_whole(count, 0, 2**53) for count in value.values())


def _is_ruling(item: Item, value: dict[str, Any]) -> bool:
    return set(value) == {"verdict"} and value["verdict"] in VERDICTS


def spans_of(item: Item, text: str) -> list[dict[str, Any]]:
    """What an edit changed in the item's only answer; see `edits.spans`."""
    from rlhf_lab.labeling.edits import spans

    return spans(item.answers[0], text)


_CHECKS: dict[str, Callable[[Item, dict[str, Any]], bool]] = {
    "compare": _is_comparison,
    "rank": _is_ranking,
    "rate": _is_rating,
    "thumbs": _is_thumb,
    "edit": _is_edit,
    "chat": _is_verdict,
    "compare_clips": _is_clip_choice,
    "tamer_pad": _is_session,
    "probe": _is_ruling,
}
_EXAMPLES = {
    "compare": '{"scale": 8, "step": 1 to 8}, {"choice": "tie"} or {"choice": "cannot_compare"}',
    "rank": '{"ranks": a rank for each answer, 1 the best}',
    "rate": '{"axes": {"overall": 1 to 7, ...}, "flags": [...]}',
    "thumbs": '{"thumb": "up" or "down", "ideal": text}',
    "edit": '{"text": the new text, "spans": what spans() gives for it}',
    "chat": '{"rating": 1 to 7}',
    "tamer_pad": '{"steps": how many, "episodes": how many}',
    "compare_clips": '{"choice": "first", "second", "tie" or "cannot_compare"}',
    "probe": '{"verdict": "broken", "kept" or "cannot_tell"}',
}
