"""The pools of a factory keep its books, name the holders when they run dry, and can be closed."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory import ClosedError, PoolExhaustedError
from sessionfactory.pool.ledger import Ledger
from sessionfactory.pool.pools import (
    AsyncLedgerFairPool,
    LedgerFairPool,
    LedgerNullPool,
)
from sessionfactory.pool_errors import ConnectTimeoutError
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.pool.ledger import Who
    from tests.support.sqlite_pools import Databases

    Limited = type[LedgerFairPool]

limited = pytest.mark.parametrize("kind", [LedgerFairPool])
every = pytest.mark.parametrize("kind", [LedgerFairPool, LedgerNullPool])


def small(kind: Limited, databases: Databases, timeout: float) -> LedgerFairPool:
    """Return a pool of a single connection, with books."""
    pool = kind(databases.connect, pool_size=1, max_overflow=0, timeout=timeout)
    pool.ledger = Ledger("main", 1, 1)
    pool.ledger.keep(pool)
    pool.ledger.keep_opened(pool)
    return pool


@limited
def test_exhausted(kind: Limited, databases: Databases) -> None:
    """Who waits in vain is told who has the connections."""
    pool = small(kind, databases, 0.01)
    with pool.connect(), pytest.raises(PoolExhaustedError) as caught:
        pool.connect()
    message, holder = str(caught.value).splitlines()
    assert message == (
        "No connection of the database 'main' came free within 0.01 s: all 1 are in use. Close"
        " sessions sooner, or raise pool.size. In use by:"
    )
    assert f"{__file__}:" in holder
    assert len(caught.value.holders) == 1


@limited
def test_counts_who_waits(kind: Limited, databases: Databases) -> None:
    """The books say how many wait."""
    pool = small(kind, databases, 20)
    held = pool.connect()
    callers = [Caller(lambda: pool.connect().close()) for _ in range(3)]
    until(lambda: pool.ledger.status().waiting == 3)
    held.close()
    for caller in callers:
        caller.join()
    assert pool.ledger.status().waiting == 0


def test_opening_a_connection_is_no_waiting(databases: Databases) -> None:
    """Nobody waits for a connection that he opens himself."""
    pool = small(LedgerFairPool, databases, 20)
    seen: list[int] = []
    event.listen(pool, "connect", lambda *_: seen.append(pool.ledger.status().waiting))
    pool.connect().close()
    assert seen == [0]


@limited
def test_closed_while_they_wait(kind: Limited, databases: Databases) -> None:
    """Whoever waits when the factory is closed is told at once; so is who comes later."""
    pool = small(kind, databases, 3600)
    held = pool.connect()
    callers = [Caller(pool.connect) for _ in range(3)]
    until(lambda: pool.ledger.status().waiting == 3)
    pool.ledger.closed = True
    pool.wake()
    for caller in callers:
        with pytest.raises(ClosedError):
            caller.join()
    with pytest.raises(ClosedError):
        pool.connect()
    held.close()


@limited
def test_closed_as_somebody_begins_to_wait(kind: Limited, databases: Databases) -> None:
    """Nobody begins to wait for a factory that is closed at that moment."""
    pool = small(kind, databases, 0.01)
    held = pool.connect()
    ask = pool.ledger.ask

    def close_and_ask(caller: object) -> Who:
        pool.ledger.closed = True
        return ask(caller)

    pool.ledger.ask = close_and_ask  # type: ignore[method-assign]
    with pytest.raises(ClosedError):
        pool.connect()
    pool.ledger.closed = False
    held.close()


@every
def test_closed(kind: type[LedgerFairPool | LedgerNullPool], databases: Databases) -> None:
    """A closed factory gives no connection, and its next pool has the same books."""
    pool = kind(databases.connect)
    pool.ledger = Ledger("main", 5, 15)
    pool.connect().close()
    again = pool.recreate()
    assert again.ledger is pool.ledger
    pool.ledger.closed = True
    pool.wake()
    for one in (pool, again):
        with pytest.raises(ClosedError, match="'main' is closed"):
            one.connect()


@limited
def test_disposed_with_a_connection_out(kind: Limited, databases: Databases) -> None:
    """What is out when the pool is disposed of is closed when it comes back."""
    pool = small(kind, databases, 20)
    held = pool.connect()
    pool.dispose()
    held.close()
    assert not databases.open
    assert pool.ledger.status().size == 0


@limited
def test_closed_and_disposed(kind: Limited, databases: Databases) -> None:
    """To dispose of the pool of a closed factory lets go whoever still waits there."""
    pool = small(kind, databases, 3600)
    held = pool.connect()
    caller = Caller(pool.connect)
    until(lambda: pool.ledger.status().waiting == 1)
    pool.ledger.closed = True
    pool.dispose()
    with pytest.raises(ClosedError):
        caller.join()
    held.close()
    assert not databases.open


def slow_pool(databases: Databases) -> LedgerFairPool:
    """Return a pool whose connections come too late."""

    def creator() -> DBAPIConnection:
        time.sleep(0.05)  # this is the work
        return databases.connect()

    pool = LedgerFairPool(creator, timeout=0.001, connect_in_time=True)
    pool.ledger = Ledger("main", 5, 15)
    return pool


def test_connecting_takes_too_long(databases: Databases) -> None:
    """Who gets no connection because none could be opened hears that, and not of a full pool."""
    pool = slow_pool(databases)
    with pytest.raises(ConnectTimeoutError) as caught:
        pool.connect()
    assert isinstance(caught.value, SqlAlchemyTimeoutError)
    assert str(caught.value) == (
        "No connection to the database 'main' could be opened within 0.001 s. Is the server down,"
        " or the network? If they are only slow, raise pool.timeout"
    )
    until(lambda: pool.checkedin() == 1)


def test_closed_while_connecting_takes_too_long(databases: Databases) -> None:
    """Where the factory is closed meanwhile, that is said."""
    pool = slow_pool(databases)
    refuse_if_closed = pool.ledger.refuse_if_closed

    def closes() -> None:
        refuse_if_closed()
        pool.ledger.closed = True

    pool.ledger.refuse_if_closed = closes  # type: ignore[method-assign]
    with pytest.raises(ClosedError):
        pool.connect()
    until(lambda: pool.checkedin() == 1)


@limited
def test_logs_where_sqlalchemy_does(
    kind: Limited, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    """``echo_pool`` and the level of SQLAlchemy's loggers reach these pools, too."""
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        small(kind, databases, 20).connect().close()
    assert {record.name.rpartition(".")[0] for record in caplog.records} == {"sqlalchemy.pool"}


@pytest.mark.parametrize("kind", [AsyncLedgerFairPool])
def test_async(kind: type[AsyncLedgerFairPool], databases: Databases) -> None:
    """The async twins keep the same books; the next event loop's pool is set as this one."""

    async def main() -> None:
        pool = small(kind, databases, 0.01)
        take = partial(greenlet_spawn, pool.connect)
        held = await take()
        with pytest.raises(PoolExhaustedError):
            await take()
        assert pool.ledger.status().in_use == 1
        await greenlet_spawn(held.close)
        pool.ledger.closed = True
        with pytest.raises(ClosedError):
            await take()
        bound = cast("AsyncLedgerFairPool", pool)
        bound.replace = lambda old: old
        assert bound.recreate().replace is bound.replace

    asyncio.run(main())
