"""The append-only log of what labelers said, and how things stand after it.

An answer, a skip and a step (a turn of a chat, say) are live until an undo names them. Of an assignment the last live
answer or skip counts: to answer again is to correct oneself, and to undo that is to return to the answer before.

Every function works inside the caller's transaction.
"""

import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa

from rlhf_lab.labeling import claims
from rlhf_lab.labeling.items import Assignment, Item, Progress
from rlhf_lab.labeling.schema import StoreError, assignments, events, items, labelers

_undo = events.alias("undo")
is_live = sa.and_(events.c.kind != "undo", ~sa.exists().where(_undo.c.undoes == events.c.id))
"""Condition on an event: it says something, and nobody took it back."""
_STATUS = {"answer": "answered", "skip": "skipped"}
_PART = 5000
"""Values in one statement; databases take some ten thousand at most."""


def item_row(item: Item) -> dict[str, Any]:
    """An item as the table has it, without its rank and overlap."""
    names = ("id", "kind", "prompt", "gold", "info")
    return {name: getattr(item, name) for name in names} | {
        "answers": list(item.answers),
        "sources": list(item.sources),
    }


def _item(row: Any) -> Item:
    return Item(
        id=row.id,
        kind=row.kind,
        prompt=row.prompt,
        answers=tuple(row.answers),
        sources=tuple(row.sources),
        gold=row.gold,
        info=row.info,
    )


def read_items(connection: sa.Connection, ids: Sequence[str] | None = None, kind: str | None = None) -> list[Item]:
    """The items of these ids, or of that kind, or all, in the order in which they are asked.

    Raises:
        StoreError: The store has none of one of the ids.
    """
    statement = sa.select(items).order_by(items.c.rank, items.c.id)
    if kind is not None:
        statement = statement.where(items.c.kind == kind)
    if ids is None:
        return [_item(row) for row in connection.execute(statement)]
    parts = [statement.where(items.c.id.in_(ids[start : start + _PART])) for start in range(0, len(ids), _PART)]
    found = [_item(row) for part in parts for row in connection.execute(part)]
    if missing := set(ids) - {item.id for item in found}:
        raise StoreError(f"the store has no item {min(missing)!r}.")
    return found


def add_items(connection: sa.Connection, new: Sequence[Item], *, overlap: int, seed: int | None) -> int:
    """Add the items that are not there yet, after those that are; in random order if there is a `seed`.

    Raises:
        StoreError: Two different items of one id, among the new ones or with one that is there.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for item in new:
        if by_id.setdefault(item.id, item_row(item)) != item_row(item):
            raise StoreError(f"two different items have the id {item.id!r}; give each its own.")
    there = set(connection.scalars(sa.select(items.c.id))) & by_id.keys()
    for old in read_items(connection, sorted(there)):
        if item_row(old) != by_id.pop(old.id):
            raise StoreError(f"the store has another item of the id {old.id!r}; give the new one its own.")
    last = connection.scalar(sa.select(sa.func.max(items.c.rank)))
    start = 0 if last is None else int(last) + 1
    ranks = range(len(by_id)) if seed is None else claims.shown_order(len(by_id), f"{seed}/items/{start}")
    known = {"overlap": overlap, "missing": overlap}
    rows = [row | known | {"rank": start + rank} for row, rank in zip(by_id.values(), ranks, strict=True)]
    if rows:
        connection.execute(items.insert(), rows)
    return len(rows)


def prioritize(connection: sa.Connection, priorities: dict[str, float]) -> None:
    """Let items come before all others, the highest priority first.

    Raises:
        StoreError: The store has no such item.
    """
    read_items(connection, list(priorities))
    least = connection.scalar(sa.select(sa.func.min(items.c.rank))) or 0.0
    for place, name in enumerate(sorted(priorities, key=lambda name: (priorities[name], name)), start=1):
        connection.execute(items.update().where(items.c.id == name).values(rank=least - place))


def lock_labeler(connection: sa.Connection, labeler: str) -> None:
    """Hold the labeler's row, so that two kernels of one person take turns.

    Raises:
        StoreError: There is no such labeler.
    """
    row = sa.select(labelers.c.id).where(labelers.c.id == labeler).with_for_update(key_share=True)
    if connection.scalar(row) is None:
        raise unknown_labeler(labeler, connection.scalars(sa.select(labelers.c.id).order_by(labelers.c.id)))


def unknown_labeler(name: str, known: Iterable[str]) -> StoreError:
    """The error about a labeler whom the store does not know."""
    known = list(known)
    like = get_close_matches(name, known, n=1)
    some = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    hint = f"did you mean {like[0]}?" if like else f"it has {some or 'none yet'}."
    return StoreError(f"the store has no labeler {name!r}; {hint}")


def read_assignments(connection: sa.Connection, *conditions: Any, num: int | None = None) -> list[Assignment]:
    """Assignments that meet the conditions, by place, with what was said of them so far."""
    statement = sa.select(assignments).where(*conditions).order_by(assignments.c.labeler, assignments.c.place)
    rows = list(connection.execute(statement if num is None else statement.limit(num)))
    if not rows:
        return []
    by_id = {item.id: item for item in read_items(connection, list({row.item for row in rows}))}
    said: dict[int, list[Any]] = {row.id: [] for row in rows}
    for start in range(0, len(rows), _PART):
        part = [row.id for row in rows[start : start + _PART]]
        live = sa.select(events).where(events.c.assignment.in_(part), is_live).order_by(events.c.id)
        for event in connection.execute(live):
            said[event.assignment].append(event)
    return [_assignment(row, by_id[row.item], said[row.id]) for row in rows]


def _assignment(row: Any, item: Item, said: list[Any]) -> Assignment:
    verdicts = [event for event in said if event.kind in _STATUS]
    last = verdicts[-1] if verdicts else None
    return Assignment(
        id=row.id,
        item=item,
        labeler=row.labeler,
        place=row.place,
        sides=tuple(row.sides),
        status=row.status,
        value=None if last is None else last.value,
        comment="" if last is None else last.comment,
        steps=tuple(event.value for event in said if event.kind == "step"),
    )


def record(connection: sa.Connection, row: Any, event: str, uid: str, **said: Any) -> None:
    """Append an event about the assignment `row`, once for each `uid`, and bring the assignment's status up to it.

    Raises:
        StoreError: The uid belongs to another assignment's event.
    """
    uid = uid or uuid.uuid4().hex
    there = connection.scalar(sa.select(events.c.assignment).where(events.c.uid == uid))
    if there is not None:
        if there != row.id:
            raise StoreError(f"the event {uid!r} was about another item; reload the page.")
        return
    now = time.time()
    known = {"uid": uid, "assignment": row.id, "labeler": row.labeler, "kind": event, "at": now}
    connection.execute(events.insert().values(known | said))
    verdicts = sa.select(events.c.kind).where(events.c.assignment == row.id, events.c.kind.in_(_STATUS), is_live)
    last = connection.scalar(verdicts.order_by(events.c.id.desc()).limit(1))
    status = row.status if event == "step" else _STATUS.get(last or "", "open")
    connection.execute(assignments.update().where(assignments.c.id == row.id).values(status=status, at=now))
    claims.take(connection, row.item, (status in claims.HOLDING) - (row.status in claims.HOLDING))


def last_said(connection: sa.Connection, labeler: str, kind: str) -> Any:
    """The labeler's last live event of this kind of item: its `id` and its `assignment`; None if there is none."""
    mine = sa.select(events.c.id, events.c.assignment).join(assignments, events.c.assignment == assignments.c.id)
    mine = mine.where(events.c.labeler == labeler, assignments.c.kind == kind, is_live)
    return connection.execute(mine.order_by(events.c.id.desc()).limit(1)).first()


def seconds_spent(connection: sa.Connection, labeler: str, kind: str) -> float:
    """Seconds of all that the labeler did, what was taken back included."""
    total = sa.select(sa.func.coalesce(sa.func.sum(events.c.seconds), 0.0))
    total = total.join(assignments, events.c.assignment == assignments.c.id)
    return float(connection.scalar(total.where(events.c.labeler == labeler, assignments.c.kind == kind)) or 0.0)


def read_progress(connection: sa.Connection, labeler: str, kind: str, limit: int | None) -> Progress:
    """How far a labeler is."""
    mine = (assignments.c.labeler == labeler, assignments.c.kind == kind)
    counts = sa.select(assignments.c.status, sa.func.count()).where(*mine).group_by(assignments.c.status)
    by_status = {row[0]: row[1] for row in connection.execute(counts)}
    given = sum(by_status.values())
    held = given - by_status.get("released", 0)
    total = held + claims.num_left(connection, labeler, kind, with_gold=True)
    return Progress(
        answered=by_status.get("answered", 0),
        skipped=by_status.get("skipped", 0),
        total=total if limit is None else max(held, min(limit, total)),
        given=given,
        seconds=seconds_spent(connection, labeler, kind),
    )


def read_labels(connection: sa.Connection, kind: str | None = None) -> list[dict[str, Any]]:
    """One row for each answer that counts; see `LabelStore.labels`."""
    statement = sa.select(events, assignments.c.item, assignments.c.sides, items, labelers.c.kind.label("labeler_kind"))
    statement = statement.join(assignments, events.c.assignment == assignments.c.id)
    statement = statement.join(items, assignments.c.item == items.c.id).join(
        labelers, events.c.labeler == labelers.c.id
    )
    if kind is not None:
        statement = statement.where(items.c.kind == kind)
    said: dict[int, list[Any]] = {}
    for row in connection.execute(statement.where(is_live).order_by(events.c.id)).mappings():
        said.setdefault(row[events.c.assignment], []).append(row)
    spent = sa.select(events.c.assignment, sa.func.sum(events.c.seconds)).group_by(events.c.assignment)
    seconds = {row[0]: row[1] for row in connection.execute(spent)}
    rows = []
    for number, live in said.items():
        verdicts = [row for row in live if row[events.c.kind] in _STATUS]
        if verdicts and verdicts[-1][events.c.kind] == "answer":
            steps = [row[events.c.value] for row in live if row[events.c.kind] == "step"]
            rows.append(_label(verdicts[-1]) | {"steps": steps, "seconds": float(seconds[number])})
    return sorted(rows, key=lambda row: row["event"])


def _label(row: Any) -> dict[str, Any]:
    shown = ("prompt", "answers", "sources", "gold", "info", "kind")
    return {
        "item": row[assignments.c.item],
        "labeler": row[events.c.labeler],
        "labeler_kind": row["labeler_kind"],
        **{name: row[items.c[name]] for name in shown},
        "sides": row[assignments.c.sides],
        "value": row[events.c.value],
        "comment": row[events.c.comment],
        "created_at": datetime.fromtimestamp(row[events.c.at], UTC),
        "interface": row[events.c.interface],
        "event": row[events.c.id],
    }
