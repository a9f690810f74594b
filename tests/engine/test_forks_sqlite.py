"""SQLite and forks: no file is shared through a fork, a database in memory is copied."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    ForkedConnectionError,
    SqlAlchemySessionFactory,
)
from tests.support.child import Child, in_child

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

IN_USE = (
    "had sessions open on the SQLite file '.*app.db' when it forked, and the child cannot open it"
)


class Baton:
    """Passes turns between this process and a child of it."""

    def __init__(self) -> None:
        self._mine, self._theirs = os.pipe(), os.pipe()

    def hand_over(self, *, child: bool = False) -> None:
        """Let the other process go on."""
        os.write((self._theirs if child else self._mine)[1], b"!")

    def wait(self, *, child: bool = False) -> None:
        """Wait until the other process lets this one go on."""
        turn = (self._mine if child else self._theirs)[0]
        assert select.select([turn], [], [], 30)[0], "the other process never came so far"
        os.read(turn, 1)


def insert(session: Session, number: int) -> None:
    session.execute(text("INSERT INTO t VALUES (:number)"), {"number": number})


def rows(url: str) -> list[int]:
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory, factory() as session:
        return list(session.scalars(text("SELECT a FROM t ORDER BY a")))


def test_idle_connections_to_a_file(factory: SqlAlchemySessionFactory, url: str) -> None:
    """What the child commits stays, whatever its parent does with the connections that it had.

    SQLite would lose row 2 without an error if the parent forked with its connection open: see
    "How To Corrupt An SQLite Database File", section 2.6.
    """
    factory.close()
    factory = SqlAlchemySessionFactory(DatabaseSettings(url))
    with factory() as session:
        session.scalar(text("SELECT 1"))
    assert factory.status().idle == 1
    baton = Baton()

    def write() -> None:
        with factory.begin() as session:
            insert(session, 1)
        baton.hand_over(child=True)
        baton.wait(child=True)
        with factory.begin() as session:
            insert(session, 2)
        with factory() as session, factory.reader() as reader:
            count = text("SELECT count(*) FROM t")
            assert session.scalar(count) == reader.scalar(count) == 2

    child = Child(write)
    baton.wait()
    factory.close()
    baton.hand_over()
    child.outcome()
    assert rows(url) == [1, 2]


def test_idle_connections_of_aiosqlite(factory: SqlAlchemySessionFactory, url: str) -> None:
    """The connections of the async half are closed before a fork as well, and opened again."""
    factory.close()

    async def work() -> None:
        settings = DatabaseSettings(url)
        asynchronous = AsyncSqlAlchemySessionFactory(settings)

        async def ask() -> int:
            async with asynchronous() as session:
                return await session.scalar(text("SELECT 1")) or 0

        assert await ask() == 1
        await asyncio.to_thread(lambda: in_child(lambda: None))  # which may not touch this loop
        assert asynchronous.status().idle == 1
        in_child(lambda: None)
        assert asynchronous.status().idle == 0
        assert await ask() == 1
        assert asynchronous.status().idle == 1
        assert in_child(lambda: asyncio.run(ask())) == 1
        await asynchronous.aclose()

    asyncio.run(work())


def test_parent_opens_again(factory: SqlAlchemySessionFactory, url: str) -> None:
    """A fork in the midst of the work of other threads takes nothing from them."""
    stop = threading.Event()
    done: list[int] = []

    def work() -> None:
        while not stop.is_set():
            with factory.begin() as session:
                insert(session, 1)
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        in_child(lambda: None)
    stop.set()
    for thread in threads:
        thread.join()
    assert rows(url) == done


def test_file_in_use(factory: SqlAlchemySessionFactory, url: str) -> None:
    """A file that was in use at the fork cannot be opened in the child; the parent goes on."""

    def use(session: Session) -> None:
        with pytest.raises(ForkedConnectionError, match="forked while a session of 'default'"):
            insert(session, 2)
        session.rollback()
        with pytest.raises(ForkedConnectionError, match=IN_USE):
            insert(session, 2)
        session.close()
        other = SqlAlchemySessionFactory(DatabaseSettings(url), name="other")
        with pytest.raises(ForkedConnectionError, match=IN_USE), other.begin() as own:
            insert(own, 2)
        assert factory.ping().ok

    with factory() as session:
        insert(session, 1)
        in_child(lambda: use(session))
        insert(session, 3)
        session.commit()
    assert rows(url) == [1, 3]
    assert in_child(lambda: rows(url)) == [1, 3]


def test_open_result(factory: SqlAlchemySessionFactory) -> None:
    """The child cannot read on in a result; the parent reads every row of it."""
    with factory() as session:
        result = session.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
                " SELECT i FROM n"
            )
        )
        first = result.fetchmany(3)

        def read_on() -> None:
            with pytest.raises(ForkedConnectionError, match="forked while a session"):
                result.fetchall()
            session.close()

        in_child(read_on)
        assert [row[0] for row in (*first, *result)] == list(range(1, 501))


def test_end_of_the_interpreter(url: str) -> None:
    """A child that takes its interpreter apart does not take its parent's transaction apart.

    The end of the inherited connection would roll back what the parent wrote, under its hands.
    """
    program = """
import os, sys
from sqlalchemy import text
from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory, SqliteSettings

for journal in ("wal", "delete"):
    settings = DatabaseSettings(f"{sys.argv[1]}-{journal}", sqlite=SqliteSettings(journal=journal))
    with SqlAlchemySessionFactory(settings) as factory:
        with factory.begin() as session:
            session.execute(text("CREATE TABLE t (a INTEGER, b TEXT)"))
            session.execute(text(
                "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                " WHERE i < 9999) SELECT i, '' FROM n"
            ))
        with factory.begin() as session:
            session.execute(text("PRAGMA cache_size = 5"))  # has pages written before the commit
            session.execute(text("UPDATE t SET b = 'parent' || a"))
            child = os.fork()
            if child == 0:
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            session.execute(text("INSERT INTO t VALUES (0, 'parent0')"))
        with factory() as session:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            print(session.scalar(text("SELECT count(*) FROM t WHERE b LIKE 'parent%'")))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, url]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("10000\n10000\n", "")


def test_memory() -> None:
    """A child has a copy of a database in memory, and both go on with their own."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory:
        with factory.begin() as session:
            session.execute(text("CREATE TABLE t (a INTEGER)"))
            insert(session, 1)

        def use(session: Session) -> list[int]:
            insert(session, 3)
            session.commit()
            return list(session.scalars(text("SELECT a FROM t ORDER BY a")))

        with factory() as session:
            insert(session, 2)
            assert in_child(lambda: use(session)) == [1, 2, 3]
            assert list(session.scalars(text("SELECT a FROM t ORDER BY a"))) == [1, 2]


def test_memory_of_aiosqlite() -> None:
    """The thread that has it does not exist in the child, which begins with an empty database."""

    async def tables(factory: AsyncSqlAlchemySessionFactory) -> int:
        async with factory() as session:
            return await session.scalar(text("SELECT count(*) FROM sqlite_schema")) or 0

    async def work() -> None:
        factory = AsyncSqlAlchemySessionFactory(DatabaseSettings("sqlite://"))
        async with factory.begin() as session:
            await session.execute(text("CREATE TABLE t (a INTEGER)"))
        async with factory() as session:
            result = await session.stream(text("SELECT 1 UNION SELECT 2"))

            async def use() -> None:
                with pytest.raises(ForkedConnectionError, match="forked while a session"):
                    await result.all()
                await session.close()
                assert await tables(factory) == 0

            in_child(lambda: asyncio.run(use()))
            assert len(await result.all()) == 2
        assert await tables(factory) == 1
        await factory.aclose()

    asyncio.run(work())
