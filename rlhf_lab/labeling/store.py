"""The label store: items, who is asked what, and every answer, on disk before anyone says that it is kept.

store = LabelStore("labels.sqlite", overlap=3, gold_rate=0.1)
store.add_items(items)
store.add_labelers(["ana"])
first, second = store.ask("ana", "compare")
store.record(first, {"scale": 8, "step": 2}, seconds=14.0)
"""

import contextlib
import time
import weakref
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rlhf_lab.labeling import claims, log, schema
from rlhf_lab.labeling.items import Assignment, Item, Progress, check_event, check_kind, check_value, items_of
from rlhf_lab.labeling.schema import StoreError, assignments, events, items, labelers

if TYPE_CHECKING:
    from datasets import Dataset

_TRIES = 100
"""Times that a labeler looks again for an item that others are just taking, before it is taken for gone."""


class LabelStore:
    """Labels in one SQLite file, or in a PostgreSQL database for a class.

    Args:
        where: The file's path, or `postgresql://user@host/name`. It is made if it does not exist.
        overlap: How many labelers each item gets; of the items that are added from now on.
        gold_rate: Share of gold questions in each labeler's sequence, 0 to 1.
        hold_minutes: An item that its labeler leaves open for so long is given to somebody else, if one is short.
        seed: Draws the order of items, the sides, and the places of gold questions.

    The settings are kept in the store; one that is given again replaces the one that is there.

    Raises:
        StoreError: The store cannot be opened (see `schema.connect`), or a setting has an impossible value.
    """

    def __init__(
        self,
        where: str | Path = "labels.sqlite",
        *,
        overlap: int | None = None,
        gold_rate: float | None = None,
        hold_minutes: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Open or make the store."""
        given = {"overlap": overlap, "gold_rate": gold_rate, "hold_minutes": hold_minutes, "seed": seed}
        given = {name: value for name, value in given.items() if value is not None}
        schema.check_settings(**given)
        self.where = str(where)
        self._engine = schema.connect(where)
        weakref.finalize(self, self._engine.dispose)
        url = self._engine.url
        self.name = url.render_as_string(hide_password=True) if url.host else str(url.database)
        if schema.DEFAULTS.keys() - self.settings().keys() or given:
            with self._writing() as connection:
                schema.write_settings(connection, schema.DEFAULTS | schema.read_settings(connection) | given)

    def __getstate__(self) -> dict[str, Any]:
        """A store travels to another process as its address."""
        return {"where": self.where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open it there."""
        LabelStore.__init__(self, state["where"])

    @contextlib.contextmanager
    def _writing(self) -> Generator[sa.Connection]:
        with schema.explaining(self.name), schema.writing(self._engine) as connection:
            yield connection

    @contextlib.contextmanager
    def _reading(self) -> Generator[sa.Connection]:
        with schema.explaining(self.name), schema.reading(self._engine) as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file or the server; the store opens it again when it is next asked."""
        self._engine.dispose()

    def settings(self) -> dict[str, Any]:
        """overlap, gold_rate, hold_minutes, seed; and closed: only labelers who were added may label."""
        with self._reading() as connection:
            return schema.read_settings(connection)

    def add_items(
        self, rows: Iterable[Any], kind: str = "compare", *, order: str = "shuffled", overlap: int | None = None
    ) -> int:
        """Put items in the store, but for those that it has already, unchanged; how many were new.

        Args:
            rows: `Item`s, or rows with `prompt` and `answers` (or `chosen` and `rejected`, or `completion`).
            kind: How they are asked.
            order: shuffled, or given. Items that are added later come later.
            overlap: How many labelers each gets; by default the store's setting.

        Raises:
            StoreError: No items, one that cannot be asked, two different ones of the same id. Nothing is added then.
        """
        new = items_of(rows, check_kind(kind))
        if not new:
            raise StoreError("there are no items to add; give at least one.")
        if order not in ("shuffled", "given"):
            raise StoreError(f"order is 'shuffled' or 'given', not {order!r}.")
        schema.check_settings(**{} if overlap is None else {"overlap": overlap})
        with self._writing() as connection:
            settings = schema.read_settings(connection)
            wanted = settings["overlap"] if overlap is None else overlap
            seed = settings["seed"] if order == "shuffled" else None
            return log.add_items(connection, new, overlap=wanted, seed=seed)

    def items(self, kind: str | None = None) -> list[Item]:
        """The items, in the order in which they are asked."""
        with self._reading() as connection:
            return log.read_items(connection, None, None if kind is None else check_kind(kind))

    def item_ids(self, kind: str) -> set[str]:
        """Ids of the items of this kind."""
        with self._reading() as connection:
            return set(connection.scalars(sa.select(items.c.id).where(items.c.kind == check_kind(kind))))

    def prioritize(self, priorities: dict[str, float]) -> None:
        """Ask the items with the highest priority first; they come before all that are not named.

        Raises:
            StoreError: The store has no such item.
        """
        with self._writing() as connection:
            log.prioritize(connection, priorities)

    def add_labelers(self, names: Iterable[str], *, kind: str = "person", closed: bool | None = None) -> None:
        """Let people label; those who are there already stay as they are.

        Args:
            names: An id for each.
            kind: person or simulated.
            closed: From now on only labelers who were added may label (True), or anyone who gives a name (False).

        Raises:
            StoreError: An id that is empty.
        """
        names = list(dict.fromkeys(names))
        if bad := [name for name in names if not isinstance(name, str) or not name.strip() or "\0" in name]:
            raise StoreError(f"a labeler's id is a word or a name, not {bad[0]!r}.")
        with self._writing() as connection:
            known = set(connection.scalars(sa.select(labelers.c.id)))
            new = [{"id": name, "kind": kind, "created_at": time.time()} for name in names if name not in known]
            if new:
                connection.execute(labelers.insert(), new)
            if closed is not None:
                schema.write_settings(connection, {"closed": closed})

    def labelers(self) -> dict[str, str]:
        """Labelers' ids, and whether each is a person or simulated."""
        with self._reading() as connection:
            return {row.id: row.kind for row in connection.execute(sa.select(labelers).order_by(labelers.c.id))}

    def enroll(self, name: str) -> None:
        """Let `name` label, if the store is open to all or knows them.

        Raises:
            StoreError: The store is closed and does not know them.
        """
        known = self.labelers()
        if name not in known and self.settings()["closed"]:
            raise log.unknown_labeler(name, known)
        self.add_labelers([name])

    def ask(self, labeler: str, kind: str, *, num: int = 2, limit: int | None = None) -> list[Assignment]:
        """What this labeler is to answer now, and next: up to `num` open items, given to them if need be.

        Args:
            labeler: Who is asked.
            kind: How.
            num: Items to hold open; the second can be shown as soon as the first is answered.
            limit: Give this labeler no more items than that.

        Raises:
            StoreError: An unknown labeler or kind.
        """
        check_kind(kind)
        for _ in range(_TRIES):
            # As much as can be is read outside of the writing, for which others wait.
            settings = self.settings()
            with self._writing() as connection:
                log.lock_labeler(connection, labeler)
                known = {"seed": str(settings["seed"]), "gold_rate": float(settings["gold_rate"])}
                hold = 60.0 * settings["hold_minutes"]
                is_full = claims.fill(connection, labeler, kind, num=num, limit=limit, hold_seconds=hold, **known)
            with self._reading() as connection:
                found = log.read_assignments(connection, *claims.open_items(labeler, kind), num=num)
                if found or is_full or not claims.num_left(connection, labeler, kind):
                    return found
            time.sleep(0.01)  # What is left is just being given to others, who may yet leave it.
        return []

    def assign(self, labeler: str, ids: Sequence[str]) -> int:
        """Give `labeler` these items, beyond the items' overlap if it is full; how many they did not have yet.

        Raises:
            StoreError: An unknown labeler or item.
        """
        with self._writing() as connection:
            log.lock_labeler(connection, labeler)
            seed = str(schema.read_settings(connection)["seed"])
            given = claims.given_to(connection, labeler)
            known = {item.id: item for item in log.read_items(connection, list(ids))}
            new = [known[name] for name in dict.fromkeys(ids) if name not in given]
            for item in new:
                place = claims.num_given(connection, labeler, item.kind)
                claims.assign(connection, labeler, item.id, item.kind, place, num_answers=len(item.answers), seed=seed)
        return len(new)

    def assignment(self, number: int) -> Assignment | None:
        """The assignment of that number, as it stands; None if there is none."""
        with self._reading() as connection:
            return next(iter(log.read_assignments(connection, assignments.c.id == number)), None)

    def at(self, labeler: str, kind: str, place: int) -> Assignment | None:
        """The item that the labeler was given at `place`, as it stands; None if there is none."""
        return next(iter(self.given(labeler, kind, assignments.c.place == place)), None)

    def given(self, labeler: str, kind: str, *conditions: Any) -> list[Assignment]:
        """All that the labeler was ever given of this kind, in that order, as it stands; or what meets `conditions`."""
        with self._reading() as connection:
            mine = (assignments.c.labeler == labeler, assignments.c.kind == kind, *conditions)
            return log.read_assignments(connection, *mine)

    def record(
        self,
        assignment: Assignment | int,
        value: dict[str, Any],
        *,
        event: str = "answer",
        uid: str = "",
        comment: str = "",
        seconds: float = 0.0,
        interface: str = "python",
    ) -> None:
        """Write down what the labeler said; on disk when this returns.

        Args:
            assignment: Which item, given to whom; or its number.
            value: The answer (see `items.check_value`); for a skip `{"reason": text}`; for a step whatever it holds.
            event: answer, skip or step.
            uid: The front end's id of this event: sent twice, it is kept once.
            comment: What the labeler wrote beside it.
            seconds: Spent on it.
            interface: Front end and version.

        Raises:
            StoreError: No such assignment, or a value that is no answer to the item. Nothing is written then.
            StoreBusyError: The disk is full or the store is locked. Nothing is written; try again with the same uid.
        """
        number = assignment if isinstance(assignment, int) else assignment.id
        check_event(event, comment, seconds)
        this = sa.select(assignments).where(assignments.c.id == number)
        with self._reading() as connection:
            row = connection.execute(this).first()
            if row is None:
                raise StoreError(f"the store {self.name} has no assignment {number}.")
            if event == "answer":
                check_value(log.read_items(connection, [row.item])[0], value)
        said = {"value": value, "comment": comment, "seconds": float(seconds), "interface": interface}
        with self._writing() as connection:
            log.lock_labeler(connection, row.labeler)
            log.record(connection, connection.execute(this).one(), event, uid, **said)

    def undo(self, labeler: str, kind: str, *, uid: str = "", interface: str = "python") -> Assignment | None:
        """Take back the last thing that the labeler said of this kind of item.

        Returns:
            The item as it stands now: open again, or with its earlier answer; None if there is nothing to take back.
        """
        check_kind(kind)
        with self._writing() as connection:
            log.lock_labeler(connection, labeler)
            number = connection.scalar(sa.select(events.c.assignment).where(events.c.uid == uid)) if uid else None
            if number is None:
                last = log.last_said(connection, labeler, kind)
                if last is None:
                    return None
                number = last.assignment
                row = connection.execute(sa.select(assignments).where(assignments.c.id == number)).one()
                said = {"value": {}, "comment": "", "seconds": 0.0, "interface": interface}
                log.record(connection, row, "undo", uid, undoes=last.id, **said)
            return log.read_assignments(connection, assignments.c.id == number)[0]

    def progress(self, labeler: str, kind: str, *, limit: int | None = None) -> Progress:
        """How far the labeler is with this kind of item."""
        with self._reading() as connection:
            return log.read_progress(connection, labeler, kind, limit)

    def labels(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What counts: the answers as they stand, one row for each item and labeler, in the order of answering.

        Returns:
            Rows of item, kind, labeler, labeler_kind, prompt, answers, sources, sides, gold, info, value, steps,
            comment, seconds (all that this labeler spent on the item), created_at (UTC), interface and event (its
            number in the log).
        """
        with self._reading() as connection:
            return log.read_labels(connection, None if kind is None else check_kind(kind))

    def comparisons(self, **choice: Any) -> "Dataset":
        """The labels as `lab.train_reward_model` takes them; see `learning.comparisons_from` for the choice of them."""
        from rlhf_lab.labeling.learning import comparison_rows  # Here, as it needs `datasets`, and labeling does not.

        return comparison_rows(self.labels(), **choice)
