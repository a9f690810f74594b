"""A seeded storm of random actions on a fair pool, after which its books have to balance."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool.base import _AsyncConnDialect
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.loop_bound import AsyncFairPool
from tests.support.sqlite_pools import Caller, Databases

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

_DEADLINES = (0.0, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 1.0, None)
_ENDS = (*("close",) * 10, "invalidate", "soft", "detach", "pool", "drop", "drop", "cycle")
_WORKERS = 8


class Unlucky(Databases):
    """Opens connections, but for one in twenty; notices if two have the same one at once."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._used: dict[object, None] = {}
        self.shared = 0

    def connect(self) -> DBAPIConnection:
        if self._dice.random() < 0.05:
            raise ConnectionRefusedError
        return super().connect()

    def use(self, connection: DBAPIConnection | None, rest: Callable[[], object]) -> None:
        """Use a connection for a while."""
        self.shared += connection in self._used
        self._used[connection] = None
        try:
            rest()
        finally:
            self._used.pop(connection, None)


class Storm:
    """Threads, or tasks, that use one pool in every way there is.

    Args:
        seed: decides what is done; when it happens is up to the machine.
        actions: how many checkouts.
    """

    def __init__(self, seed: int, actions: int) -> None:
        self.done: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._left = [self._dice.getrandbits(32) for _ in range(actions)]
        self.databases = Unlucky(self._dice)

    def in_threads(self) -> None:
        """Let the storm rage in threads."""
        pool = FairPool(self.databases.connect, pool_size=2, max_overflow=1, recycle=1)

        def work() -> None:
            while self._left:
                try:
                    seed = self._left.pop()
                except IndexError:
                    return
                self._act(pool, random.Random(seed), time.sleep)

        callers = [Caller(work) for _ in range(_WORKERS)]
        tick = threading.Event()
        while not all(caller.done for caller in callers):
            tick.wait(0.01)
            gc.collect()  # all may wait for what only this can find
        for caller in callers:
            caller.join()
        self._balance(pool)

    def in_tasks(self) -> None:
        """Let the storm rage in tasks, some of which are cancelled."""
        asyncio.run(self._in_tasks())

    async def _in_tasks(self) -> None:
        dialect = _AsyncConnDialect()
        dialect.has_terminate = True  # so that what is dropped is closed
        pool = AsyncFairPool(
            self.databases.connect, pool_size=2, max_overflow=1, recycle=1, dialect=dialect
        )

        def sleep(seconds: float) -> None:
            await_only(asyncio.sleep(seconds))

        tasks: list[asyncio.Task[None]] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what garbage collection finds
            while self._left:
                tasks = [task for task in tasks if not task.done()]
                while len(tasks) < _WORKERS and self._left:
                    act = greenlet_spawn(self._act, pool, random.Random(self._left.pop()), sleep)
                    tasks.append(asyncio.create_task(act))
                if self._dice.random() < 0.3:
                    self.done["cancel"] += self._dice.choice(tasks).cancel()
                await asyncio.sleep(0)
            while not all(task.done() for task in tasks):
                gc.collect()  # all may wait for what only this can find
                await asyncio.sleep(0)
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                assert ended is None or isinstance(ended, asyncio.CancelledError)
            ended = None
            tasks.clear()  # their tracebacks keep connections that were dropped
            for _ in range(100):  # and the loop keeps the last of them for a moment
                if pool.checkedout() == 0:
                    break
                gc.collect()
                await asyncio.sleep(0)
            await greenlet_spawn(self._balance, pool)

    def _act(self, pool: FairPool, dice: random.Random, sleep: Callable[[float], object]) -> None:
        if dice.random() < 0.02:
            self.done["dispose"] += 1
            pool.dispose()
        pool._timeout = dice.choice(_DEADLINES)  # also of those who ask at the same moment
        try:
            connection = pool.connect()
        except (SqlAlchemyTimeoutError, ConnectionRefusedError) as error:
            self.done[type(error).__name__] += 1
            return
        end = dice.choice(_ENDS)
        self.done[end] += 1
        try:
            self.databases.use(
                connection.dbapi_connection, lambda: sleep(dice.choice((0, 0, 1e-5, 1e-3)))
            )
        finally:
            self._end(pool, connection, end)

    @staticmethod
    def _end(pool: FairPool, connection: PoolProxiedConnection, end: str) -> None:
        if end == "pool":
            pool._invalidate(connection)
        elif end == "cycle":
            held: list[object] = [connection]
            held.append(held)
        elif end != "drop":
            if end == "detach":
                connection.detach()
            elif end in {"invalidate", "soft"}:
                connection.invalidate(soft=end == "soft")
            connection.close()

    def _balance(self, pool: FairPool) -> None:
        """No waiter, no checkout, nothing was shared, nothing stays open."""
        gc.collect()
        assert self.databases.shared == 0
        assert (pool.waiting(), pool.checkedout()) == (0, 0)
        assert pool.checkedin() <= 2
        connected = [record for record in pool._entries.idle if record.dbapi_connection is not None]
        assert len(self.databases.open) == len(connected)
        pool.dispose()
        assert not self.databases.open
        assert (pool.checkedin(), pool.overflow()) == (0, -2)
