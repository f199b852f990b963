"""The label database: its tables, its versions, and errors in plain words. SQLite in one file, or PostgreSQL by URL."""

import contextlib
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import event, exc

from rlhf_lab.labeling.turns import turn

VERSION = 1
"""Of the tables below; a store that an older kit wrote is brought up to it when it is opened."""
MIGRATIONS: dict[int, Callable[[Operations], None]] = {}
"""Version to the step that leads there from the one before."""
BUSY_SECONDS = 4.0
"""How long a write waits for another program's before it gives up."""
DEFAULTS = {"overlap": 1, "gold_rate": 0.0, "hold_minutes": 60.0, "seed": 0, "closed": False}
"""Settings of a new store; see `store.LabelStore`."""
_CREATION_LOCK = 7_245_201
"""PostgreSQL's advisory lock under which the tables are made: any number that nothing else in the database uses."""

metadata = sa.MetaData()
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)
items = sa.Table(
    "items",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("rank", sa.Float, nullable=False),  # Lower is asked first.
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("answers", sa.JSON, nullable=False),
    sa.Column("sources", sa.JSON, nullable=False),  # Who wrote each answer; never shown.
    sa.Column("gold", sa.Integer),  # Index of the right answer; such an item is a gold question.
    sa.Column("info", sa.JSON, nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    sa.Column("missing", sa.Integer, nullable=False),  # Labelers whom the item still wants.
)
sa.Index(
    "items_wanted", items.c.kind, items.c.rank, sqlite_where=items.c.missing > 0, postgresql_where=items.c.missing > 0
)
labelers = sa.Table(
    "labelers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # person or simulated
    sa.Column("created_at", sa.Float, nullable=False),
)
assignments = sa.Table(
    "assignments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("item", sa.Text, sa.ForeignKey("items.id"), nullable=False),
    sa.Column("labeler", sa.Text, sa.ForeignKey("labelers.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),  # 0, 1, 2 ... for each labeler and kind
    sa.Column("sides", sa.JSON, nullable=False),  # Answers in the order in which they are shown.
    sa.Column("status", sa.Text, nullable=False),  # open, answered, skipped or released
    sa.Column("at", sa.Float, nullable=False),  # When the status last changed.
    sa.UniqueConstraint("item", "labeler"),
    sa.UniqueConstraint("labeler", "kind", "place"),
)
sa.Index("assignments_open", assignments.c.status, assignments.c.at)
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False, unique=True),  # Of the front end: what is sent twice is kept once.
    sa.Column("assignment", sa.Integer, sa.ForeignKey("assignments.id"), nullable=False, index=True),
    sa.Column("labeler", sa.Text, sa.ForeignKey("labelers.id"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),  # answer, skip, step or undo
    sa.Column("undoes", sa.Integer, sa.ForeignKey("events.id"), unique=True),
    sa.Column("value", sa.JSON, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("interface", sa.Text, nullable=False),  # Front end and its version.
    sa.Column("at", sa.Float, nullable=False),  # Seconds since 1970, UTC.
    sqlite_autoincrement=True,
)

# The log is append-only, whoever writes to it.
for _change in ("UPDATE", "DELETE"):
    _sqlite = sa.DDL(
        f"CREATE TRIGGER events_no_{_change.lower()} BEFORE {_change} ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    )
    event.listen(events, "after_create", _sqlite.execute_if(dialect="sqlite"))
for _statement in (
    "CREATE OR REPLACE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$",
    "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events "
    "FOR EACH ROW EXECUTE FUNCTION events_append_only()",
):
    event.listen(events, "after_create", sa.DDL(_statement).execute_if(dialect="postgresql"))


class StoreError(ValueError):
    """The store cannot do what was asked; the message says why and what helps."""


class StoreBusyError(StoreError):
    """The store cannot write just now, but may be able to later: it is locked, full or out of reach."""


def connect(where: str | Path) -> sa.Engine:
    """An engine on the store at `where`, a file's path or a database's URL; tables are made or brought up to date.

    Raises:
        StoreError: No such folder, no store, damaged, not writable, out of reach, or written by a newer kit.
    """
    url = _url(where)
    name = url.render_as_string(hide_password=True) if url.host else str(url.database)
    if url.get_backend_name() == "sqlite":
        _check_file(url)
    with explaining(name):
        engine = _engine(url)
        try:
            with writing(engine) as connection:
                _bring_up_to_date(connection, name)
        except BaseException:
            engine.dispose()
            raise
    return engine


def _url(where: str | Path) -> sa.URL:
    text = str(where)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except exc.ArgumentError as error:
        raise StoreError(
            f"{text!r} is no database URL; write postgresql://user@host/name, or a file's path."
        ) from error
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise StoreError(f"labels are kept in SQLite or PostgreSQL, not in {backend!r}.")
    return url if backend == "sqlite" else url.set(drivername="postgresql+psycopg")


def _check_file(url: sa.URL) -> None:
    if not url.database or url.database == ":memory:":
        raise StoreError("a store in memory would lose the labels; give a file's path, such as labels.sqlite.")
    path = Path(url.database)
    if not path.parent.is_dir():
        raise StoreError(f"the folder {path.parent} does not exist; create it, or choose another path for {path.name}.")
    if path.is_dir():
        raise StoreError(f"{path} is a folder; give a file in it, such as {path / 'labels.sqlite'}.")


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(url, connect_args={"connect_timeout": 5}, pool_pre_ping=True)
        except ImportError as error:
            raise StoreError("PostgreSQL needs its driver: pip install 'rlhf-lab[postgresql]'.") from error
    # Messages of a widget arrive on another thread than cells run on, so connections must not belong to one.
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # We say BEGIN ourselves: a write must hold the lock before it reads.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # In WAL mode anything less may lose a commit when power fails.
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Generator[sa.Connection]:
    """A transaction that is on disk when the block ends."""
    file = engine.url.database if engine.url.get_backend_name() == "sqlite" else None
    with turn(file) if file else contextlib.nullcontext(), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def reading(engine: sa.Engine) -> Generator[sa.Connection]:
    """One consistent view of the store, which keeps no writer waiting."""
    with engine.connect().execution_options(reading=True) as connection, connection.begin():
        yield connection


def check_settings(**given: Any) -> None:
    """Refuse settings that are impossible.

    Raises:
        StoreError: One is; the message says what it must be.
    """
    if (overlap := given.get("overlap", 1)) < 1 or int(overlap) != overlap:
        raise StoreError(f"overlap is how many labelers an item gets, 1 or more, not {overlap!r}.")
    if not 0 <= (rate := given.get("gold_rate", 0.0)) <= 1:
        raise StoreError(f"gold_rate is a share from 0 to 1, not {rate!r}.")
    if (minutes := given.get("hold_minutes", 1.0)) <= 0:
        raise StoreError(f"hold_minutes must be above 0, not {minutes!r}.")


def read_settings(connection: sa.Connection) -> dict[str, Any]:
    """The store's settings."""
    return {row.key: row.value for row in connection.execute(sa.select(settings)) if row.key != "version"}


def write_settings(connection: sa.Connection, values: dict[str, Any]) -> None:
    """Set some of them."""
    connection.execute(settings.delete().where(settings.c.key.in_(list(values))))
    connection.execute(settings.insert(), [{"key": key, "value": value} for key, value in values.items()])


def _bring_up_to_date(connection: sa.Connection, name: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    if not sa.inspect(connection).has_table("settings"):
        if others := set(sa.inspect(connection).get_table_names()) & set(metadata.tables):
            raise StoreError(f"{name} is another program's database: it has a table {min(others)!r} of its own.")
        metadata.create_all(connection)
        connection.execute(settings.insert().values(key="version", value=VERSION))
        return
    found = connection.scalar(sa.select(settings.c.value).where(settings.c.key == "version"))
    if not isinstance(found, int):
        raise StoreError(f"{name} is a database, but no label store of this kit; choose another file.")
    if found > VERSION:
        raise StoreError(
            f"{name} was written by a newer rlhf_lab (its schema is {found}, this one knows up to {VERSION}); "
            "update the package: pip install -U rlhf-lab."
        )
    operations = Operations(MigrationContext.configure(connection))
    for version in range(found + 1, VERSION + 1):
        MIGRATIONS[version](operations)
        connection.execute(settings.update().where(settings.c.key == "version").values(value=version))


@contextlib.contextmanager
def explaining(name: str) -> Generator[None]:
    """Errors of the database come out as one sentence about the store `name`.

    Raises:
        StoreError: As inside; a `StoreBusyError` where a later try may succeed.
    """
    try:
        yield
    except (exc.DBAPIError, sqlite3.Error) as error:
        raise _explained(error, name) from error


def _explained(error: Exception, name: str) -> StoreError:
    text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    for part, sentence in _SENTENCES.items():
        if part in text:
            kind = StoreBusyError if part in _PASSING else StoreError
            return kind(sentence.format(name=name))
    if isinstance(error, exc.OperationalError):
        return StoreBusyError(f"the store {name} cannot be reached ({text}); check the address, and try again.")
    return StoreError(f"the store {name} refused: {text}.")


_SENTENCES = {
    "database is locked": "the store {name} is in use by another program that keeps it locked; try again in a moment.",
    "disk is full": "the disk is full, so {name} cannot grow; free some space, and try again.",
    "disk I/O error": "the disk of {name} does not take what is written; check its space and state, and try again.",
    "readonly database": "the store {name} cannot be written; change its permissions, or copy it elsewhere.",
    "unable to open database": "the store {name} cannot be opened; check that you may write it and its folder.",
    "not a database": "{name} is not a label store, or it is damaged; choose another file, or restore a copy.",
    "malformed": "the store {name} is damaged; restore a copy, or save what is left with `sqlite3 FILE .recover`.",
}
_PASSING = ("database is locked", "disk is full", "disk I/O error")
