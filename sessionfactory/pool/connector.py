"""Connections are opened, and set up, within the deadline of the checkout that needs them.

The drivers' own time limits do not make one: some round half a second up to two, or down to "for
ever", some do not cover the server's greeting, none covers the look-up of its name, nor what
``connect`` listeners send. So a connection is opened apart, in a thread or in a task, and whoever
waits for it leaves at the deadline. An attempt is not cancelled: a cancelled connect can take ten
seconds to say so. A connection that comes late is kept for the next one.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from attrs import frozen
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import Pool

from sessionfactory.drivers import connections
from sessionfactory.pool.pool_entry import FairRecord
from sessionfactory.pool.wait_queue import Line
from sessionfactory.pool.waiting import TookLongerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import _CreatorFnType, _CreatorWRecFnType

    from sessionfactory.pool.wait_queue import Waiter
    from sessionfactory.pool.waiting import Waiting

T = TypeVar("T")

_LATE: Final = 1.0
"""Seconds that the set-up of a connection has which was opened at the deadline, or after it."""


@frozen
class _Outcome(Generic[T]):
    """What came of an attempt to connect: a connection, or an error."""

    connection: T | None
    error: BaseException | None = None


class _Attempt(Generic[T]):
    """An attempt to connect that is under way."""

    runs_in: object = None
    """The task, kept here because an event loop keeps its tasks weakly; or the thread."""

    def __init__(self, waiter: Waiter[_Outcome[T]]) -> None:
        self.waiter = waiter


class Connector(Generic[T]):
    """Makes attempts to connect, and leaves those that are late to themselves. Thread-safe.

    Args:
        limit: attempts that may be under way at once, those included that nobody waits for any
            more: a server that never answers is not to fill the process with threads. ``None`` for
            any number.
        start: makes a call in a thread or a task of its own; returns it.
        waiter: what waits for the outcome.
    """

    def __init__(
        self,
        limit: int | None,
        start: Callable[[Callable[[], None]], object],
        waiter: type[Waiter[Any]],
    ) -> None:
        self._limit = limit
        self._start = start
        self._waiter = waiter
        self._under_way: dict[_Attempt[T], None] = {}
        self._line: Line[_Attempt[T]] = Line(waiter, self._begin, self._end)
        self._closed = False

    def open(
        self, connect: Callable[[], T], deadline: float, late: Callable[[T], None]
    ) -> T | None:
        """Return a connection; ``None`` if there is none by the deadline on the monotonic clock.

        Args:
            connect: opens it; what it raises is raised.
            deadline: when to leave.
            late: takes a connection that comes later, in the thread or task that opened it.
        """
        attempt = self._line.stand(lambda waiter: waiter.wait(deadline))
        if attempt is None:
            return None
        if self._closed:
            self._end(attempt)
            return None
        waiter = attempt.waiter
        call = partial(self._attempt, attempt, connect, late)
        try:
            attempt.runs_in = self._start(call)
        except BaseException:  # no thread can be started
            self._end(attempt)
            raise
        try:
            waiter.wait(deadline)
            outcome = waiter.leave()
        except BaseException:
            outcome = waiter.leave()
            if outcome is not None and outcome.connection is not None:
                self._start(partial(late, outcome.connection))
            raise
        if outcome is None:
            return None
        if outcome.error is not None:
            raise outcome.error
        return outcome.connection

    def __len__(self) -> int:
        """How many attempts are under way, those included that nobody waits for."""
        return len(self._under_way)

    def close(self) -> None:
        """Let nobody wait any more; what comes is late."""
        self._closed = True
        self._line.close()
        for attempt in tuple(self._under_way):
            attempt.waiter.send_away()

    def _attempt(
        self, attempt: _Attempt[T], connect: Callable[[], T], late: Callable[[T], None]
    ) -> None:
        waiter = attempt.waiter
        try:
            connection = connect()
        except BaseException as error:  # noqa: BLE001 - whoever still waits for it raises it
            waiter.offer(_Outcome(None, error))
        else:
            if not waiter.offer(_Outcome(connection)):
                late(connection)
        finally:
            self._end(attempt)

    def _begin(self) -> _Attempt[T] | None:
        if self._limit is not None and len(self._under_way) >= self._limit:
            return None
        attempt = _Attempt[T](self._waiter())
        self._under_way[attempt] = None
        return attempt

    def _end(self, attempt: _Attempt[T]) -> None:
        self._under_way.pop(attempt, None)
        self._line.settle()


class TimelyPool(Pool):
    """A pool of ``FairRecord``, whose connections are opened in time, and replaced one by one."""

    _connector: Connector[FairRecord] | None
    """``None`` if connections are opened where they are asked for, however long it takes."""
    _recycle_jitter: float
    _waiting: Waiting

    def _should_wrap_creator(
        self, creator: _CreatorFnType | _CreatorWRecFnType
    ) -> _CreatorWRecFnType:
        # Every connection is opened by what this returns. What follows is its set-up.
        opened = super()._should_wrap_creator(creator)

        def open_one(rec: ConnectionPoolEntry) -> DBAPIConnection:
            connection = opened(rec)
            if isinstance(rec, FairRecord) and rec.opened is not None:
                try:
                    rec.opened(connection)
                except BaseException:
                    self._close_connection(connection, terminate=True)  # nobody else knows it yet
                    raise
            return connection

        return open_one

    def _connect(self, record: FairRecord) -> None:
        """Give a record a connection, by its deadline if it has one."""
        if self._connector is None or record.deadline is None:
            self._connect_here(record)
        else:
            record.take_over(self._in_time(self._connector, record, record.deadline))

    def _connect_here(self, record: FairRecord) -> None:
        record.connect_here()
        if self._recycle > -1:
            earlier = self._recycle_jitter * random()  # noqa: S311 - no secret
            record.due = monotonic() + self._recycle * (1 - earlier)

    def _in_time(
        self, connector: Connector[FairRecord], record: FairRecord, deadline: float
    ) -> FairRecord:
        # In a record of its own, which the pool keeps if nobody waits for it any more.
        fresh = record.stand_in()
        opened = connector.open(partial(self._set_up, fresh, deadline), deadline, self._adopt)
        if opened is None:
            raise self._too_late()
        return opened

    def _set_up(self, record: FairRecord, deadline: float) -> FairRecord:
        """Open a connection, and have listeners set it up, which may wait for the server, too.

        They are not left to themselves at the deadline: the first connection of an engine is set up
        under a lock, and who waited there for ever would keep everybody else from connecting.
        """
        limits = ExitStack()

        def limit(connection: DBAPIConnection) -> None:
            seconds = max(deadline - monotonic(), _LATE)
            hang_up = partial(connections.hang_up, connection)
            limits.enter_context(self._waiting.alarm(seconds, hang_up))

        record.opened = limit
        try:
            with limits:
                self._connect_here(record)
        except TookLongerError:
            record.invalidate()
            raise self._too_late() from None
        except BaseException:
            record.invalidate()  # SQLAlchemy 2.0 leaves it open
            raise
        record.opened = None
        return record

    def _adopt(self, record: FairRecord) -> None:
        """Take a connection into the pool for which nobody waits any more, or close it."""
        if record.permits.take(record):
            record.unused = False
            self._return_conn(record)
        else:
            record.close()

    def _too_late(self) -> Exception:
        """Return what a caller gets for whom no connection was opened in time."""
        return SqlAlchemyTimeoutError(
            f"{type(self).__name__} could not open a connection in time; the server may be down,"
            " or the network"
        )
