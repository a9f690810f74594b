"""Connections are opened, and set up, by the deadline of the checkout that needs them.

The drivers' own time limits do not suffice: some round half a second up to two, or down to no limit
at all; some do not cover the server's greeting; none covers name resolution, or what listeners to
``connect`` send. So a connection is opened apart, in a thread or a task, and the caller that waits
for it gives up at the deadline. An attempt is not cancelled: a cancelled connect can take ten
seconds to end. A connection that comes late is added to the pool.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from random import random
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from attrs import frozen

from sessionfactory.clock import monotonic
from sessionfactory.drivers import connections
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.pool.pool_entry import PoolEntry
from sessionfactory.pool.wait_queue import WaitQueue
from sessionfactory.pool.waiting import TookLongerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import _CreatorWRecFnType

    from sessionfactory.pool.wait_queue import Waiter
    from sessionfactory.pool.waiting import Waiting

T = TypeVar("T")

_LATE: Final = 1.0
"""Seconds for the set-up of a connection that was opened at the deadline, or after it."""


@frozen
class _Outcome(Generic[T]):
    """The result of an attempt to connect: a connection, or an error."""

    connection: T | None
    error: BaseException | None = None


class _Attempt(Generic[T]):
    """An attempt to connect that is under way."""

    runs_in: object = None
    """The task, referenced here because an event loop refers to its tasks weakly; or the thread."""

    def __init__(self, waiter: Waiter[_Outcome[T]]) -> None:
        self.waiter = waiter


class Attempts(Generic[T]):
    """Attempts to connect, each in a thread or task of its own. Thread-safe.

    Args:
        limit: attempts that may be under way at once, those included that are late and have no
            waiter any more: a server that never answers must not fill the process with threads.
            ``None`` for any number.
        start: runs a call in a thread or a task of its own; returns it.
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
        self._queue: WaitQueue[_Attempt[T]] = WaitQueue(waiter, self._begin, self._end)
        self._closed = False

    def open(
        self, connect: Callable[[], T], deadline: float, late: Callable[[T], None]
    ) -> T | None:
        """Return a connection; ``None`` if there is none by the deadline on the monotonic clock.

        Args:
            connect: opens it; what it raises is raised.
            deadline: when to give up.
            late: takes a connection that comes later, in the thread or task that opened it.
        """
        attempt = self._queue.acquire(lambda waiter: waiter.wait(deadline))
        if attempt is None:
            return None
        if self._closed:
            self._end(attempt)
            return None
        waiter = attempt.waiter
        try:
            self._run(attempt, partial(self._attempt, attempt, connect, late))
            waiter.wait(deadline)
            outcome = waiter.give_up()
        except BaseException:
            # The attempt may run, or its thread may not have been started: either way it finds no
            # waiter any more, and a connection that it opened already is late.
            outcome = waiter.give_up()
            if attempt.runs_in is None:
                self._end(attempt)
            if outcome is not None and outcome.connection is not None:
                with suppress(RuntimeError):  # no thread can be started: it is garbage
                    self._start(partial(late, outcome.connection))
            raise
        if outcome is None:
            return None
        if outcome.error is not None:
            raise outcome.error
        return outcome.connection

    def __len__(self) -> int:
        """Return how many attempts are under way, those included that are late."""
        return len(self._under_way)

    def close(self) -> None:
        """Send all waiters away; what is opened from now on is late."""
        self._closed = True
        self._queue.close()
        for attempt in tuple(self._under_way):
            attempt.waiter.send_away()

    def _run(self, attempt: _Attempt[T], call: Callable[[], None]) -> None:
        try:
            attempt.runs_in = self._start(call)
        except RuntimeError:
            # No thread can be started: Python 3.12 starts none once the main thread has ended, and
            # a container may limit them. So it runs here, without a deadline.
            attempt.runs_in = self
            call()

    def _attempt(
        self, attempt: _Attempt[T], connect: Callable[[], T], late: Callable[[T], None]
    ) -> None:
        waiter = attempt.waiter
        try:
            connection = connect()
        except BaseException as error:  # noqa: BLE001 - the caller that waits for it raises it
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
        self._queue.serve()


class ConnectingPool(Protocol):
    """What a connector needs of its pool."""

    @property
    def recycle(self) -> float:
        """The seconds after which a connection is replaced; less than 0 for never."""
        ...

    def close_opened(self, connection: DBAPIConnection) -> None:
        """Close a connection that no entry has yet."""
        ...

    def add_late(self, entry: PoolEntry) -> None:
        """Add an entry whose caller gave up."""
        ...

    def connect_timed_out(self) -> Exception:
        """Return the error for a caller for which no connection was opened in time."""
        ...


class Connector:
    """Gives the entries of one pool their connections, each by its deadline.

    Args:
        pool: the pool.
        waiting: how this half waits.
        recycle_jitter: by which part of the pool's ``recycle`` a connection may be replaced
            earlier, at random.
        attempts: opens connections apart; ``None`` if each is opened by the caller that needs it,
            however long that takes.
    """

    def __init__(
        self,
        pool: ConnectingPool,
        waiting: Waiting,
        recycle_jitter: float,
        attempts: Attempts[PoolEntry] | None,
    ) -> None:
        self._pool = pool
        self._waiting = waiting
        self._recycle_jitter = recycle_jitter
        self.attempts = attempts

    def wrap(self, creator: _CreatorWRecFnType) -> _CreatorWRecFnType:
        """Return a creator that passes each connection to its entry before it is set up."""
        opened = _without_traces(creator)

        def open_one(rec: ConnectionPoolEntry) -> DBAPIConnection:
            connection = opened(rec)
            if isinstance(rec, PoolEntry) and rec.on_opened is not None:
                try:
                    rec.on_opened(connection)
                except BaseException:
                    self._pool.close_opened(connection)
                    raise
            return connection

        return open_one

    def connect(self, entry: PoolEntry) -> None:
        """Give an entry a connection, by its deadline if it has one."""
        if self.attempts is None or entry.deadline is None:
            self._connect_in_place(entry)
        else:
            entry.take_over(self._open_by(entry.deadline, self.attempts, entry))

    def _connect_in_place(self, entry: PoolEntry) -> None:
        entry.connect_in_place()
        recycle = self._pool.recycle
        if recycle > -1:
            earlier = self._recycle_jitter * random()  # noqa: S311 - no secret
            entry.due = monotonic() + recycle * (1 - earlier)

    def _open_by(
        self, deadline: float, attempts: Attempts[PoolEntry], entry: PoolEntry
    ) -> PoolEntry:
        # In an entry of its own, which the pool adds if the caller gives up.
        fresh = entry.without_permit()
        opened = attempts.open(
            partial(self._set_up, fresh, deadline), deadline, self._pool.add_late
        )
        if opened is None:
            raise self._pool.connect_timed_out()
        return opened

    def _set_up(self, entry: PoolEntry, deadline: float) -> PoolEntry:
        """Open a connection, and call the listeners that set it up, which may send statements.

        They have a time limit of their own: SQLAlchemy sets the first connection of an engine up
        under a lock, and an attempt that waited there for ever would block all others.
        """
        limits = ExitStack()

        def limit(connection: DBAPIConnection) -> None:
            seconds = max(deadline - monotonic(), _LATE)
            hang_up = partial(connections.hang_up, connection)
            limits.enter_context(self._waiting.alarm(seconds, hang_up))

        entry.on_opened = limit
        try:
            with limits:
                self._connect_in_place(entry)
        except TookLongerError:
            entry.invalidate()
            raise self._pool.connect_timed_out() from None
        except BaseException:
            entry.invalidate()  # SQLAlchemy 2.0 leaves it open
            raise
        entry.on_opened = None
        return entry


def _without_traces(opened: _CreatorWRecFnType) -> _CreatorWRecFnType:
    """Return a creator whose errors refer to none of the driver's arguments."""

    def open_without_traces(rec: ConnectionPoolEntry) -> DBAPIConnection:
        # Further out, no frame has the driver's arguments: this one is the last to see them.
        try:
            return opened(rec)
        except UnicodeError:
            problem = "holds a character that the driver cannot send"
            failure: BaseException = SettingsError([Fault("password", problem)])
        except BaseException as error:  # noqa: BLE001 - it is raised again
            connections.forget_arguments(error)
            failure = error
        try:
            raise failure
        finally:
            del failure  # else the error and this frame would keep each other

    return open_without_traces
