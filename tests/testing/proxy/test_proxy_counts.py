"""What the proxy counts: connections, round trips, statements."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from sessionfactory.testing.proxy._count import Count
    from sessionfactory.testing.proxy.fault_proxy import FaultProxy


def dsn(url: URL) -> str:
    """The URL as psycopg takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def one_scope(proxy: FaultProxy, driver: str, *, pre_ping: bool = False) -> Count:
    """Count a transaction of one statement on a pooled connection."""
    url = proxy.url.set(drivername=f"postgresql+{driver}")
    engine = create_engine(url, pool_pre_ping=pre_ping)
    for _ in range(2):  # the first connects, the second prepares what later ones use
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
    with proxy.counting() as count, engine.begin() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    return count


async def one_async_scope(proxy: FaultProxy, *, pre_ping: bool = False) -> Count:
    """Async twin of `one_scope`, with asyncpg."""
    url = proxy.url.set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, pool_pre_ping=pre_ping)
    for _ in range(2):
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
    with proxy.counting() as count:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
    await engine.dispose()
    return count


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sync_scope_takes_three_round_trips(proxy: FaultProxy, driver: str) -> None:
    """A transaction of one statement takes three round trips, and four with pre-ping."""
    assert one_scope(proxy, driver).round_trips == 3
    assert one_scope(proxy, driver, pre_ping=True).round_trips == 4


def test_asyncpg_scope_takes_three_round_trips(proxy: FaultProxy) -> None:
    """A transaction of one statement takes asyncpg three round trips, and six with pre-ping."""
    assert asyncio.run(one_async_scope(proxy)).round_trips == 3
    assert asyncio.run(one_async_scope(proxy, pre_ping=True)).round_trips == 6


def test_statements_are_listed_by_flight(proxy: FaultProxy) -> None:
    """A count lists the statements of each round trip, prepared ones included."""
    count = one_scope(proxy, "psycopg")
    assert count.flights == [["BEGIN"], ["SELECT 1"], ["COMMIT"]]
    assert count.statements == ["BEGIN", "SELECT 1", "COMMIT"]
    count = asyncio.run(one_async_scope(proxy))
    assert [statement.rstrip(";") for statement in count.statements] == [
        "BEGIN",
        "SELECT 1",
        "COMMIT",
    ]


def test_pipelined_messages_are_one_round_trip(proxy: FaultProxy) -> None:
    """However many statements are sent at once, they take one round trip."""
    with psycopg.connect(dsn(proxy.url), autocommit=True) as connection:
        with proxy.counting() as count, connection.pipeline():
            for _ in range(5):
                connection.execute("SELECT 1")
        assert count.round_trips == 1
        assert count.flights == [["SELECT 1"] * 5]


def test_logins_are_counted_apart(proxy: FaultProxy) -> None:
    """Connecting takes no round trips but a login's: TLS, start-up, and two for a password."""
    with proxy.counting() as count, psycopg.connect(dsn(proxy.url)):
        pass
    assert (count.connections, count.round_trips) == (1, 0)
    assert count.login_round_trips == proxy.login_round_trips == 4


def test_counts_are_live_and_then_final(proxy: FaultProxy) -> None:
    """A count can be read inside its block, and does not change after it; blocks nest."""
    with psycopg.connect(dsn(proxy.url), autocommit=True) as connection:
        with proxy.counting() as outer:
            connection.execute("SELECT 1")
            assert outer.round_trips == 1
            with proxy.counting() as inner:
                connection.execute("SELECT 2")
            connection.execute("SELECT 3")
        connection.execute("SELECT 4")
        assert outer.statements == ["SELECT 1", "SELECT 2", "SELECT 3"]
        assert inner.statements == ["SELECT 2"]
        assert proxy.round_trips == 4
    assert repr(outer) == "<Count of 3 round trips in 0 new connections>"


def test_what_is_not_answered_is_not_counted(proxy: FaultProxy) -> None:
    """A message that the server does not answer, such as a client's last one, is no round trip."""
    connection = psycopg.connect(dsn(proxy.url))
    with proxy.counting() as count:
        connection.close()
        psycopg.connect(dsn(proxy.url)).close()
    assert count.round_trips == 0


def test_open_connections(proxy: FaultProxy) -> None:
    """Connections are counted for ever when accepted, and as open until they end."""
    first, second = (psycopg.connect(dsn(proxy.url)) for _ in range(2))
    assert (proxy.connections, proxy.open_connections) == (2, 2)
    first.close()
    while proxy.open_connections == 2:  # the system tells the proxy in its own time
        pass
    assert (proxy.connections, proxy.open_connections) == (2, 1)
    second.close()
