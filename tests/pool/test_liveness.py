"""A connection that died while it was idle is noticed without a round trip, before it is used."""

from __future__ import annotations

import asyncio
import select
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, cast

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import connections
from sessionfactory.testing import FaultProxy
from tests.support.restarts import DEATHS, DRIVERS, POOL, SYNC, Death, UnderLoad, die

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.pool.fair import FairPool
    from sessionfactory.testing import MariaDBServer, PostgresServer

ASYNC: Final = ("psycopg", "asyncpg")
ONE: Final = text("SELECT 1")
deaths = pytest.mark.parametrize("death", DEATHS)


@deaths
@pytest.mark.parametrize("driver", SYNC)
def test_eight_threads_after_a_death(
    driver: str, death: Death, own_postgres: PostgresServer
) -> None:
    """Not one of eight threads sees that all connections died while they were idle."""
    settings = DatabaseSettings(own_postgres.url_for(driver), pool=POOL)
    with SqlAlchemySessionFactory(settings) as factory:

        def ask(_: int) -> object:
            with factory.begin() as session:
                return session.scalar(ONE)

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(ask, range(80))) == [1] * 80
            die(own_postgres, death)
            assert list(threads.map(ask, range(80))) == [1] * 80


@deaths
@pytest.mark.parametrize("driver", ASYNC)
@pytest.mark.asyncio
async def test_eight_tasks_after_a_death(
    driver: str, death: Death, own_postgres: PostgresServer
) -> None:
    """Nor does one of eight tasks."""
    settings = DatabaseSettings(own_postgres.url_for(driver), pool=POOL)
    async with AsyncSqlAlchemySessionFactory(settings) as factory:

        async def ask() -> object:
            async with factory.begin() as session:
                return await session.scalar(ONE)

        assert await asyncio.gather(*(ask() for _ in range(80))) == [1] * 80
        await asyncio.to_thread(die, own_postgres, death)
        assert await asyncio.gather(*(ask() for _ in range(80))) == [1] * 80


@deaths
@pytest.mark.parametrize("driver", DRIVERS)
def test_under_load(driver: str, death: Death, own_postgres: PostgresServer) -> None:
    """No error of a dead connection is seen one second after the server is back."""
    settings = DatabaseSettings(own_postgres.url_for(driver.removesuffix("_async")), pool=POOL)
    load = UnderLoad(settings, is_async=driver not in SYNC)
    load.survive(partial(die, own_postgres, death))
    assert load.late(1.0) == []


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql"])
@pytest.mark.asyncio
async def test_mariadb(driver: str, mariadb_server: MariaDBServer) -> None:
    """MariaDB's connections are looked at, too, by both kinds of drivers."""
    settings = DatabaseSettings(mariadb_server.url_for(driver), pool=POOL)
    identity = text("SELECT connection_id()")

    def kill(number: object) -> None:
        mariadb_server.execute(f"KILL {number}")
        listed = f"SELECT count(*) FROM information_schema.processlist WHERE id = {number}"
        while mariadb_server.execute(listed).strip() != "0":
            pass

    if driver == "pymysql":
        with SqlAlchemySessionFactory(settings) as sync_factory:
            with sync_factory() as sync_session:
                first = sync_session.scalar(identity)
            kill(first)
            with sync_factory() as sync_session:
                assert sync_session.scalar(identity) != first
        return
    async with AsyncSqlAlchemySessionFactory(settings) as factory:
        async with factory() as session:
            first = await session.scalar(identity)
        await asyncio.to_thread(kill, first)
        async with factory() as session:
            assert await session.scalar(identity) != first


@pytest.mark.parametrize("driver", SYNC)
def test_a_look_costs_no_round_trip(driver: str, postgres_server: PostgresServer) -> None:
    """BEGIN, a statement and COMMIT are three round trips; with a ping they are four."""
    with FaultProxy(postgres_server.url) as proxy:
        url = proxy.url.set(drivername=f"postgresql+{driver}")
        for after, trips in ((1000.0, 3), (0.0, 4)):
            pool = PoolSettings(ping_after=after)
            with SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool)) as factory:
                counted: list[int] = []
                for _ in range(7):  # psycopg prepares a statement that it sees for the fifth time
                    with factory.begin() as session, proxy.counting() as count:
                        session.execute(ONE)
                        session.commit()
                    counted.append(count.round_trips)
            assert counted[-1] == trips


def test_news_are_no_death(postgres_server: PostgresServer) -> None:
    """A connection to which the server sent a notification is asked, and kept."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url, pool=POOL)) as factory:
        backend = text("SELECT pg_backend_pid()")
        with factory.begin() as session:
            session.execute(text("LISTEN news"))
            first = session.scalar(backend)
        for _ in range(3):
            postgres_server.execute("NOTIFY news")
            with factory() as session:
                assert session.scalar(backend) == first


@pytest.mark.parametrize("reset", ["rollback", "state"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_silent_network(
    driver: str, reset: Literal["rollback", "state"], postgres_server: PostgresServer
) -> None:
    """A connection that does not answer within ping_timeout is given up, and a new one made."""
    pool = PoolSettings(size=2, max_overflow=0, ping_after=0, ping_timeout=0.2, reset=reset)
    with FaultProxy(postgres_server.url) as proxy:
        url = proxy.url.set(drivername=f"postgresql+{driver.removesuffix('_async')}")
        settings = DatabaseSettings(url, pool=pool, connect_timeout=30)
        if driver in SYNC:
            _sync_through(proxy, SqlAlchemySessionFactory(settings))
        else:
            asyncio.run(_async_through(proxy, AsyncSqlAlchemySessionFactory(settings)))


def _sync_through(proxy: FaultProxy, factory: SqlAlchemySessionFactory) -> None:
    with factory:
        with factory() as session:
            assert session.scalar(ONE) == 1
        event.listen(factory.engine, "invalidate", lambda *_: proxy.restore())
        proxy.black_hole()
        with factory() as session:
            assert session.scalar(ONE) == 1


async def _async_through(proxy: FaultProxy, factory: AsyncSqlAlchemySessionFactory) -> None:
    async with factory:
        async with factory() as session:
            assert await session.scalar(ONE) == 1
        event.listen(factory.engine.sync_engine, "invalidate", lambda *_: proxy.restore())
        proxy.black_hole()
        async with factory() as session:
            assert await session.scalar(ONE) == 1


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("driver", ASYNC)
@pytest.mark.asyncio
async def test_cancelled_ping(driver: str, times: int, postgres_server: PostgresServer) -> None:
    """A connection whose ping was cancelled halfway is discarded, and its permit is free."""
    pool = PoolSettings(size=1, max_overflow=0, ping_after=0, ping_timeout=30)
    with FaultProxy(postgres_server.url) as proxy:
        settings = DatabaseSettings(proxy.url.set(drivername=f"postgresql+{driver}"), pool=pool)
        async with AsyncSqlAlchemySessionFactory(settings) as factory:

            async def ask() -> object:
                async with factory() as session:
                    try:
                        return await session.scalar(text("SELECT pg_backend_pid()"))
                    except asyncio.CancelledError as error:
                        told.append(error)  # and with it all that was in hand
                        raise

            told: list[asyncio.CancelledError] = []
            first = await ask()
            proxy.latency = 0.2  # no black hole: psycopg's cancel may block with Python's lock held
            asking = asyncio.create_task(ask())
            while cast("FairPool", factory.engine.pool).checkedout() == 0:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(times):  # the second time, while it closes its end
                asking.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
            proxy.latency = 0
            await asyncio.wait([asking])  # older drivers swallow what comes the second time
            assert asking.cancelled() or times == 2
            assert await ask() != first
            assert (factory.status().size, factory.status().in_use) == (1, 0)


@pytest.mark.parametrize("driver", SYNC)
def test_connection_that_could_not_be_replaced(
    driver: str, postgres_server: PostgresServer
) -> None:
    """The place of a dead connection is kept for the next one, when there is a server again."""
    pool = PoolSettings(size=1, max_overflow=0)
    with FaultProxy(postgres_server.url) as proxy:
        settings = DatabaseSettings(proxy.url.set(drivername=f"postgresql+{driver}"), pool=pool)
        with SqlAlchemySessionFactory(settings) as factory:
            with factory() as session:
                assert session.scalar(ONE) == 1
            proxy.refuse(existing="cut")
            for _ in range(2):
                with factory() as session, pytest.raises(OperationalError):
                    session.scalar(ONE)
            proxy.restore()
            with factory() as session:
                assert session.scalar(ONE) == 1


def test_drivers_without_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nothing to look at, nothing is heard; the ping decides."""
    nothing = cast("DBAPIConnection", object())
    assert not connections.listener(nothing)()
    monkeypatch.delattr(select, "poll")
    assert not connections.listener(nothing)()
