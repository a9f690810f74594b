"""Workers that take connections from one pool as fast as it gives them, in either half."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, LiteralString

from attrs import Factory, define, frozen
from psycopg import AsyncConnection, Connection
from psycopg_pool import PoolTimeout
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from benchmarks.tool.harness import together

if TYPE_CHECKING:
    from collections.abc import Sequence

Lease = tuple[Connection[Any], Callable[[], object]]
"""A connection, and what gives it back."""
Take = Callable[[], Lease]
AsyncLease = tuple[AsyncConnection[Any], Callable[[], Awaitable[object]]]
TakeAsync = Callable[[], Awaitable[AsyncLease]]

_TOO_LATE = (SqlAlchemyTimeoutError, PoolTimeout)


@define
class Worker:
    """What one worker got.

    Args:
        scopes: connections that it had.
        longest: seconds of the longest wait for one, in vain or not.
        timeouts: waits in vain.
    """

    scopes: int = 0
    longest: float = 0.0
    timeouts: int = 0
    _asked: float = Factory(perf_counter)

    def asks(self) -> None:
        """Begin to wait."""
        self._asked = perf_counter()

    def gets(self) -> None:
        """Note a connection."""
        self.scopes += 1
        self._waited()

    def gives_up(self) -> None:
        """Note that none came in time."""
        self.timeouts += 1
        self._waited()

    def _waited(self) -> None:
        self.longest = max(self.longest, perf_counter() - self._asked)


@frozen
class Contest:
    """What became of workers who all wanted connections at once."""

    workers: Sequence[Worker]
    seconds: float

    @property
    def rate(self) -> float:
        """Connections taken in a second, by all together."""
        return sum(worker.scopes for worker in self.workers) / self.seconds

    @property
    def longest(self) -> float:
        """Seconds of the longest wait."""
        return max(worker.longest for worker in self.workers)

    @property
    def evenness(self) -> float:
        """Scopes of who had fewest, as part of those of who had most."""
        scopes = [worker.scopes for worker in self.workers]
        return min(scopes) / max(scopes)

    @property
    def timeouts(self) -> int:
        """Waits in vain."""
        return sum(worker.timeouts for worker in self.workers)


def between_threads(take: Take, threads: int, hold: LiteralString, window: float) -> Contest:
    """Let so many threads take connections for ``window`` seconds, and run one statement."""
    seconds, workers = together([partial(_thread, take, hold, window)] * threads)
    return Contest(workers, seconds)


def _thread(take: Take, hold: LiteralString, window: float) -> Worker:
    worker = Worker()
    end = perf_counter() + window
    while perf_counter() < end:
        worker.asks()
        try:
            connection, give_back = take()
        except _TOO_LATE:
            worker.gives_up()
            continue
        worker.gets()
        connection.execute(hold)
        connection.commit()
        give_back()
    return worker


async def between_tasks(take: TakeAsync, tasks: int, hold: LiteralString, window: float) -> Contest:
    """Async twin of ``between_threads``, with tasks."""
    began = perf_counter()
    end = began + window
    workers = await asyncio.gather(*[_task(take, hold, end) for _ in range(tasks)])
    return Contest(workers, perf_counter() - began)


async def _task(take: TakeAsync, hold: LiteralString, end: float) -> Worker:
    worker = Worker()
    while perf_counter() < end:
        worker.asks()
        try:
            connection, give_back = await take()
        except _TOO_LATE:
            worker.gives_up()
            continue
        worker.gets()
        await connection.execute(hold)
        await connection.commit()
        await give_back()
    return worker
