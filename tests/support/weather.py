"""The databases that storms of cancellations come over, and a look at what they have left."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import define, field
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    PoolSettings,
)
from tests.support.cancellation import ONE, WAYS, Base, Books, Entry, Storm, at_tick, refused, tick
from tests.support.seeds import FIRST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import pytest
    from sqlalchemy import URL, Connection, Engine

    from sessionfactory.testing import PostgresServer
    from tests.support.cancellation import Mechanism

SIDE_BY_SIDE: Final = 6
_STATES: Final = text("SELECT state FROM pg_stat_activity WHERE application_name = :name")
_LOGGERS: Final = ("asyncio", "sqlalchemy.pool", "aiosqlite", "sessionfactory")


@define
class Weather:
    """Storms over one database, on an empty table.

    Args:
        url: the database; on PostgreSQL with an application name of its own.
        size: connections in the pool, fewer than there are scopes side by side.
        log: what is logged.
        seed: of all dice; ``make soak`` sets a random one.
    """

    url: URL
    size: int
    log: pytest.LogCaptureFixture
    seed: int = FIRST
    books: Books = field(factory=Books)
    _dice: random.Random = field(init=False)
    _control: Engine = field(init=False)

    def __attrs_post_init__(self) -> None:
        print(f"seed={self.seed}")  # noqa: T201 - pytest shows it when a test fails
        self._dice = random.Random(self.seed)
        url = self.url.difference_update_query(["application_name"])
        is_postgres = url.get_backend_name() == "postgresql"
        self._control = create_engine(
            url.set(drivername="postgresql+psycopg" if is_postgres else "sqlite"),
            poolclass=NullPool,  # which leaves nothing open
        )
        Base.metadata.drop_all(self._control)
        Base.metadata.create_all(self._control)

    def storm(self, mechanism: Mechanism, times: int) -> None:
        """Cancel so many scopes by one mechanism."""

        async def rage(storm: Storm) -> None:
            end = self.books.hits + times

            async def work() -> None:
                while self.books.hits < end:
                    await mechanism(storm)

            await asyncio.gather(*(work() for _ in range(SIDE_BY_SIDE)))

        asyncio.run(self._run(rage))
        self._look()

    def sweep(self, ticks: range) -> None:
        """Cancel scopes of every kind after so many ticks, one number after the other."""

        async def sweep(storm: Storm) -> None:
            for number in ticks:
                await at_tick(storm, number)

        asyncio.run(self._run(sweep, ping_after=0))
        self._look()

    def closes(self, ticks: range) -> None:
        """Cancel ``aclose()`` after so many ticks, while one connection is idle and one is out."""

        async def close(number: int) -> None:
            factory = self._factory()
            done = asyncio.Event()

            async def hold() -> None:
                async with factory.begin() as session:
                    await session.execute(ONE)
                    await done.wait()

            await refused(factory, Books(), 0)
            holder = asyncio.create_task(hold())
            while not factory.status().in_use:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0)
            closing = asyncio.create_task(factory.aclose(timeout=0.001 * (number % 2)))
            await tick(number)
            closing.cancel()
            await asyncio.wait([closing])
            done.set()
            with suppress(ClosedError, DBAPIError):
                await holder
            await factory.aclose()
            assert factory.status().size == 0

        async def each() -> None:
            for number in ticks:
                await close(number)

        asyncio.run(each())
        self._look()

    def ends(self, ticks: range) -> None:
        """End the event loop after so many ticks, again and again, with scopes under way."""
        factory = self._factory()

        async def end(number: int) -> None:
            storm = Storm(factory, self._dice, self.books)
            running.extend(asyncio.create_task(storm.scope()) for _ in WAYS)
            await tick(number)

        running: list[asyncio.Task[None]] = []
        for number in ticks:
            asyncio.run(end(number))
            running.clear()
        asyncio.run(self._end(factory))
        self._look()

    async def _run(self, rage: Callable[[Storm], Awaitable[None]], ping_after: float = 5) -> None:
        """Let it rage over one factory, whose connections are open."""
        factory = self._factory(ping_after)
        lengths: list[float] = []
        for _ in range(5):  # the first ones connect
            began = time.monotonic()
            await asyncio.gather(*(refused(factory, Books(), 0) for _ in range(SIDE_BY_SIDE)))
            lengths.append(time.monotonic() - began)
        await rage(Storm(factory, self._dice, self.books, min(lengths)))
        await self._end(factory)

    async def _end(self, factory: AsyncSqlAlchemySessionFactory) -> None:
        """Require the pool to be whole, and close it."""
        status = factory.status()
        assert (status.in_use, status.waiting) == (0, 0), status
        sessions = [factory() for _ in range(self.size)]
        async with asyncio.timeout(30):
            assert [await session.scalar(ONE) for session in sessions] == [1] * self.size
        for session in sessions:
            await session.close()
        await factory.aclose()
        assert factory.status().size == 0

    def _factory(self, ping_after: float = 5) -> AsyncSqlAlchemySessionFactory:
        pool = PoolSettings(size=self.size, max_overflow=0, timeout=60, ping_after=ping_after)
        return AsyncSqlAlchemySessionFactory(DatabaseSettings(self.url, pool=pool))

    def _look(self) -> None:
        """Require the server to be at rest, the books to be true, and the log to be empty."""
        gc.collect()  # what was not looked at is reported now
        said = [record for record in self.log.records if record.name.startswith(_LOGGERS)]
        assert [record for record in said if record.levelno >= logging.WARNING] == []
        with self._control.connect() as connection:
            rows = set(connection.scalars(select(Entry.number)))
            assert self.books.wrong(rows) == {}
            deadline = time.monotonic() + 30
            while self._connections(connection) and time.monotonic() < deadline:
                time.sleep(0.01)  # a server takes a moment to see that its clients left
            assert self._connections(connection) == []
        self._control.dispose()

    def _connections(self, connection: Connection) -> list[str]:
        """Return what the connections of the storm do, on a database that tells."""
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # no write is under way
            connection.rollback()
            return []
        name = {"name": self.url.query["application_name"]}
        return list(connection.scalars(_STATES, name))


DRIVERS: Final = ("psycopg", "asyncpg", "aiosqlite")


def over(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Weather:
    """Make the weather over the database of a driver: a fixture for test files that import it."""
    driver: str = request.param
    if driver == "aiosqlite":
        directory: Path = request.getfixturevalue("tmp_path")
        return Weather(make_url(f"sqlite:///{directory / 'storm.db'}"), 1, caplog)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = make_url(server.socket_url).set(drivername=f"postgresql+{driver}")
    return Weather(url.update_query_dict({"application_name": f"storm_{driver}"}), 2, caplog)
