"""Connections are opened within the deadline of the checkout that needs them.

The drivers' own time limits do not make one: some round half a second up to two, or down to "for
ever", some do not cover the server's greeting, none covers the look-up of its name. So a connection
is opened apart, in a thread or in a task, and whoever waits for it leaves at the deadline. Nothing
is cancelled: a cancelled connect can take ten seconds to say so. A connection that comes late is
kept for the next one.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import frozen
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import Pool

from sessionfactory.engine.handoff import Line
from sessionfactory.engine.records import FairRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import _CreatorFnType, _CreatorWRecFnType

    from sessionfactory.engine.handoff import Waiter
    from sessionfactory.engine.records import Permits

T = TypeVar("T")


@frozen
class _Outcome(Generic[T]):
    """What came of an attempt to connect: a connection, or an error."""

    connection: T | None
    error: BaseException | None = None


class _Attempt:
    """An attempt to connect that is under way."""

    runs_in: object = None
    """The task, kept here because an event loop keeps its tasks weakly; or the thread."""


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
        self._under_way: dict[_Attempt, None] = {}
        self._line: Line[_Attempt] = Line(waiter, self._begin, self._end)

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
        waiter: Waiter[_Outcome[T]] = self._waiter()
        call = partial(self._attempt, attempt, connect, waiter, late)
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

    def _attempt(
        self,
        attempt: _Attempt,
        connect: Callable[[], T],
        waiter: Waiter[_Outcome[T]],
        late: Callable[[T], None],
    ) -> None:
        try:
            connection = connect()
        except BaseException as error:  # noqa: BLE001 - whoever still waits for it raises it
            waiter.offer(_Outcome(None, error))
        else:
            if not waiter.offer(_Outcome(connection)):
                late(connection)
        finally:
            self._end(attempt)

    def _begin(self) -> _Attempt | None:
        if self._limit is not None and len(self._under_way) >= self._limit:
            return None
        attempt = _Attempt()
        self._under_way[attempt] = None
        return attempt

    def _end(self, attempt: _Attempt) -> None:
        self._under_way.pop(attempt, None)
        self._line.settle()


class TimelyPool(Pool):
    """A pool of ``FairRecord``, whose connections are opened in time, and replaced one by one."""

    _connector: Connector[DBAPIConnection] | None
    """``None`` if connections are opened where they are asked for, however long it takes."""
    _recycle_jitter: float

    def _should_wrap_creator(
        self, creator: _CreatorFnType | _CreatorWRecFnType
    ) -> _CreatorWRecFnType:
        # Every connection is opened by what this returns, also one that takes another's place.
        opened = super()._should_wrap_creator(creator)

        def open_one(rec: ConnectionPoolEntry) -> DBAPIConnection:
            if not isinstance(rec, FairRecord):
                return opened(rec)
            connection = self._open(partial(opened, rec), rec)
            if self._recycle > -1:
                earlier = self._recycle_jitter * random()  # noqa: S311 - no secret
                rec.due = monotonic() + self._recycle * (1 - earlier)
            return connection

        return open_one

    def _open(self, opened: Callable[[], DBAPIConnection], record: FairRecord) -> DBAPIConnection:
        came_late, record.came_late = record.came_late, None
        if came_late is not None:
            return came_late
        if self._connector is None or record.deadline is None:
            return opened()
        adopt = partial(self._adopt, record.permits)
        connection = self._connector.open(opened, record.deadline, adopt)
        if connection is None:
            raise self._too_late()
        return connection

    def _adopt(self, permits: Permits, connection: DBAPIConnection) -> None:
        """Take a connection into the pool for which nobody waits any more, or close it."""
        record = FairRecord(self, permits)
        if not permits.take(record):
            self._close_connection(connection)
            return
        record.came_late = connection
        with suppress(Exception):  # a listener's; and SQLAlchemy has closed the connection
            record.get_connection()
            record.unused = False
        self._return_conn(record)

    def _too_late(self) -> Exception:
        """Return what a caller gets for whom no connection was opened in time."""
        return SqlAlchemyTimeoutError(
            f"{type(self).__name__} could not open a connection in time; the server may be down,"
            " or the network"
        )
