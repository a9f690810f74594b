"""A new connection arrives by the deadline, or an error is raised; a late one stays in the pool."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from sessionfactory.pool.connector import Attempts
from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.loop_bound import AsyncFairPool
from sessionfactory.pool.pool_entry import PoolEntry, deadline_of
from sessionfactory.pool.wait_queue import ThreadWaiter
from tests.support.sqlite_pools import Caller, record_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from tests.support.sqlite_pools import Databases

ONE = text("SELECT 1")


class Slow:
    """Opens connections, each when it is told to."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._gate = threading.Semaphore(0)
        self.asked = 0
        self.threads: list[str] = []

    def connect(self) -> DBAPIConnection:
        """Open a connection, later."""
        self.asked += 1
        self.threads.append(threading.current_thread().name)
        assert self._gate.acquire(timeout=20)
        return self._databases.connect()

    def go_on(self, times: int = 1) -> None:
        """Have as many as this be opened."""
        self._gate.release(times)


@pytest.fixture
def slow(databases: Databases) -> Slow:
    """Connections that take their time."""
    return Slow(databases)


def timely(slow: Slow, timeout: float | None = 0.01, size: int = 1, overflow: int = 0) -> FairPool:
    return FairPool(slow.connect, size, overflow, timeout, connect_in_time=True)


def test_opened_in_time(slow: Slow, databases: Databases) -> None:
    """A connection that is opened in time is the caller's, and was opened in another thread."""
    pool = timely(slow, timeout=20)
    slow.go_on()
    with pool.connect() as connection:
        assert list(databases.open) == [connection.dbapi_connection]
    assert slow.threads == ["sessionfactory-connect"]
    assert pool.checkedin() == 1


def test_error_of_connecting(databases: Databases) -> None:
    """What the driver raises is raised, and takes no place."""
    pool = FairPool(databases.connect, timeout=20, connect_in_time=True)
    databases.error = OSError("it is down")
    with pytest.raises(OSError, match="it is down"):
        pool.connect()
    assert pool.checkedout() == 0


def test_without_a_timeout(slow: Slow) -> None:
    """Where nothing limits the checkout, the caller's own thread connects."""
    slow.go_on()
    timely(slow, timeout=None).connect().close()
    assert slow.threads == ["MainThread"]


def test_late_connection_is_pooled(slow: Slow, databases: Databases) -> None:
    """Who waits too long is told so; the connection that comes then is the next one's."""
    pool = timely(slow)
    events: list[str] = []
    event.listen(pool, "connect", lambda *_: events.append("connect"))
    with pytest.raises(SqlAlchemyTimeoutError, match="FairPool could not open a connection in"):
        pool.connect()
    assert (pool.checkedout(), events) == (0, [])
    slow.go_on()
    until(lambda: pool.checkedin() == 1)
    pool.connect().close()
    assert (slow.asked, databases.opened, events) == (1, 1, ["connect"])


def test_late_connection_without_a_place(slow: Slow, databases: Databases) -> None:
    """A connection that comes late to a full pool is closed."""
    pool = timely(slow)
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    record = PoolEntry(pool, pool._entries.permits)
    assert pool._entries.permits.take(record)
    slow.go_on()
    until(lambda: databases.opened == 1 and not databases.open)
    assert pool.checkedin() == 0


def test_late_connection_of_a_disposed_pool(slow: Slow, databases: Databases) -> None:
    """A connection that comes after its pool was disposed of is closed."""
    pool = timely(slow)
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    pool.dispose()
    slow.go_on()
    until(lambda: databases.opened == 1 and not databases.open)
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


def test_late_connection_whose_set_up_fails(slow: Slow, databases: Databases) -> None:
    """A connection that comes late and that a listener refuses is closed, and takes no place."""
    pool = timely(slow)
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()

    @event.listens_for(pool, "connect")
    def refuse(*_: object) -> None:
        raise ValueError

    slow.go_on()
    until(lambda: databases.opened == 1 and not databases.open)
    until(lambda: pool.checkedout() == 0)


def test_late_error(slow: Slow, databases: Databases) -> None:
    """An error without a waiter is dropped."""
    pool = timely(slow)
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    databases.error = OSError("it is down")
    slow.go_on()
    assert pool._connector.attempts is not None
    connector = pool._connector.attempts
    until(lambda: not connector._under_way)
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


def test_set_up_elsewhere(databases: Databases) -> None:
    """A listener runs where a connection is opened; what it notes is there at the checkout."""
    pool = FairPool(databases.connect, timeout=20, connect_in_time=True)
    notes: list[object] = []

    @event.listens_for(pool, "connect")
    def note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["thread"] = threading.current_thread().name
        times = record.record_info
        assert times is not None
        times["connected"] = times.get("connected", 0) + 1
        notes.append(deadline_of(record))

    with pool.connect() as connection:
        assert connection.info == {"thread": "sessionfactory-connect"}
        connection.invalidate()
    with pool.connect() as connection:
        assert connection.info == {"thread": "sessionfactory-connect"}
        assert connection.record_info == {"connected": 2}
    assert None not in notes
    assert len(databases.open) == 1


def test_set_up_fails(databases: Databases) -> None:
    """What a listener raises is raised at the checkout, and the connection is closed."""
    pool = FairPool(databases.connect, timeout=20, connect_in_time=True)

    @event.listens_for(pool, "connect")
    def refuse(*_: object) -> None:
        raise ValueError("not like this")

    with pytest.raises(ValueError, match="not like this"):
        pool.connect()
    assert (pool.checkedout(), databases.opened, len(databases.open)) == (0, 1, 0)


def test_late_connection_is_recycled(slow: Slow) -> None:
    """A connection that came late is due like any other."""
    pool = FairPool(slow.connect, 1, 0, 0.01, connect_in_time=True, recycle=3600)
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    slow.go_on()
    until(lambda: pool.checkedin() == 1)
    with pool.connect() as connection:
        assert record_of(connection).due < time.monotonic() + 3600


def test_owner_closes(slow: Slow, databases: Databases) -> None:
    """A caller that connects when the pool is closed stops waiting, and none begins to."""
    pool = timely(slow, timeout=20, size=2)
    caller = Caller(pool.connect)
    until(lambda: slow.asked == 1)
    pool.turn_away()
    with pytest.raises(SqlAlchemyTimeoutError):
        caller.join()
    assert pool._connector.attempts is not None
    record = PoolEntry(pool, pool._entries.permits)
    assert (
        pool._connector.attempts.open(lambda: record, time.monotonic() + 20, PoolEntry.close)
        is None
    )
    assert slow.asked == 1
    pool.dispose()
    slow.go_on()
    until(lambda: databases.opened == 1 and not databases.open)


def test_no_more_than_twice_as_many_attempts(slow: Slow) -> None:
    """A server that never answers does not fill the process with threads."""
    pool = timely(slow, size=2)
    for _ in range(6):
        with pytest.raises(SqlAlchemyTimeoutError):
            pool.connect()
    assert slow.asked == 4
    pool._timeout = 20
    caller = Caller(lambda: pool.connect().close())
    until(lambda: pool.checkedout() == 1)
    slow.go_on(5)
    caller.join()


def test_no_limit_of_attempts(slow: Slow) -> None:
    """A pool without a limit has none here, either."""
    pool = timely(slow, size=0)
    for _ in range(6):
        with pytest.raises(SqlAlchemyTimeoutError):
            pool.connect()
    assert slow.asked == 6
    slow.go_on(6)
    until(lambda: pool.checkedin() == 6)
    pool.dispose()


def test_replaced_in_time(slow: Slow, databases: Databases) -> None:
    """The deadline holds, too, where a connection takes another's place."""
    pool = timely(slow, timeout=20)
    slow.go_on()
    with pool.connect() as connection:
        record = record_of(connection)
        connection.invalidate()
    pool._timeout = 0.01
    with pytest.raises(SqlAlchemyTimeoutError):
        pool.connect()
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    slow.go_on(2)
    until(lambda: databases.opened == 2)
    pool._timeout = 20
    with pool.connect() as connection:
        assert record_of(connection) is record


def test_no_thread_can_be_started(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, a connection is opened in place, and set up unwatched."""
    pool = FairPool(databases.connect, 1, 0, 20, connect_in_time=True)

    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(3):
            with pool.connect() as connection:
                connection.invalidate()
    assert databases.opened == 3
    assert (pool.taken(), pool.waiting()) == (0, 0)
    pool.connect().close()
    assert pool.checkedin() == 1


def test_an_error_of_a_connection_that_is_opened_in_place(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised as ever, and its place is free again."""
    pool = FairPool(databases.connect, 1, 0, 20, connect_in_time=True)
    databases.error = OSError("no route to host")

    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OSError, match="no route"):
            pool.connect()
    assert (pool.checkedout(), pool.taken()) == (0, 0)


def test_interrupted_as_it_arrives(databases: Databases) -> None:
    """A connection that arrives as its caller is interrupted is the next one's."""
    arrived: list[DBAPIConnection] = []

    class Interrupted(ThreadWaiter[object]):
        def wait(self, deadline: float | None) -> None:
            super().wait(deadline)
            raise KeyboardInterrupt

    def start(call: Callable[[], None]) -> object:
        call()
        return None

    connector: Attempts[DBAPIConnection] = Attempts(1, start, ThreadWaiter)
    connector._waiter = Interrupted  # for the outcome
    with pytest.raises(KeyboardInterrupt):
        connector.open(databases.connect, time.monotonic() + 20, arrived.append)
    assert arrived == list(databases.open)


def test_interrupted_before_it_arrives(slow: Slow, databases: Databases) -> None:
    """Nor is one lost that comes after its caller was interrupted."""
    pool = timely(slow, timeout=20)

    class Interrupted(ThreadWaiter[object]):
        def wait(self, deadline: float | None) -> None:
            raise KeyboardInterrupt

    assert pool._connector.attempts is not None
    pool._connector.attempts._waiter = Interrupted
    with pytest.raises(KeyboardInterrupt):
        pool.connect()
    slow.go_on()
    until(lambda: pool.checkedin() == 1)
    assert len(databases.open) == 1


def test_listener_has_deadline_and_context(url: str) -> None:
    """A listener to ``do_connect`` knows the deadline, and what is set in its caller's context."""
    trace: ContextVar[str] = ContextVar("trace")
    seen: list[object] = []
    engine = create_engine(
        url, poolclass=FairPool, connect_in_time=True, connect_args={"check_same_thread": False}
    )

    @event.listens_for(engine, "do_connect")
    def look(_dialect: object, record: ConnectionPoolEntry, *_: object) -> None:
        seen.extend((deadline_of(record), trace.get()))

    trace.set("mine")
    before = time.monotonic()
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1
    engine.dispose()
    deadline, value = seen
    assert isinstance(deadline, float)
    assert before + 30 <= deadline <= time.monotonic() + 30
    assert value == "mine"
    again = cast("FairPool", engine.pool)
    assert again._connector.attempts is not None


async def taken(pool: FairPool) -> PoolProxiedConnection:
    return await greenlet_spawn(pool.connect)


def test_task_is_cancelled_while_it_connects(databases: Databases) -> None:
    """A cancelled task leaves at once; the connection that it had begun to open is pooled."""

    async def main() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        def creator() -> DBAPIConnection:
            asked.set()
            await_only(go_on.wait())
            return databases.connect()

        pool = AsyncFairPool(creator, 1, 0, 20, connect_in_time=True)
        task = asyncio.create_task(taken(pool))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        for _ in range(1000):
            await asyncio.sleep(0)
            if pool.checkedin():
                break
        await greenlet_spawn((await taken(pool)).close)
        assert databases.opened == 1

    asyncio.run(main())


def test_loop_ends_while_it_connects() -> None:
    """An attempt that is under way when its event loop ends is cancelled with it."""
    ended: list[BaseException] = []

    def creator() -> DBAPIConnection:
        try:
            await_only(asyncio.sleep(3600))
        except BaseException as error:
            ended.append(error)
            raise
        raise AssertionError

    async def main() -> None:
        pool = AsyncFairPool(creator, 1, 0, 0.001, connect_in_time=True)
        with pytest.raises(SqlAlchemyTimeoutError):
            await taken(pool)

    asyncio.run(main())
    assert [type(error) for error in ended] == [asyncio.CancelledError]


def test_record_of_somebody_else(databases: Databases) -> None:
    """SQLAlchemy's own records are connected as in any pool."""
    pool = FairPool(databases.connect, connect_in_time=True)
    assert _ConnectionRecord(pool).dbapi_connection in databases.open
