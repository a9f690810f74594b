"""A fair pool serves in the order of arrival, and loses neither connections nor wake-ups."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import PoolProxiedConnection, reset_commit

from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.pool_entry import PoolEntry
from tests.support.sqlite_pools import Caller, record_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.pool.wait_queue import Waiter
    from tests.support.sqlite_pools import Databases


def one_connection(databases: Databases, timeout: float | None = 3600) -> FairPool:
    """Return a pool of a single connection."""
    return FairPool(databases.connect, pool_size=1, max_overflow=0, timeout=timeout)


def counters(pool: FairPool) -> tuple[int, int, int, int]:
    """Return what is idle, out, over the size, and who waits."""
    return pool.checkedin(), pool.checkedout(), pool.overflow(), pool.waiting()


def test_first_come_first_served(databases: Databases) -> None:
    """A connection goes to those who wait in the order in which they came."""
    pool = one_connection(databases)
    held = pool.connect()
    served: list[int] = []

    def use(number: int) -> None:
        with pool.connect():
            served.append(number)

    callers: list[Caller] = []
    for number in range(8):
        callers.append(Caller(partial(use, number)))
        until(lambda: pool.waiting() == len(callers))
    held.close()
    for caller in callers:
        caller.join()
    assert served == list(range(8))
    assert databases.opened == 1
    assert counters(pool) == (1, 0, 0, 0)


def test_nobody_overtakes(databases: Databases) -> None:
    """Who gives a connection back and wants it again comes after those who wait."""
    pool = one_connection(databases)
    served: list[str] = []

    def use() -> None:
        with pool.connect():
            served.append("who waited")

    held = pool.connect()
    caller = Caller(use)
    until(lambda: pool.waiting() == 1)
    held.close()
    with pool.connect():
        served.append("who came back")
    caller.join()
    assert served == ["who waited", "who came back"]


def test_all_threads_get_their_share(databases: Databases) -> None:
    """Of 32 threads on 5 connections, each is served as often as any other, and none in vain."""
    pool = FairPool(databases.connect, pool_size=5, max_overflow=0, timeout=20)
    served = [0] * 32
    holders: deque[int] = deque()
    tick = threading.Event()

    def is_my_turn(number: int) -> bool:
        """Go by turns, and not by time: who has held for longest leaves, once all others wait."""
        return holders[0] == number and len(holders) == 5 and pool.waiting() == 32 - 5

    def work(number: int) -> None:
        while sum(served) < 32 * 40:
            with pool.connect():
                holders.append(number)
                while not is_my_turn(number) and sum(served) < 32 * 40:
                    tick.wait(0.0001)
                served[number] += 1
                holders.remove(number)

    for caller in [Caller(partial(work, number)) for number in range(32)]:
        caller.join()
    assert min(served) / max(served) >= 0.95  # QueuePool: 0; by time, it is a benchmark
    assert databases.most <= 5


def test_timeout(databases: Databases) -> None:
    """Who waits in vain is told in QueuePool's words, and has left the line."""
    pool = one_connection(databases, timeout=0.01)
    held = pool.connect()
    with pytest.raises(SqlAlchemyTimeoutError) as caught:
        pool.connect()
    assert caught.value.args == (
        "FairPool limit of size 1 overflow 0 reached, connection timed out, timeout 0.01",
    )
    assert caught.value.code == "3o7r"
    assert counters(pool) == (0, 1, 0, 0)
    held.close()
    pool.connect().close()
    assert counters(pool) == (1, 0, 0, 0)


def test_no_timeout(databases: Databases) -> None:
    """Without a timeout, a caller waits for as long as it takes."""
    pool = one_connection(databases, timeout=None)
    held = pool.connect()
    caller = Caller(lambda: pool.connect().close())
    until(lambda: pool.waiting() == 1)
    held.close()
    caller.join()
    assert pool.timeout() is None


def test_connect_fails_while_others_wait(databases: Databases) -> None:
    """When a connection cannot be opened, the longest waiter may try."""
    connecting, go_on = threading.Event(), threading.Event()

    def creator() -> DBAPIConnection:
        if not connecting.is_set():
            connecting.set()
            assert go_on.wait(10)
            raise ConnectionRefusedError
        return databases.connect()

    pool = FairPool(creator, pool_size=1, max_overflow=0, timeout=3600)
    failing = Caller(pool.connect)
    assert connecting.wait(10)
    waiting = Caller(lambda: pool.connect().close())
    until(lambda: pool.waiting() == 1)
    go_on.set()
    with pytest.raises(ConnectionRefusedError):
        failing.join()
    waiting.join()
    assert counters(pool) == (1, 0, 0, 0)


def test_reconnect_fails_while_others_wait(databases: Databases) -> None:
    """When a lost connection cannot be replaced, the longest waiter may try."""
    pool = one_connection(databases)
    held = pool.connect()
    failing = Caller(pool.connect)
    until(lambda: pool.waiting() == 1)
    waiting = Caller(lambda: pool.connect().close())
    until(lambda: pool.waiting() == 2)
    databases.error = OSError("it is down")
    held.invalidate()
    with pytest.raises(OSError, match="it is down"):
        failing.join()
    with pytest.raises(OSError, match="it is down"):
        waiting.join()
    databases.error = None
    pool.connect().close()
    assert counters(pool) == (1, 0, 0, 0)


def test_dropped_connection_comes_back(databases: Databases) -> None:
    """Garbage collection hands a dropped connection to the next waiter."""
    pool = one_connection(databases)
    held: list[object] = [pool.connect()]
    held.append(held)  # a cycle, so that only the collector finds it
    caller = Caller(lambda: pool.connect().close())
    until(lambda: pool.waiting() == 1)
    del held
    gc.collect()
    caller.join()
    assert databases.opened == 1


class Meanwhile(FairPool):
    """A pool that calls a function when a caller begins to wait."""

    happens: Callable[[], object]
    error: BaseException | None = None

    def _wait(self, deadline: float | None, waiter: Waiter[PoolEntry]) -> None:
        self.happens()
        if self.error is not None:
            raise self.error


def test_handed_over_as_the_time_is_up(databases: Databases) -> None:
    """A connection that arrives with the deadline is taken."""
    pool = Meanwhile(databases.connect, pool_size=1, max_overflow=0)
    held = pool.connect()
    pool.happens = held.close
    pool.connect().close()
    assert counters(pool) == (1, 0, 0, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_handed_over_as_the_wait_is_interrupted(
    databases: Databases, error: type[BaseException]
) -> None:
    """A connection that is given to a caller who is interrupted is the next one's."""
    pool = Meanwhile(databases.connect, pool_size=1, max_overflow=0)
    held = pool.connect()
    pool.happens = held.close
    pool.error = error()
    with pytest.raises(error):
        pool.connect()
    assert counters(pool) == (1, 0, 0, 0)


def test_right_to_connect_as_the_wait_is_interrupted(databases: Databases) -> None:
    """So is the right to open one."""
    pool = Meanwhile(databases.connect, pool_size=1, max_overflow=0)
    held = pool.connect()
    pool.happens = held.detach
    pool.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool.connect()
    pool.connect().close()
    held.close()
    assert counters(pool) == (1, 0, 0, 0)


def test_keyboard_interrupt(databases: Databases) -> None:
    """A signal ends the wait of the main thread, which leaves the line."""
    pool = one_connection(databases)
    held = pool.connect()
    ended = threading.Event()

    def interrupt() -> None:
        until(lambda: pool.waiting() == 1)
        # Again, if it came when Python had just looked for signals, and not yet gone to sleep.
        while not ended.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            ended.wait(2)

    # A shell starts what runs in the background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        caller = Caller(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.connect()
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)
    caller.join()
    assert counters(pool) == (0, 1, 0, 0)
    held.close()
    assert counters(pool) == (1, 0, 0, 0)


def test_size_and_overflow(databases: Databases) -> None:
    """Connections up to the size are kept, those beyond are closed, and there are no more."""
    pool = FairPool(databases.connect, pool_size=2, max_overflow=1, timeout=0)
    held = [pool.connect() for _ in range(3)]
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    assert counters(pool) == (0, 3, 1, 0)
    first = held[0].dbapi_connection
    for connection in held:
        connection.close()
    assert counters(pool) == (2, 0, 0, 0)
    assert len(databases.open) == 2
    assert first not in databases.open  # it rested longest


def test_surplus_is_taken_as_it_is_closed(databases: Databases) -> None:
    """A connection beyond the size that is checked out at that moment stays open."""

    class Emptied(deque[PoolEntry]):
        def popleft(self) -> PoolEntry:
            self.clear()
            return super().popleft()

    pool = FairPool(databases.connect, pool_size=1, max_overflow=1)
    one, two = pool.connect(), pool.connect()
    pool._entries.idle = Emptied()
    one.close()
    two.close()
    assert len(databases.open) == 2


def test_last_place_is_taken_as_it_is_asked_for(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two who find the last place at the same time, the second waits."""
    pool = one_connection(databases, timeout=0)
    with monkeypatch.context() as patch, pool.connect():
        seen = iter([False, True])
        patch.setattr(type(pool._entries.permits), "all_taken", property(lambda _: next(seen)))
        with pytest.raises(SqlAlchemyTimeoutError):
            pool.connect()
    assert counters(pool) == (1, 0, 0, 0)


def test_lifo_by_default(databases: Databases) -> None:
    """The connection that was used last is used next, or the one that rested longest."""
    for use_lifo in (True, False):
        pool = FairPool(databases.connect, use_lifo=use_lifo)
        one, two = pool.connect(), pool.connect()
        first, second = one.dbapi_connection, two.dbapi_connection
        one.close()
        two.close()
        with pool.connect() as taken:
            assert taken.dbapi_connection is (second if use_lifo else first)
        assert FairPool(databases.connect)._use_lifo


def test_connected_before_unconnected(databases: Databases) -> None:
    """An entry that lost its connection is used when no other one is idle."""
    pool = FairPool(databases.connect, pool_size=2)
    one, two = pool.connect(), pool.connect()
    one.close()
    two.invalidate()
    with pool.connect():
        assert databases.opened == 2
        pool.connect().close()
    assert databases.opened == 3


def test_recycle_with_jitter(databases: Databases) -> None:
    """Connections that were opened together become due one after the other."""
    pool = FairPool(databases.connect, pool_size=50, recycle=1000)
    began = time.monotonic()
    held = [pool.connect() for _ in range(50)]
    due = [record_of(connection).due for connection in held]
    assert began + 750 <= min(due) < max(due) <= time.monotonic() + 1000
    assert max(due) - min(due) > 100
    for connection in held:
        connection.close()


def test_due_connection_is_replaced(databases: Databases) -> None:
    """A connection past its time is replaced by a fresh one when it is next checked out."""
    pool = FairPool(databases.connect, recycle=1000, recycle_jitter=0)
    events: list[str] = []

    def note(name: str, *_: object) -> None:
        events.append(name)

    for name in ("soft_invalidate", "close", "connect"):
        event.listen(pool, name, partial(note, name))
    with pool.connect() as connection:
        old, record = connection.dbapi_connection, record_of(connection)
    with pool.connect() as connection:
        assert connection.dbapi_connection is old
    record.due = 0
    with pool.connect() as connection:
        assert connection.dbapi_connection is not old
        assert record_of(connection) is record
    pool.connect().close()
    assert events == ["connect", "soft_invalidate", "close", "connect"]


def test_listener_fails_as_a_connection_is_replaced(databases: Databases) -> None:
    """Whatever happens between the line and the caller, the connection is not lost."""
    pool = FairPool(databases.connect, recycle=1000)
    with pool.connect() as connection:
        record = record_of(connection)
    record.due = 0

    @event.listens_for(pool, "soft_invalidate")
    def fail(*_: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        pool.connect()
    assert counters(pool) == (1, 0, -4, 0)


def test_dispose(databases: Databases) -> None:
    """Idle connections are closed at once, those that are out when they come back."""
    pool = FairPool(databases.connect)
    out, idle = pool.connect(), pool.connect()
    idle.close()
    pool.dispose()
    assert len(databases.open) == 1
    fresh = pool.connect()
    out.close()
    assert list(databases.open) == [fresh.dbapi_connection]
    fresh.close()
    assert counters(pool) == (1, 0, -4, 0)


def test_dispose_makes_room(databases: Databases) -> None:
    """Who waits in a pool that is disposed of may open a connection."""
    pool = one_connection(databases)
    held = pool.connect()
    caller = Caller(lambda: pool.connect().close())
    until(lambda: pool.waiting() == 1)
    pool.dispose()
    caller.join()
    held.close()
    assert counters(pool) == (1, 0, 0, 0)
    assert len(databases.open) == 1


def test_retire(databases: Databases) -> None:
    """A pool that is given up touches no connection before it comes back."""
    pool = FairPool(databases.connect)
    held = pool.connect()
    pool.retire()
    assert len(databases.open) == 1
    held.close()
    assert not databases.open


def test_disposed_as_a_connection_comes_back(databases: Databases) -> None:
    """A connection that comes back while the pool is disposed of is closed, by one or the other."""
    pool = FairPool(databases.connect)
    held = pool.connect()

    class Disposing(deque[PoolEntry]):
        def append(self, item: PoolEntry) -> None:
            super().append(item)
            pool.dispose()

    pool._entries.idle = Disposing()
    pool._entries._next_idle = pool._entries.idle.pop
    held.close()
    assert not databases.open
    assert counters(pool) == (0, 0, -5, 0)


def test_turn_away(databases: Databases) -> None:
    """No waiter remains at a pool that is closed."""
    pool = one_connection(databases, timeout=None)
    held = pool.connect()
    caller = Caller(pool.connect)
    until(lambda: pool.waiting() == 1)
    pool.turn_away()
    with pytest.raises(SqlAlchemyTimeoutError, match="timeout inf"):
        caller.join()
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    held.close()


def test_recreate_carries_every_setting(databases: Databases) -> None:
    """A pool that takes another's place is set as that was."""
    seen: list[object] = []
    pool = FairPool(
        databases.connect,
        7,
        8,
        9.5,
        False,
        0.5,
        recycle=35,
        echo="debug",
        logging_name="mine",
        reset_on_return="commit",
        pre_ping=True,
        events=[(lambda *_: seen.append("connect"), "connect")],
    )
    again = pool.recreate()
    assert (again.size(), again._max_overflow, again.timeout()) == (7, 8, 9.5)
    assert (again._use_lifo, again._recycle_jitter, again._recycle) == (False, 0.5, 35)
    assert (again.echo, again._orig_logging_name) == ("debug", "mine")
    assert (again._reset_on_return, again._pre_ping) == (reset_commit, True)
    assert again._dialect is pool._dialect
    unset = {
        "dispatch",
        "_dialect",
        "_entries",
        "_connector",
        "tracking",
        "_invoke_creator",
        "logger",
    }
    settings = {name: value for name, value in vars(pool).items() if name not in unset}
    assert settings == {name: value for name, value in vars(again).items() if name not in unset}


def test_create_engine(url: str) -> None:
    """``create_engine`` gives the pool each of its keywords."""
    engine = create_engine(
        url,
        poolclass=FairPool,
        pool_size=3,
        max_overflow=4,
        pool_timeout=0.5,
        pool_use_lifo=False,
        pool_recycle=100,
        recycle_jitter=0.1,
        pool_pre_ping=True,
        pool_reset_on_return="commit",
        pool_logging_name="mine",
        echo_pool=False,
    )
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    pool = engine.pool
    assert isinstance(pool, FairPool)
    assert pool.status() == (
        "Pool size: 3  Connections in pool: 1 Current Overflow: -2 Current Checked out"
        " connections: 0"
    )
    assert (pool._max_overflow, pool.timeout(), pool._use_lifo) == (4, 0.5, False)
    assert (pool._recycle, pool._recycle_jitter, pool._pre_ping) == (100, 0.1, True)
    assert (pool._reset_on_return, pool.logging_name) == (reset_commit, "mine")
    engine.dispose()
    assert engine.pool is not pool
    with engine.connect(), pytest.raises(OperationalError):
        engine.connect().execute(text("SELECT no_such_column"))
    engine.dispose()


def test_echo_pool(databases: Databases, caplog: pytest.LogCaptureFixture) -> None:
    """It logs what SQLAlchemy's pools log, where they do."""
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        pool = FairPool(databases.connect)
        pool.connect().close()
        pool.recreate()
        pool.dispose()
    assert {record.name for record in caplog.records} == {"sqlalchemy.pool.FairPool"}
    assert [record.msg for record in caplog.records] == [
        "Created new connection %r",
        "Connection %r checked out from pool",
        "Connection %r being returned to pool",
        "Connection %s rollback-on-return",
        "Pool recreating",
        "%s connection %r",
        "Pool disposed. %s",
    ]


@pytest.mark.parametrize(("size", "overflow"), [(0, 0), (0, 10), (1, -1), (0, -5)])
def test_unlimited(databases: Databases, size: int, overflow: int) -> None:
    """A size of 0, or an overflow below 0, is no limit."""
    pool = FairPool(databases.connect, size, overflow, timeout=0)
    held: list[PoolProxiedConnection] = [pool.connect() for _ in range(30)]
    assert pool.checkedout() == 30
    for connection in held:
        connection.close()
    assert pool.checkedin() == (size or 30)
    pool.dispose()
