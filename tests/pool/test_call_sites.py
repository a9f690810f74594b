"""A holder is shown by where its session was opened, and where it was first used."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import AsyncInMemorySessionFactory, InMemorySessionFactory

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

ONE = text("SELECT 1")


def place(where: str) -> list[str]:
    """Return the functions that a holder's place names, in the order in which it does."""
    return re.findall(r"test_call_sites\.py:\d+ in (\w+(?:\.<locals>\.\w+)?)", where)


@contextmanager
def get_session(factory: SqlAlchemySessionFactory) -> Generator[Session]:
    with factory() as session:
        yield session


def use(session: Session) -> None:
    session.execute(ONE)


def test_opened_in_a_dependency(factory: SqlAlchemySessionFactory) -> None:
    """A session that one function opens, and another uses first, is known by both."""
    with get_session(factory) as session:
        assert factory.status().holders == ()
        use(session)
        session.execute(ONE)
        (holder,) = factory.status().holders
    assert place(holder.where) == ["get_session", "use"]
    assert ", first used at " in holder.where


@pytest.mark.parametrize("kind", ["call", "begin", "reader", "reader begin"])
def test_every_way_to_open(kind: str, factory: SqlAlchemySessionFactory) -> None:
    """The place is the user's own, however a session is opened."""
    with ExitStack() as stack:
        opened: AbstractContextManager[Session]
        if kind == "call":
            opened = factory()
        elif kind == "begin":
            opened = factory.begin()
        else:
            opened = factory.reader() if kind == "reader" else factory.reader.begin()
        session = stack.enter_context(opened)
        use(session)
        (holder,) = factory.status().holders
    assert place(holder.where) == ["test_every_way_to_open", "use"]


def test_first_used_by_its_end(factory: SqlAlchemySessionFactory) -> None:
    """A session that takes its connection when it commits is known, too."""
    with factory() as session:
        session.begin()
        session.get_bind()
        session.connection()
        (holder,) = factory.status().holders
    assert place(holder.where) == ["test_first_used_by_its_end"] * 2


def test_one_line(factory: SqlAlchemySessionFactory) -> None:
    """A session that is opened and used in one line is known by that line, once."""
    with factory().execute(ONE) as result:
        (holder,) = factory.status().holders
        assert result.scalar() == 1
    assert place(holder.where) == ["test_one_line"]
    gc.collect()


def test_connection_of_the_engine(factory: SqlAlchemySessionFactory) -> None:
    """A connection without a session is known by where it was taken."""
    with factory.engine.connect() as connection:
        connection.execute(ONE)
        (holder,) = factory.status().holders
    assert place(holder.where) == ["test_connection_of_the_engine"]


def test_tasks(url: str) -> None:
    """In the async half it is the same, through greenlets and exit stacks."""

    async def use_it(session: AsyncSession) -> None:
        await session.execute(ONE)

    async def open_it(factory: AsyncSqlAlchemySessionFactory) -> list[str]:
        async with AsyncExitStack() as stack:
            await use_it(await stack.enter_async_context(factory.begin()))
            (holder,) = factory.status().holders
        return place(holder.where)

    async def main() -> list[str]:
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
            return await open_it(factory)

    assert asyncio.run(main()) == ["test_tasks.<locals>.open_it", "test_tasks.<locals>.use_it"]


def test_fakes() -> None:
    """The fakes tell places as the factory does."""
    with InMemorySessionFactory(MetaData()) as factory, factory() as session:
        use(session)
        (holder,) = factory.status().holders
    assert place(holder.where) == ["test_fakes", "use"]

    async def main() -> list[str]:
        async with AsyncInMemorySessionFactory(MetaData()) as sessions, sessions() as opened:
            await opened.execute(ONE)
            (held,) = sessions.status().holders
            return place(held.where)

    assert asyncio.run(main()) == ["test_fakes.<locals>.main"] * 2


def drop(factory: SqlAlchemySessionFactory) -> None:
    use(factory())


def test_dropped_session(
    factory: SqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that was not closed is reported with the call site that opened it."""
    drop(factory)
    gc.collect()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("sessionfactory", logging.WARNING)
    assert record.getMessage().startswith(
        "A session of the database 'default' was dropped, and not closed: "
    )
    assert place(record.getMessage()) == ["drop", "use"]
    assert factory.status().in_use == 0


def test_dropped_connection(
    factory: SqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """So is a connection."""
    factory.engine.connect().execute(ONE)
    gc.collect()
    (record,) = caplog.records
    assert "A connection of the database 'default' was dropped" in record.getMessage()
    assert place(record.getMessage()) == ["test_dropped_connection"]


@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up")
def test_dropped_async_session(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """So is an async session, whose connection cannot be used again; there is room for another."""

    async def forget(factory: AsyncSqlAlchemySessionFactory) -> None:
        await factory().execute(ONE)

    async def main() -> None:
        pool = PoolSettings(size=1, max_overflow=0)
        settings = DatabaseSettings(postgres_server.url_for("asyncpg"), pool=pool)
        async with AsyncSqlAlchemySessionFactory(settings) as factory:
            await forget(factory)
            gc.collect()
            async with factory() as session:
                assert await session.scalar(ONE) == 1

    asyncio.run(main())
    (message,) = [
        record.getMessage() for record in caplog.records if record.name == "sessionfactory"
    ]
    assert place(message) == ["test_dropped_async_session.<locals>.forget"]


def test_a_wrapper_that_hides_itself(factory: SqlAlchemySessionFactory) -> None:
    """A function, or a module, with ``__tracebackhide__`` is no place of the user's."""

    def run(session: Session) -> None:
        __tracebackhide__ = True
        session.execute(ONE)

    module: dict[str, Any] = {"__name__": "wrapper", "__tracebackhide__": True}
    source = "def run(session, statement):\n    session.execute(statement)\n"
    exec(compile(source, "/somewhere/wrapper.py", "exec"), module)
    with factory() as one, factory() as two:
        run(one)
        module["run"](two, ONE)
        places = [place(holder.where) for holder in factory.status().holders]
    assert places == [["test_a_wrapper_that_hides_itself"] * 2] * 2
