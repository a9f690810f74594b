"""A named lock is held by one transaction at a time, on every database, in both halves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    LockUnavailableError,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
    advisory_lock,
)
from tests.support.available import running_or_skipped
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sessionfactory import SessionFactory
    from sessionfactory.testing import MariaDBServer, PostgresServer

ONE = PoolSettings(size=1, max_overflow=0)
SYNC = ("psycopg", "psycopg2", "pymysql", "sqlite")
ASYNC = ("psycopg", "asyncpg", "aiomysql", "aiosqlite")


@pytest.fixture
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database for the driver that a test names."""
    driver: str = request.param
    if "sqlite" in driver:
        return f"sqlite{'+aiosqlite' if driver == 'aiosqlite' else ''}:///{tmp_path / 'locked.db'}"
    if "mysql" in driver:
        mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
        return mariadb.url_for(driver)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url_for(driver)


@contextmanager
def factory_on(url: str, **settings: Any) -> Generator[SqlAlchemySessionFactory]:
    with SqlAlchemySessionFactory(DatabaseSettings(url, pool=ONE, **settings)) as factory:
        yield factory


def is_free(sessions: SessionFactory, name: str) -> bool:
    """Return whether a lock can be acquired now."""
    try:
        with advisory_lock(sessions, name, wait=0):
            return True
    except LockUnavailableError:
        return False


@pytest.mark.parametrize("where", SYNC, indirect=True)
def test_one_transaction_holds_a_lock(where: str) -> None:
    """Another transaction is refused until the first has ended; other names are free."""
    with factory_on(where) as sessions, factory_on(where) as others:
        with advisory_lock(sessions, "nightly") as session:
            assert session.scalar(text("SELECT 1")) == 1
            assert not is_free(others, "nightly")
            assert is_free(others, "weekly")
        assert is_free(others, "nightly")
        assert is_free(sessions, "nightly")  # also by the connection that held it


@pytest.mark.parametrize("where", SYNC, indirect=True)
def test_an_error_releases_the_lock(where: str) -> None:
    """A block that raises rolls back, and the lock is free."""
    with factory_on(where) as sessions, factory_on(where) as others:
        with pytest.raises(ZeroDivisionError), advisory_lock(sessions, "nightly"):
            raise ZeroDivisionError
        assert is_free(others, "nightly")


@pytest.mark.parametrize("where", SYNC, indirect=True)
def test_who_waits_sees_what_was_committed(where: str) -> None:
    """The lock is released after the commit, so that the next holder reads the first one's rows."""
    with factory_on(where) as sessions, factory_on(where) as others:
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS handed_over (a INTEGER)"))
            session.execute(text("DELETE FROM handed_over"))
        seen: list[int] = []
        begins = threading.Event()

        def wait() -> None:
            begins.set()
            with advisory_lock(others, "nightly", wait=30) as session:
                seen.extend(session.scalars(text("SELECT a FROM handed_over")))

        waiter = threading.Thread(target=wait)
        with advisory_lock(sessions, "nightly") as session:
            waiter.start()
            begins.wait(30)
            session.execute(text("INSERT INTO handed_over VALUES (7)"))
        waiter.join(30)
        assert seen == [7]


@pytest.mark.parametrize("where", SYNC, indirect=True)
def test_a_wait_is_bounded(where: str) -> None:
    """The error names the lock, the wait and what to do."""
    expected = r"^The lock 'nightly' was not acquired within 0\.05 s: another transaction holds it"
    with (
        factory_on(where) as sessions,
        factory_on(where) as others,
        advisory_lock(sessions, "nightly"),
        pytest.raises(LockUnavailableError, match=expected),
        advisory_lock(others, "nightly", wait=0.05),
    ):
        pytest.fail("the block ran without the lock")


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ASYNC, indirect=True)
async def test_tasks(where: str) -> None:
    """The async half is the same, and its event loop runs on while a task waits."""
    settings = DatabaseSettings(where, pool=ONE)
    async with (
        AsyncSqlAlchemySessionFactory(settings) as sessions,
        AsyncSqlAlchemySessionFactory(settings) as others,
    ):

        async def wait() -> bool:
            async with advisory_lock(others, "nightly", wait=30) as session:
                return bool(await session.scalar(text("SELECT 1")))

        async with advisory_lock(sessions, "nightly"):
            with pytest.raises(LockUnavailableError):
                async with advisory_lock(others, "nightly", wait=0):
                    pytest.fail("the block ran without the lock")
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
        assert await waiting


def test_a_cancelled_wait_leaves_nothing(postgres_server: PostgresServer) -> None:
    """A task that is cancelled while it waits holds no lock and no connection."""

    async def main() -> None:
        settings = DatabaseSettings(postgres_server.url_for("asyncpg"), pool=ONE)
        async with (
            AsyncSqlAlchemySessionFactory(settings) as sessions,
            AsyncSqlAlchemySessionFactory(settings) as others,
        ):
            async with advisory_lock(sessions, "nightly"):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1), advisory_lock(others, "nightly", wait=None):
                        pytest.fail("the block ran without the lock")
                assert others.status().in_use == 0
            async with advisory_lock(others, "nightly", wait=0):
                pass

    asyncio.run(main())


def test_timeouts_of_the_factory_stay_out_of_it(postgres_server: PostgresServer) -> None:
    """``statement_timeout`` does not end the wait, and holds again in the block."""
    limits = {"statement_timeout": 0.05, "lock_timeout": 0.02}
    url = postgres_server.url
    with factory_on(url) as sessions, factory_on(url, **limits) as others:
        with (
            advisory_lock(sessions, "nightly"),
            pytest.raises(LockUnavailableError),
            advisory_lock(others, "nightly", wait=0.2),
        ):
            pytest.fail("the block ran without the lock")
        with advisory_lock(others, "nightly") as session:
            assert session.scalar(text("SHOW statement_timeout")) == "50ms"
            assert session.scalar(text("SHOW lock_timeout")) == "20ms"


def test_behind_a_pooler(postgres_server: PostgresServer) -> None:
    """A lock belongs to its transaction, and not to a server process that others share."""
    with (
        running_or_skipped(PgBouncer(postgres_server)) as pooler,
        factory_on(pooler.url_for()) as sessions,
        factory_on(pooler.url_for()) as others,
    ):
        with advisory_lock(sessions, "nightly"):
            assert not is_free(others, "nightly")
        assert is_free(others, "nightly")


def test_a_lock_is_of_one_database(postgres_server: PostgresServer) -> None:
    """The same name in another database of the server is another lock."""
    postgres_server.execute("CREATE DATABASE elsewhere")
    try:
        with (
            factory_on(postgres_server.url) as sessions,
            factory_on(postgres_server.url_for("psycopg", "elsewhere")) as others,
            advisory_lock(sessions, "nightly"),
        ):
            assert is_free(others, "nightly")
    finally:
        postgres_server.execute("DROP DATABASE elsewhere WITH (FORCE)")


@pytest.mark.parametrize("where", SYNC, indirect=True)
@pytest.mark.parametrize("name", ["n" * 200, "näme; DROP TABLE t --", "%s :name \0 \ud800"])
def test_any_text_is_a_name(where: str, name: str) -> None:
    """Names may be long, and hold any character."""
    with factory_on(where) as sessions, factory_on(where) as others:
        with advisory_lock(sessions, name):
            assert not is_free(others, name)
        assert is_free(others, name)


def test_a_killed_holder_blocks_no_other(tmp_path: Path) -> None:
    """The lock on a file ends with its process."""
    url = f"sqlite:///{tmp_path / 'locked.db'}"
    holder = f"""
import signal
from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory, advisory_lock
with advisory_lock(SqlAlchemySessionFactory(DatabaseSettings({url!r})), "nightly"):
    print("held", flush=True)
    signal.pause()
"""
    with factory_on(url) as sessions:
        command = [sys.executable, "-c", holder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            assert not is_free(sessions, "nightly")
            process.kill()
        assert is_free(sessions, "nightly")


def test_sqlalchemys_own_sessionmaker(tmp_path: Path) -> None:
    """A plain ``sessionmaker`` is a session factory here, too."""
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    sessions = sessionmaker(engine)
    with advisory_lock(sessions, "nightly"):
        assert not is_free(sessions, "nightly")
    engine.dispose()


def test_a_database_in_memory_has_one_connection() -> None:
    """There the transaction itself is the lock."""
    with factory_on("sqlite://") as sessions:
        assert is_free(sessions, "nightly")


def test_bad_input() -> None:
    """Everything that is wrong is reported at once, before anything happens."""
    with factory_on("sqlite://") as sessions:
        with pytest.raises(SettingsError) as caught:
            advisory_lock(sessions, "", wait=-1)
        assert [str(fault) for fault in caught.value.faults] == [
            "advisory_lock.name: expected the name of a lock, got empty text",
            "advisory_lock.wait: expected 0 seconds or more, or None for no limit, got -1",
        ]
        wrong: Any = "soon"
        nameless: Any = None
        with pytest.raises(SettingsError, match="expected seconds or None, got text"):
            advisory_lock(sessions, "nightly", wait=wrong)
        with pytest.raises(SettingsError, match="expected the name of a lock, got NoneType"):
            advisory_lock(sessions, nameless)
    with pytest.raises(TypeError, match="advisory_lock takes a session factory, not str"):
        advisory_lock(wrong, "nightly")
