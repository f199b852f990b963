"""Minutes of a person's time: what labels of each kind take, and simulated people who are asked for so many minutes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf_lab.feedback import Population
from rlhf_lab.labeling.items import Assignment, Item
from rlhf_lab.labeling.people import Crowd

POST_WORDS, SUMMARY_WORDS = 65, 20
"""Of a typical item of the embedded world."""
NUM_PEOPLE = 5
"""Who share the minutes: so few that each says enough for a mean of their own."""
WORDS_READ = 4.0
"""A second: 240 words a minute."""
WORDS_TYPED = 2 / 3
"""A second: 40 words a minute."""
DECISION = 4.0
"""Seconds to make up one's mind about one thing."""
WORK: dict[str, tuple[int, int, int, int]] = {
    "rate": (1, 1, 1, 0),
    "thumbs": (1, 1, 1, 0),
    "compare": (1, 2, 1, 0),
    "rank": (1, 4, 5, 0),
    "edit": (2, 1, 5, 10),
    "comment": (2, 1, 5, 14),
}
"""Of a label: readings of the post, summaries that are read, decisions, words that are typed.

To sort four takes five comparisons. Who edits, or writes what should change, reads the post again and holds five facts
against it. The words are what the simulated people were found to write (the systems' rows have them).
"""


def seconds_of(kind: str) -> float:
    """Seconds that a label of this kind takes.

    Example:
        >>> seconds_of("compare")
        30.25
    """
    posts, summaries, decisions, typed = WORK[kind]
    reading = (posts * POST_WORDS + summaries * SUMMARY_WORDS) / WORDS_READ
    return reading + decisions * DECISION + typed / WORDS_TYPED


SECONDS = {kind: seconds_of(kind) for kind in WORK}
"""Assumed seconds of a label, by kind: an example of a pace, and no finding."""


def minutes_of(kind: str, number: int, seconds: Mapping[str, float] = SECONDS) -> float:
    """Minutes that so many labels take.

    Args:
        seconds: Of one label, by kind; any pace that one likes.

    Raises:
        ValueError: An unknown kind, or a time that is no time.

    Example:
        >>> minutes_of("compare", 4, {"compare": 30.0})
        2.0
    """
    return number * _checked(kind, seconds) / 60


def labels_in(kind: str, minutes: float, seconds: Mapping[str, float] = SECONDS) -> int:
    """Labels that somebody gives in so many minutes; see `minutes_of`.

    Example:
        >>> labels_in("compare", 2.0, {"compare": 30.0})
        4
    """
    return int(60 * minutes / _checked(kind, seconds))


def _checked(kind: str, seconds: Mapping[str, float]) -> float:
    if kind not in seconds:
        raise ValueError(f"a kind of feedback is one of {', '.join(seconds)}, not {kind!r}.")
    if not 0 < seconds[kind] < float("inf"):
        raise ValueError(f"a label of the kind {kind} takes a time above 0, not {seconds[kind]} seconds.")
    return seconds[kind]


def temperature_of(people: Population, prompts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> float:
    """The noise with which these people agree at their rate on these pairs; it is theirs whatever they are asked."""
    first, second = (people.utilities(prompts, [pair[place] for pair in pairs]) for place in (0, 1))
    return people.temperature(first - second)


def asked(
    kind: str,
    people: Population,
    prompts: Sequence[str],
    answers: Sequence[Sequence[str]],
    *,
    temperature: float,
    careful: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What people say of answers, one of them of each in turn: rows such as `LabelStore.labels()` gives.

    No store is in between, whose writing to disk is the slow part of many labels.

    Args:
        kind: As in `WORK`; a comment is written beside a rating.
        people: Who.
        prompts: Posts.
        answers: Of each, as many as the kind takes.
        temperature: As `simulated_people` takes it, and the next two.
        careful: They check facts.
        seed: Draws their noise.
    """
    kind = "rate" if kind == "comment" else kind
    items = [
        Item(prompt=prompt, answers=tuple(texts), kind=kind, id=f"{index:05d}")
        for index, (prompt, texts) in enumerate(zip(prompts, answers, strict=True))
    ]
    crowd = Crowd(people, items, kind, temperature, scale=8, position_bias=0.0, careful=careful, seed=seed)
    labels = []
    for index, item in enumerate(items):
        place = index % len(people.labelers)
        name, sides = people.labelers[place].id, tuple(range(len(item.answers)))
        given = Assignment(id=index, item=item, labeler=name, place=index, sides=sides, status="open")
        value, comment, seconds = crowd.answer(place, given)
        said = {"value": value, "comment": comment, "seconds": seconds}
        known = {"item": item.id, "kind": kind, "labeler": name, "prompt": item.prompt, "answers": list(item.answers)}
        labels.append({**known, **said, "gold": None, "steps": [], "info": {}})
    return labels


def words_written(labels: Sequence[Mapping[str, Any]]) -> float:
    """Words that people typed, a label: what an edit put in, or a comment."""
    typed = [
        " ".join(change["text"] for change in label["value"].get("spans", [])) + " " + label["comment"]
        for label in labels
    ]
    return float(np.mean([len(text.split()) for text in typed]))
