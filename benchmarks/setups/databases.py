"""Engines as a user makes them without this package, and with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from sqlalchemy import create_engine, event
from sqlalchemy.orm import sessionmaker

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import Session

WAL = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")
"""What people add to SQLAlchemy's default, and this package has as its own."""


@contextmanager
def disposing(engine: Engine) -> Generator[Engine]:
    """Dispose of an engine in the end."""
    try:
        yield engine
    finally:
        engine.dispose()


def sqlite_url(file: Path | None) -> str:
    """Return the URL of a file, or of a database in memory."""
    return "sqlite://" if file is None else f"sqlite:///{file}"


@contextmanager
def plain_engine(
    file: Path | None = None, *, pragmas: tuple[str, ...] = (), begin: str | None = None
) -> Generator[Engine]:
    """Make SQLAlchemy's own engine, and dispose of it.

    Args:
        file: the database; ``None`` is one in memory.
        pragmas: statements for every new connection.
        begin: the statement that begins a transaction, by the recipe in SQLAlchemy's manual
            ("Serializable isolation / Savepoints / Transactional DDL"); without it the driver
            decides, which begins none before a SELECT.
    """
    engine = create_engine(sqlite_url(file))

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        raw = cast("sqlite3.Connection", connection)
        if begin is not None:
            raw.isolation_level = None
        for pragma in pragmas:
            raw.execute(pragma).close()

    if begin is not None:

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    with disposing(engine):
        yield engine


def plain_sessions(engine: Engine) -> sessionmaker[Session]:
    """Return a ``sessionmaker`` whose sessions are set as this package's are by default."""
    return sessionmaker(engine, autoflush=True, expire_on_commit=False)


def our_factory(file: Path | None = None) -> SqlAlchemySessionFactory:
    """Return this package's factory, with nothing but its defaults. The caller closes it."""
    return factory_on(sqlite_url(file))


def factory_on(url: str | URL) -> SqlAlchemySessionFactory:
    """Return such a factory on any database. The caller closes it."""
    return SqlAlchemySessionFactory(DatabaseSettings(url))
