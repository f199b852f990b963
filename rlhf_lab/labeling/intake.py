"""Labels that were given elsewhere: into the store all together or not at all, and each once.

An item is known by what it says, so labels of one comparison that come from two files, or that people here gave, meet
at the same item. An answer that the store has already from the labeler stays as it is.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from rlhf_lab.labeling import claims, log, schema
from rlhf_lab.labeling.items import Item, check_value
from rlhf_lab.labeling.schema import StoreError, assignments, events, items, labelers


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A label from elsewhere. Arrival(labeler="ana", item=Item(...), value={"scale": 9, "step": 2})."""

    labeler: str
    item: Item
    """What was labeled; its id does not matter."""
    value: dict[str, Any]
    """The answer, for the item's answers in their order here."""
    origin: dict[str, Any] = field(default_factory=dict)
    """What the source says beyond the answer; it is kept as a step `{"imported": ...}`."""
    is_shown_order: bool = False
    """Whether the item's answers stand in the order in which they were shown; otherwise that order is drawn."""

    def __post_init__(self) -> None:
        """Refuse what is no answer to the item."""
        check_value(self.item, self.value)


def take_in(
    connection: sa.Connection, arrivals: Sequence[Arrival], *, interface: str, labeler_kind: str = "person"
) -> int:
    """Write the labels down, inside the caller's transaction; how many the store did not have.

    Args:
        connection: The transaction.
        arrivals: In the order in which they count as given.
        interface: Of their events.
        labeler_kind: person or simulated, of labelers who are new.

    Raises:
        StoreError: An edit of a text that the store does not have.
    """
    _check_originals(connection, arrivals)
    settings = schema.read_settings(connection)
    names = sorted({arrival.labeler for arrival in arrivals})
    _add_labelers(connection, names, labeler_kind)
    found = _items_for(connection, arrivals, overlap=settings["overlap"])
    uids = [_uid(arrival.labeler, item.id) for arrival, item in zip(arrivals, found, strict=True)]
    there = _known(connection, events.c.uid, uids)
    given = {(row.labeler, row.item): row for row in _assignments(connection, names)}
    new, open_ones = [], []
    for arrival, item, uid in zip(arrivals, found, uids, strict=True):
        row = given.get((arrival.labeler, item.id))
        if uid in there or (row is not None and row.status == "answered"):
            continue
        (new if row is None else open_ones).append((arrival, item, uid))
    _insert(connection, new, interface=interface, seed=str(settings["seed"]))
    for arrival, item, uid in open_ones:
        for event in _events(arrival, item, uid, interface):
            kind, name = event.pop("kind"), event.pop("uid")
            row = connection.execute(_assignment(arrival.labeler, item.id)).one()
            log.record(connection, row, kind, name, **event)
    return len(new) + len(open_ones)


def _check_originals(connection: sa.Connection, arrivals: Sequence[Arrival]) -> None:
    """Refuse edits of what was never an answer here: nobody could say what they are better than, or who wrote it."""
    edits = [arrival.item for arrival in arrivals if arrival.item.kind == "edit"]
    there = {(item.prompt, text) for item in log.read_items(connection) for text in item.answers} if edits else set()
    for item in edits:
        if (item.prompt, item.answers[0]) not in there:
            raise StoreError(
                f"an edit's original {item.answers[0]!r:.60} is no answer in the store; add the item that it answers "
                f"first, or mend the text."
            )


def _uid(labeler: str, item: str) -> str:
    return "import/" + hashlib.sha256(json.dumps([labeler, item]).encode()).hexdigest()[:32]


def _add_labelers(connection: sa.Connection, names: Sequence[str], kind: str) -> None:
    there = _known(connection, labelers.c.id, names)
    new = [{"id": name, "kind": kind, "created_at": time.time()} for name in names if name not in there]
    if new:
        connection.execute(labelers.insert(), new)
    for name in names:
        log.lock_labeler(connection, name)


def _parts(values: Sequence[str], size: int = 5000) -> Iterable[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _known(connection: sa.Connection, column: sa.Column[str], values: Sequence[str]) -> set[str]:
    """Those of the values that the column has."""
    parts = (sa.select(column).where(column.in_(part)) for part in _parts(values))
    return {value for part in parts for value in connection.scalars(part)}


def _assignments(connection: sa.Connection, names: Sequence[str]) -> list[Any]:
    parts = (sa.select(assignments).where(assignments.c.labeler.in_(part)) for part in _parts(names))
    return [row for part in parts for row in connection.execute(part)]


def _assignment(labeler: str, item: str) -> sa.Select[Any]:
    return sa.select(assignments).where(assignments.c.labeler == labeler, assignments.c.item == item)


def _items_for(connection: sa.Connection, arrivals: Sequence[Arrival], *, overlap: int) -> list[Item]:
    """The store's item for each arrival; those that it lacks are added.

    A labeler who labeled the same thing several times gets as many items that say the same.
    """
    alike: dict[Any, list[Item]] = {}
    for kind in sorted({arrival.item.kind for arrival in arrivals}):
        for item in log.read_items(connection, kind=kind):
            alike.setdefault(_says(item), []).append(item)
    ids = set(connection.scalars(sa.select(items.c.id)))
    times: Counter[Any] = Counter()
    new, found = [], []
    for arrival in arrivals:
        content = _says(arrival.item)
        same = [item for item in alike.setdefault(content, []) if _is_the_same(item, arrival.item)]
        key = (arrival.labeler, content, json.dumps(arrival.item.info), arrival.item.sources)
        if times[key] == len(same):
            name, number = arrival.item.id, 1
            while name in ids:
                number += 1
                name = f"{arrival.item.id}-{number}"
            new.append(replace(arrival.item, id=name))
            ids.add(name)
            alike[content].append(new[-1])
            same.append(new[-1])
        found.append(same[times[key]])
        times[key] += 1
    log.add_items(connection, new, overlap=overlap, seed=None)
    return found


def _says(item: Item) -> tuple[str, str, frozenset[str]]:
    return item.kind, item.prompt, frozenset(item.answers)


def _is_the_same(item: Item, arrived: Item) -> bool:
    """Whether two items of the same texts are one: from one post and by the same writers, where the source says it."""
    if item.info.get("messages") != arrived.info.get("messages"):
        return False
    if "post" not in arrived.info:
        return True
    writers = [sorted(zip(one.answers, one.sources, strict=True)) for one in (item, arrived)]
    return writers[0] == writers[1] and item.info.get("post", item.id) == arrived.info["post"]


def _seen_here(arrival: Arrival, item: Item) -> tuple[dict[str, Any], list[int]]:
    """The answer, for the order that the store's item has, and the places of the arrival's answers in it."""
    order = [item.answers.index(text) for text in arrival.item.answers]
    value = arrival.value
    if item.kind == "compare" and order == [1, 0] and "step" in value:
        value = value | {"step": value["scale"] + 1 - value["step"]}
    return value, order


def _events(arrival: Arrival, item: Item, uid: str, interface: str) -> list[dict[str, Any]]:
    said = {"comment": "", "seconds": 0.0, "interface": interface}
    step = {"uid": f"{uid}/origin", "kind": "step", "value": {"imported": arrival.origin}, **said}
    return [step] * bool(arrival.origin) + [
        {"uid": uid, "kind": "answer", "value": _seen_here(arrival, item)[0], **said}
    ]


def _insert(connection: sa.Connection, new: Sequence[tuple[Arrival, Item, str]], *, interface: str, seed: str) -> None:
    """Assignments, answered as they are made, and their events."""
    if not new:
        return
    now, rows = time.time(), []
    places: dict[tuple[str, str], int] = {}
    for arrival, item, _ in new:
        mine = (arrival.labeler, item.kind)
        place = places[mine] if mine in places else claims.num_given(connection, *mine)
        places[mine] = place + 1
        drawn = claims.shown_order(len(item.answers), f"{seed}/{arrival.labeler}/{item.id}")
        sides = _seen_here(arrival, item)[1] if arrival.is_shown_order else drawn
        row = {"item": item.id, "labeler": arrival.labeler, "kind": item.kind, "place": place, "sides": sides}
        rows.append(row | {"status": "answered", "at": now})
    connection.execute(assignments.insert(), rows)
    numbers = {
        (row.labeler, row.item): row.id for row in _assignments(connection, sorted({name for name, _ in places}))
    }
    known = [
        {**event, "assignment": numbers[arrival.labeler, item.id], "labeler": arrival.labeler, "at": now}
        for arrival, item, uid in new
        for event in _events(arrival, item, uid, interface)
    ]
    connection.execute(events.insert(), known)
    for name, number in sorted(Counter(item.id for _, item, _ in new).items()):
        claims.take(connection, name, number)
