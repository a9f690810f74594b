"""What SQLAlchemy's own tests say of ``QueuePool`` holds for both: cases after its test_pool.py."""

from __future__ import annotations

import gc
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import QueuePool

from sessionfactory.pool.fair import FairPool
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import Pool, PoolProxiedConnection
    from sqlalchemy.pool.base import _ConnectionFairy

    from tests.support.sqlite_pools import Databases

    Make = Callable[..., QueuePool | FairPool]


@pytest.fixture(params=[QueuePool, FairPool])
def make(request: pytest.FixtureRequest, databases: Databases) -> Make:
    """Make a pool, SQLAlchemy's or ours."""
    return cast("Make", partial(request.param, databases.connect))


def counters(pool: QueuePool | FairPool) -> tuple[int, int, int, int]:
    return pool.size(), pool.checkedin(), pool.overflow(), pool.checkedout()


def noted(pool: Pool) -> list[str]:
    """Return a list that grows by the name of each event of a pool."""
    events: list[str] = []

    def note(name: str, *_: object) -> None:
        events.append(name)

    for name in (
        *("first_connect", "connect", "checkout", "checkin", "reset", "invalidate"),
        *("soft_invalidate", "close", "detach", "close_detached"),
    ):
        event.listen(pool, name, partial(note, name))
    return events


@pytest.mark.parametrize("closed", [True, False])
def test_counters(make: Make, *, closed: bool) -> None:
    """The counters tell what is idle, over the size, and out, closed or dropped."""
    pool = make(pool_size=3, max_overflow=-1)
    seen: list[tuple[int, int, int, int]] = []
    held: list[PoolProxiedConnection] = []
    for _ in range(6):
        held.append(pool.connect())
        seen.append(counters(pool))
    assert seen == [(3, 0, over, over + 3) for over in range(-2, 4)]
    for left in (3, 0):
        while len(held) > left:
            connection = held.pop()
            if closed:
                connection.close()
            del connection
        gc.collect()
        seen.append(counters(pool))
    assert seen[6:] == [(3, 3, 3, 3), (3, 3, 0, 0)]
    assert pool.status() == (
        "Pool size: 3  Connections in pool: 3 Current Overflow: 0 Current Checked out"
        " connections: 0"
    )


def test_events(make: Make) -> None:
    """Each event happens when it does in SQLAlchemy's pools."""
    pool = make(pool_size=1)
    events = noted(pool)
    for _ in range(2):
        pool.connect().close()
    assert events == [
        *("first_connect", "connect", "checkout", "reset", "checkin"),
        *("checkout", "reset", "checkin"),
    ]
    events.clear()
    pool.connect().invalidate()
    assert events == ["checkout", "invalidate", "close", "checkin"]
    events.clear()
    with pool.connect() as connection:
        connection.invalidate(soft=True)
    pool.connect().close()
    assert events == [
        *("connect", "checkout", "soft_invalidate", "reset", "checkin"),
        *("close", "connect", "checkout", "reset", "checkin"),
    ]
    events.clear()
    connection = pool.connect()
    connection.detach()
    connection.close()
    assert events == ["checkout", "detach", "reset", "close_detached"]
    events.clear()
    one, two, three = pool.connect(), pool.connect(), pool.connect()
    for connection in (one, two, three):
        connection.close()
    pool.dispose()
    assert events.count("close") == events.count("connect") == 3


def test_events_of_a_failed_connect(make: Make, databases: Databases) -> None:
    """A connection that could not be opened is no event, and takes no place."""
    pool = make(pool_size=1, max_overflow=2)
    held = pool.connect()
    events = noted(pool)
    databases.error = OSError("it is down")
    with pytest.raises(OSError, match="it is down"):
        pool.connect()
    assert events == []
    assert pool.overflow() == 0
    held.close()


def test_events_of_a_failed_reconnect(make: Make, databases: Databases) -> None:
    """An entry whose connection could not be replaced is returned, and keeps its place."""
    pool = make(pool_size=1, max_overflow=2)
    pool.connect().invalidate()
    events = noted(pool)
    databases.error = OSError("it is down")
    with pytest.raises(OSError, match="it is down"):
        pool.connect()
    assert events == ["checkin"]
    assert counters(pool) == (1, 1, 0, 0)
    databases.error = None
    held = [pool.connect() for _ in range(3)]
    assert counters(pool) == (1, 0, 2, 3)
    for connection in held:
        connection.close()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["connect", "checkout"])
def test_listener_fails(
    make: Make, databases: Databases, moment: str, kind: type[BaseException]
) -> None:
    """A connection whose set-up fails, or that a listener refuses, is closed; its place is free."""
    pool = make(pool_size=1, max_overflow=0, timeout=0)
    failing = True

    @event.listens_for(pool, moment)
    def fail(*_: object) -> None:
        if failing:
            raise kind

    for _ in range(2):
        with pytest.raises(kind):
            pool.connect()
    assert not databases.open
    failing = False
    pool.connect().close()


def test_disconnect_at_checkout(make: Make, databases: Databases) -> None:
    """A connection that a listener finds dead is replaced; three dead ones are an error."""
    pool = make(pool_size=1, max_overflow=0, timeout=0)
    dead = 0

    @event.listens_for(pool, "checkout")
    def look(*_: object) -> None:
        nonlocal dead
        if dead:
            dead -= 1
            raise DisconnectionError

    pool.connect().close()
    dead = 1
    pool.connect().close()
    assert databases.opened == 2
    dead = 3
    with pytest.raises(InvalidRequestError, match="This connection is closed"):
        pool.connect()
    pool.connect().close()
    assert len(databases.open) == 1


def test_info(make: Make) -> None:
    """``info`` is the connection's, ``record_info`` the entry's, also when that has another one."""
    pool = make(pool_size=1, max_overflow=0)
    with pool.connect() as connection:
        assert connection.info == {}
        assert connection.record_info == {}
        connection.info["a"] = 1
        cast("dict[str, int]", connection.record_info)["b"] = 2
    with pool.connect() as connection:
        assert (connection.info, connection.record_info) == ({"a": 1}, {"b": 2})
        connection.invalidate()
    with pool.connect() as connection:
        assert (connection.info, connection.record_info) == ({}, {"b": 2})
        connection.detach()
        assert connection.record_info is None
    with pool.connect() as connection:
        assert connection.record_info == {"b": 2}


def test_invalidated_pool(make: Make, databases: Databases) -> None:
    """Every connection that was opened before the pool was invalidated is replaced."""
    pool = make(pool_size=3)
    held = [pool.connect() for _ in range(3)]
    held[0].close()
    tick = time.time()
    while time.time() == tick:
        pass
    pool._invalidate(held[1])
    held[2].close()
    held = [pool.connect() for _ in range(3)]
    assert databases.opened == 6
    assert len(databases.open) == 3
    for connection in held:
        connection.close()


def test_waiters_of_an_invalidated_connection(make: Make, databases: Databases) -> None:
    """Those who wait are served when what they wait for is invalidated."""
    pool = make(pool_size=1, max_overflow=0, timeout=None)
    held = pool.connect()
    callers = [Caller(lambda: pool.connect().close()) for _ in range(5)]
    pool._invalidate(held)
    for caller in callers:
        caller.join()
    assert databases.opened == 2


def test_detach(make: Make, databases: Databases) -> None:
    """A detached connection is the caller's own, and its place is free."""
    pool = make(pool_size=1, max_overflow=0, timeout=0)
    held = pool.connect()
    held.detach()
    other = pool.connect()
    assert databases.opened == 2
    held.close()
    assert list(databases.open) == [other.dbapi_connection]
    other.close()


def test_returned_twice(make: Make) -> None:
    """To return an entry a second time is a warning, and does nothing."""
    pool = make(pool_size=1)
    connection = pool.connect()
    record = cast("_ConnectionFairy", connection)._connection_record
    assert record is not None
    connection.close()
    with pytest.warns(match="Double checkin attempted"):
        record.checkin()
    assert pool.checkedin() == 1


def test_recycle(make: Make, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is older than ``recycle`` by the clock on the wall is replaced."""
    pool = make(pool_size=1, recycle=30)
    pool.connect().close()
    now = time.time()
    for later, opened in ((29, 1), (31, 2), (60, 2), (62, 3)):
        with monkeypatch.context() as patch:
            patch.setattr("sqlalchemy.pool.base.time.time", lambda later=later: now + later)
            pool.connect().close()
        assert databases.opened == opened


@pytest.mark.parametrize("use_lifo", [True, False])
def test_order(make: Make, *, use_lifo: bool) -> None:
    """Idle connections are taken last in, first out, or first in, first out."""
    pool = make(pool_size=3, use_lifo=use_lifo)
    held = [pool.connect() for _ in range(3)]
    order = [connection.dbapi_connection for connection in held]
    for connection in held:
        connection.close()
    held = [pool.connect() for _ in range(3)]
    again = [connection.dbapi_connection for connection in held]
    assert again == (order[::-1] if use_lifo else order)
    for connection in held:
        connection.close()


def test_never_more_than_allowed(make: Make, databases: Databases) -> None:
    """However many ask at once, no more are opened than may be, and those beyond are closed."""
    pool = make(pool_size=3, max_overflow=5, timeout=20)

    def use() -> None:
        for _ in range(10):
            with pool.connect():
                time.sleep(0.0005)  # this is the work

    for caller in [Caller(use) for _ in range(24)]:
        caller.join()
    assert databases.most <= 8
    assert len(databases.open) == pool.checkedin() == 3
    assert (pool.checkedout(), pool.overflow()) == (0, 0)


def test_slow_connect_holds_up_nobody(make: Make, databases: Databases) -> None:
    """While one connection takes long to open, others are opened and used."""
    pool = make(pool_size=2, max_overflow=0, timeout=20)
    go_on = False
    connect = databases.connect
    slow = True

    def sometimes_slow() -> DBAPIConnection:
        nonlocal slow
        if slow:
            slow = False
            until(lambda: go_on)
        return connect()

    pool._creator = sometimes_slow
    caller = Caller(lambda: pool.connect().close())
    until(lambda: not slow)
    pool.connect().close()
    assert not caller.done
    go_on = True
    caller.join()
    assert len(databases.open) == 2


def test_collected_with_its_engine(make: Make, url: str) -> None:
    """A pool without references is garbage, and its connections with it."""
    pool = make()
    reference = weakref.ref(pool)
    pool.connect().close()
    engine = create_engine(url, poolclass=type(pool))
    with engine.connect() as using:
        using.execute(text("SELECT 1"))
    engine.dispose()
    engine_reference = weakref.ref(engine)
    del pool, engine, using
    gc.collect()
    assert reference() is None
    assert engine_reference() is None


def test_timeout_of_zero(make: Make) -> None:
    """A timeout of 0 does not wait."""
    pool = make(pool_size=1, max_overflow=0, timeout=0)
    with pool.connect(), pytest.raises(SqlAlchemyTimeoutError, match="connection timed out"):
        pool.connect()
    assert pool.timeout() == 0
