"""SQLite: which statements begin a transaction, and with which lock."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    ReadOnlyError,
    SettingsWarning,
    SqlAlchemySessionFactory,
    SqliteSettings,
    with_options,
)
from tests.support.halves import in_both_halves

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tests.support.halves import Half

BY_THEMSELVES = [
    "VACUUM",
    "ATTACH ':memory:' AS more",
    "PRAGMA foreign_keys = OFF",
    "-- now\nVACUUM",
]


@pytest.fixture
def family(factory: SqlAlchemySessionFactory) -> SqlAlchemySessionFactory:
    """A factory whose file has a parent with two children that go with it."""
    with factory.begin() as session:
        for statement in (
            "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
            "CREATE TABLE children (parent INTEGER REFERENCES parents (id) ON DELETE CASCADE)",
            "INSERT INTO parents VALUES (1)",
            "INSERT INTO children VALUES (1), (1)",
        ):
            session.execute(text(statement))
    return factory


@pytest.fixture
def locked(factory: SqlAlchemySessionFactory) -> Generator[None]:
    """Another process, as it were, has the write lock of the factory's file."""
    with closing(sqlite3.connect(factory.engine.url.database or "", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def made_for(half: Half, url: str) -> AsyncSqlAlchemySessionFactory:
    """Return a factory of a half on a file."""
    kind: Callable[[DatabaseSettings], AsyncSqlAlchemySessionFactory]
    kind = AsyncSqlAlchemySessionFactory
    return half.make(kind, DatabaseSettings(url))


@pytest.mark.parametrize("statement", BY_THEMSELVES)
@in_both_halves
async def test_statements_of_no_transaction(half: Half, statement: str, url: str) -> None:
    """They work in a session, which goes on in a transaction afterwards."""
    async with made_for(half, url) as sessions:
        async with sessions.begin() as session:
            await session.execute(text("CREATE TABLE t (a INTEGER)"))
        with pytest.raises(KeyError):
            async with sessions() as session:
                await session.execute(text(statement))
                await session.execute(text("INSERT INTO t VALUES (1)"))
                raise KeyError
        async with sessions() as session:
            assert await session.scalar(text("SELECT count(*) FROM t")) == 0


@in_both_halves
async def test_pragmas_end_with_their_checkout(half: Half, url: str) -> None:
    """What a session set on its connection is as before for the next one."""
    async with made_for(half, url) as sessions:
        async with sessions() as session:
            await session.execute(text("PRAGMA foreign_keys=OFF"))
            await session.execute(text("pragma main.synchronous(off)"))
            assert await session.scalar(text("PRAGMA foreign_keys")) == 0
        async with sessions() as session:
            assert await session.scalar(text("PRAGMA foreign_keys")) == 1
            assert await session.scalar(text("PRAGMA synchronous")) == 1


def rebuild(connection: Connection) -> None:
    """Rebuild a table as Alembic's batch migrations do."""
    for statement in (
        "CREATE TABLE rebuilt (id INTEGER PRIMARY KEY)",
        "INSERT INTO rebuilt SELECT id FROM parents",
        "DROP TABLE parents",
        "ALTER TABLE rebuilt RENAME TO parents",
    ):
        connection.exec_driver_sql(statement)


def test_rebuilt_table_keeps_its_children(family: SqlAlchemySessionFactory) -> None:
    """Foreign keys can be switched off before a table is rebuilt."""
    with family.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        rebuild(connection)
        connection.commit()
    with family() as session:
        assert session.scalar(text("SELECT count(*) FROM children")) == 2


@pytest.mark.usefixtures("locked")
def test_reading_takes_no_lock(factory: SqlAlchemySessionFactory) -> None:
    """Connections, inspection, sessions and readers read beside a writer."""
    select = text("SELECT count(*) FROM t")
    assert inspect(factory.engine).get_table_names() == ["t"]
    with factory.engine.connect() as connection:
        assert connection.scalar(select) == 0
    with factory.engine.execution_options(logging_token="x").connect() as connection:
        assert connection.scalar(select) == 0
    with factory() as session, factory.reader() as reader:
        assert (session.scalar(select), reader.scalar(select)) == (0, 0)


def test_begin_takes_the_write_lock(factory: SqlAlchemySessionFactory) -> None:
    """Whatever is begun by ``begin()`` has the write lock before it reads."""
    engine = factory.engine
    other = sqlite3.connect(engine.url.database or "", isolation_level=None, timeout=0)

    def is_locked() -> bool:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        other.execute("ROLLBACK")
        return False

    with closing(other):
        with engine.begin() as connection:
            connection.scalar(text("SELECT count(*) FROM t"))
            assert is_locked()
        with engine.connect() as connection:
            with connection.begin():
                connection.scalar(text("SELECT count(*) FROM t"))
                assert is_locked()
            connection.scalar(text("SELECT count(*) FROM t"))
            assert not is_locked()
        with sessionmaker(engine).begin() as session:
            session.scalar(text("SELECT count(*) FROM t"))
            assert is_locked()


def test_journal_that_cannot_be_switched(tmp_path: Path) -> None:
    """A file that is being read in another journal mode is used as it is, with one warning."""
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (a INTEGER)")
        other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()
        own = SqliteSettings(busy_timeout=0.0)
        with (
            SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{file}", sqlite=own)) as sessions,
            pytest.warns(SettingsWarning, match="journal .* stays as it is"),
            sessions() as one,
        ):
            assert one.scalar(text("SELECT count(*) FROM t")) == 0
            with sessions.reader() as two:  # on a new connection: it is told once
                assert two.scalar(text("SELECT count(*) FROM t")) == 0
                assert two.scalar(text("PRAGMA journal_mode")) == "delete"


def test_reader_of_a_plain_engine(url: str) -> None:
    """``with_options`` makes a ``sessionmaker``'s transactions read-only, and nothing stays."""
    engine = create_engine(url)
    sessions = sessionmaker(engine)
    with sessions.begin() as session:
        session.execute(text("CREATE TABLE t (a INTEGER)"))
    with pytest.raises(ReadOnlyError), with_options(sessions, read_only=True).begin() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t VALUES (2)"))
    engine.dispose()


@pytest.mark.usefixtures("locked")
def test_error_of_begin_is_the_database_s(factory: SqlAlchemySessionFactory) -> None:
    """A write lock that is not to be had is an error of the statement that needs it."""
    engine: Engine = factory.engine
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        connection.rollback()
        with pytest.raises(OperationalError, match="locked"), connection.begin():
            connection.scalar(text("SELECT 1"))
