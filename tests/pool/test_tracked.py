"""A tracked pool records its holders, names them when it is exhausted, and can be closed."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory import AsyncFairPool, ClosedError, FairPool, PoolExhaustedError
from sessionfactory.pool.ledger import Ledger
from sessionfactory.pool.tracked import LoopBinding, Tracking
from sessionfactory.pool_errors import ConnectTimeoutError
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.pool.ledger import Caller as Waiting
    from sessionfactory.pool.pool_entry import PoolEntry
    from tests.support.sqlite_pools import Databases


def track(pool: FairPool, size: int = 1, limit: int = 1) -> Ledger:
    """Track a pool, and return the ledger."""
    ledger = Ledger("main", size, limit)
    pool.tracking = Tracking(ledger)
    ledger.listen_to_closes(pool)
    ledger.listen_to_connects(pool)
    return ledger


def small(databases: Databases, timeout: float) -> tuple[FairPool, Ledger]:
    """Return a pool of a single connection, and its ledger."""
    pool = FairPool(databases.connect, pool_size=1, max_overflow=0, timeout=timeout)
    return pool, track(pool)


def test_exhausted(databases: Databases) -> None:
    """The error of a caller that waited in vain lists who has the connections."""
    pool, _ = small(databases, 0.01)
    with pool.connect(), pytest.raises(PoolExhaustedError) as caught:
        pool.connect()
    message, holder = str(caught.value).splitlines()
    assert message == (
        "No connection of the database 'main' came free within 0.01 s: all 1 are in use. Close"
        " sessions sooner, or raise pool.size. In use by:"
    )
    assert f"{__file__}:" in holder
    assert len(caught.value.holders) == 1


def test_counts_waiters(databases: Databases) -> None:
    """The status counts the callers that wait."""
    pool, ledger = small(databases, 20)
    held = pool.connect()
    callers = [Caller(lambda: pool.connect().close()) for _ in range(3)]
    until(lambda: ledger.status().waiting == 3)
    held.close()
    for caller in callers:
        caller.join()
    assert ledger.status().waiting == 0


def test_a_waiter_that_was_sent_away_is_not_counted(databases: Databases) -> None:
    """Once the pool sends its waiters away, the status counts none, however slow they are."""
    pool, ledger = small(databases, 20)
    held = pool.connect()
    seen: list[int] = []
    remove = ledger.remove_waiter

    def look_and_remove(waiter: object) -> None:
        seen.append(ledger.status().waiting)
        remove(waiter)

    ledger.remove_waiter = look_and_remove  # type: ignore[method-assign]
    caller = Caller(pool.connect)
    until(lambda: ledger.status().waiting == 1)
    ledger.closed = True
    pool.turn_away()
    with pytest.raises(ClosedError):
        caller.join()
    assert seen == [0]
    held.close()


def test_opening_a_connection_is_no_waiting(databases: Databases) -> None:
    """A caller that opens a connection itself does not wait for one."""
    pool, ledger = small(databases, 20)
    seen: list[int] = []
    event.listen(pool, "connect", lambda *_: seen.append(ledger.status().waiting))
    pool.connect().close()
    assert seen == [0]


def test_closed_while_they_wait(databases: Databases) -> None:
    """Callers that wait when the factory is closed get an error at once; so do later ones."""
    pool, ledger = small(databases, 3600)
    held = pool.connect()
    callers = [Caller(pool.connect) for _ in range(3)]
    until(lambda: ledger.status().waiting == 3)
    ledger.closed = True
    pool.turn_away()
    for caller in callers:
        with pytest.raises(ClosedError):
            caller.join()
    with pytest.raises(ClosedError):
        pool.connect()
    held.close()


def test_closed_as_a_caller_begins_to_wait(databases: Databases) -> None:
    """No caller begins to wait for a factory that is closed at that moment."""
    pool, ledger = small(databases, 0.01)
    held = pool.connect()
    note = ledger.note_waiter

    def close_and_note(waiter: object) -> Waiting:
        ledger.closed = True
        return note(waiter)

    ledger.note_waiter = close_and_note  # type: ignore[method-assign]
    with pytest.raises(ClosedError):
        pool.connect()
    ledger.closed = False
    held.close()


@pytest.mark.parametrize("reuse", [True, False])
def test_closed(databases: Databases, *, reuse: bool) -> None:
    """A closed factory gives no connection, and its next pool is tracked by the same ledger."""
    pool = FairPool(databases.connect, reuse=reuse)
    ledger = track(pool, 5, 15)
    pool.connect().close()
    again = pool.recreate()
    assert again.tracking is pool.tracking
    ledger.closed = True
    pool.turn_away()
    for one in (pool, again):
        with pytest.raises(ClosedError, match="'main' is closed"):
            one.connect()


def test_a_connection_for_each_checkout(databases: Databases) -> None:
    """A pool that reuses nothing closes what is checked in, and has no limit."""
    pool = FairPool(databases.connect, pool_size=0, reuse=False)
    held = [pool.connect() for _ in range(20)]
    assert (pool.checkedout(), len(databases.open)) == (20, 20)
    for connection in held:
        connection.close()
    assert (pool.checkedout(), pool.checkedin(), len(databases.open)) == (0, 0, 0)
    again = pool.recreate()
    again.connect().close()
    assert not databases.open


def test_disposed_with_a_connection_out(databases: Databases) -> None:
    """A connection that is out when the pool is disposed of is closed when it is checked in."""
    pool, ledger = small(databases, 20)
    held = pool.connect()
    pool.dispose()
    held.close()
    assert not databases.open
    assert ledger.status().size == 0


def test_a_lost_entry_is_not_counted(databases: Databases) -> None:
    """A connection whose pool entry is garbage is no longer recorded as open."""
    pool, ledger = small(databases, 20)
    pool.connect().close()
    assert ledger.status().size == 1
    pool._entries.idle.clear()  # as an exception in the middle of a checkout does
    gc.collect()
    assert not ledger.open
    pool.connect().close()
    assert (len(ledger.open), ledger.status().size) == (1, 1)
    pool.dispose()


def slow_pool(databases: Databases) -> tuple[FairPool, Ledger]:
    """Return a pool whose connections come too late, and its ledger."""

    def creator() -> DBAPIConnection:
        time.sleep(0.05)  # this is the work
        return databases.connect()

    pool = FairPool(creator, timeout=0.001, connect_in_time=True)
    return pool, track(pool, 5, 15)


def test_connecting_takes_too_long(databases: Databases) -> None:
    """Where no connection could be opened in time, the error says that, and not "exhausted"."""
    pool, _ = slow_pool(databases)
    with pytest.raises(ConnectTimeoutError) as caught:
        pool.connect()
    assert isinstance(caught.value, SqlAlchemyTimeoutError)
    assert str(caught.value) == (
        "No connection to the database 'main' could be opened within 0.001 s. Is the server down,"
        " or the network? If they are only slow, raise pool.timeout"
    )
    until(lambda: pool.checkedin() == 1)


def test_closed_while_connecting_takes_too_long(databases: Databases) -> None:
    """Where the factory is closed meanwhile, the error says that."""
    pool, ledger = slow_pool(databases)
    acquire = pool.acquire

    def acquire_and_close() -> PoolEntry:
        ledger.closed = True
        return acquire()

    pool.acquire = acquire_and_close  # type: ignore[method-assign]
    with pytest.raises(ClosedError):
        pool.connect()
    until(lambda: pool.checkedin() == 1)


def test_logs_where_sqlalchemy_does(databases: Databases, caplog: pytest.LogCaptureFixture) -> None:
    """``echo_pool`` and the level of SQLAlchemy's loggers apply to this pool, too."""
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        small(databases, 20)[0].connect().close()
    assert {record.name.rpartition(".")[0] for record in caplog.records} == {"sqlalchemy.pool"}


def test_async(databases: Databases) -> None:
    """The async twin is tracked in the same way, and belongs to the event loop that uses it."""

    async def main() -> None:
        pool = AsyncFairPool(databases.connect, pool_size=1, max_overflow=0, timeout=0.01)
        ledger = track(pool)
        assert pool.tracking is not None
        pool.tracking.loops = LoopBinding("main", lambda old: old)
        take = partial(greenlet_spawn, pool.connect)
        held = await take()
        assert pool.loop is asyncio.get_running_loop()
        with pytest.raises(PoolExhaustedError):
            await take()
        assert ledger.status().in_use == 1
        await greenlet_spawn(held.close)
        ledger.closed = True
        with pytest.raises(ClosedError):
            await take()
        assert pool.recreate().tracking is pool.tracking

    asyncio.run(main())
