"""Who gets which item next: overlap, gold questions, and items that their labeler left lying.

Every function works inside the caller's transaction, which holds the labeler's row, so that two kernels of one labeler
cannot be given the same place.
"""

import random
import time
from typing import Any

import sqlalchemy as sa

from rlhf_lab.labeling.schema import assignments, items

HOLDING = ("open", "answered")
"""Statuses of an assignment that count towards its item's overlap."""


def gold_places(rate: float, start: int, stop: int, seed: str) -> set[int]:
    """Places of a labeler's sequence, from `start` to before `stop`, that gold questions take.

    The k-th lies anywhere from k / rate to (k + 1) / rate, each place equally likely: the share is exact over every
    stretch of 1 / rate places, and nobody can tell when the next one comes.

    Args:
        rate: Share of gold questions, 0 to 1.
        start: First place, from 0.
        stop: Place after the last.
        seed: Of this labeler's draws.

    Example:
        >>> len(gold_places(0.1, 0, 200, "ana")), len(gold_places(0.1, 40, 50, "ana"))
        (20, 1)
    """
    if rate <= 0:
        return set()
    chosen, k = set(), int(start * rate)
    while (first := -int(-k // rate)) < stop:
        last = -int(-(k + 1) // rate) - 1
        place = random.Random(f"{seed}/{k}").randint(first, max(first, last))
        if start <= place:
            chosen.add(place)
        k += 1
    return {place for place in chosen if place < stop}


def shown_order(num_answers: int, seed: str) -> list[int]:
    """Answers in a random order."""
    order = list(range(num_answers))
    random.Random(seed).shuffle(order)
    return order


def claim(connection: sa.Connection, labeler: str, kind: str, place: int, *, seed: str, gold_rate: float) -> bool:
    """Give `labeler` an item of `kind` at `place`; False if nothing is left for them."""
    wants_gold = place in gold_places(gold_rate, place, place + 1, f"{seed}/{labeler}/{kind}")
    item = _next_item(connection, labeler, kind, gold=wants_gold)
    if item is None and (wants_gold or not _has_ordinary(connection, kind)):
        item = _next_item(connection, labeler, kind, gold=not wants_gold)
    if item is None:
        return False
    assign(connection, labeler, item.id, kind, place, num_answers=len(item.answers), seed=seed)
    return True


def assign(
    connection: sa.Connection, labeler: str, item: str, kind: str, place: int, *, num_answers: int, seed: str
) -> None:
    """Write down that `labeler` gets `item` at `place`, sides drawn."""
    sides = shown_order(num_answers, f"{seed}/{labeler}/{item}")
    row = {"item": item, "labeler": labeler, "kind": kind, "place": place, "sides": sides, "status": "open"}
    connection.execute(assignments.insert().values(row | {"at": time.time()}))
    take(connection, item, 1)


def take(connection: sa.Connection, item: str, change: int) -> None:
    """`change` more labelers hold the item."""
    if change:
        statement = items.update().where(items.c.id == item).values(missing=items.c.missing - change)
        connection.execute(statement)


def release_left(connection: sa.Connection, hold_seconds: float) -> int:
    """Give back the items whose labelers have left them lying; how many."""
    limit = time.time() - hold_seconds
    left = sa.and_(assignments.c.status == "open", assignments.c.at < limit)
    rows = connection.execute(
        sa.select(assignments.c.id, assignments.c.item).where(left).with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        connection.execute(
            assignments.update().where(assignments.c.id == row.id).values(status="released", at=time.time())
        )
        take(connection, row.item, -1)
    return len(rows)


def num_left(connection: sa.Connection, labeler: str, kind: str, *, with_gold: bool = False) -> int:
    """Items that still want this labeler, those included that others are just taking.

    Args:
        connection: The transaction.
        labeler: Who.
        kind: Of items.
        with_gold: Count gold questions too, which are there for everybody.
    """
    parts = [_wanted(labeler, kind, gold=False)] + [_wanted(labeler, kind, gold=True)] * with_gold
    return sum(connection.scalar(part.with_only_columns(sa.func.count())) or 0 for part in parts)


def num_given(connection: sa.Connection, labeler: str, kind: str) -> int:
    """Items of this kind that the labeler has ever been given."""
    mine = sa.select(sa.func.count()).select_from(assignments)
    return connection.scalar(mine.where(assignments.c.labeler == labeler, assignments.c.kind == kind)) or 0


def given_to(connection: sa.Connection, labeler: str) -> set[str]:
    """Ids of all items that the labeler has ever been given."""
    return set(connection.scalars(sa.select(assignments.c.item).where(assignments.c.labeler == labeler)))


def open_items(labeler: str, kind: str) -> tuple[Any, ...]:
    """Conditions on the labeler's open assignments."""
    return assignments.c.labeler == labeler, assignments.c.kind == kind, assignments.c.status == "open"


def fill(
    connection: sa.Connection,
    labeler: str,
    kind: str,
    *,
    num: int,
    limit: int | None,
    hold_seconds: float,
    seed: str,
    gold_rate: float,
) -> bool:
    """Give the labeler items until `num` are open; True if they have all that `limit` allows them.

    Where there are too few, items that others have left lying for `hold_seconds` are given back first.
    """
    num_open = connection.scalar(sa.select(sa.func.count()).select_from(assignments).where(*open_items(labeler, kind)))
    missing = num - (num_open or 0)
    if missing <= 0:
        return False
    place, released = num_given(connection, labeler, kind), False
    while missing > 0 and (limit is None or place < limit):
        if claim(connection, labeler, kind, place, seed=seed, gold_rate=gold_rate):
            missing, place = missing - 1, place + 1
        elif released or not release_left(connection, hold_seconds):
            return False
        else:
            released = True
    return limit is not None and place >= limit


def _wanted(labeler: str, kind: str, *, gold: bool) -> sa.Select[Any, Any]:
    mine = sa.exists().where(assignments.c.item == items.c.id, assignments.c.labeler == labeler)
    wanted = sa.select(items.c.id, items.c.answers).where(items.c.kind == kind, ~mine)
    return (
        wanted.where(items.c.gold.is_not(None)) if gold else wanted.where(items.c.gold.is_(None), items.c.missing > 0)
    )


def _next_item(connection: sa.Connection, labeler: str, kind: str, *, gold: bool) -> Any:
    # A row that another labeler is just taking is passed over (PostgreSQL; SQLite has one writer at a time).
    wanted = _wanted(labeler, kind, gold=gold).order_by(items.c.rank, items.c.id).limit(1)
    return connection.execute(wanted if gold else wanted.with_for_update(skip_locked=True, key_share=True)).first()


def _has_ordinary(connection: sa.Connection, kind: str) -> bool:
    ordinary = sa.select(items.c.id).where(items.c.kind == kind, items.c.gold.is_(None)).limit(1)
    return connection.scalar(ordinary) is not None
