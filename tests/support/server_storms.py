"""A seeded storm over factories on a real PostgreSQL: whatever happens, their books balance."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util.concurrency import await_only

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SessionFactoryError,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import ServerError
from tests.support.restarts import is_lost
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy.orm import Session

    from sessionfactory.pool.fair import FairPool
    from sessionfactory.testing import PostgresServer

    Factory = SqlAlchemySessionFactory | AsyncSqlAlchemySessionFactory

_DEADLINES: Final = (1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 1.0, 1.0, 1.0)
_RESTS: Final = (0, 0, 0, 1e-4, 1e-3, 5e-3)
_ENDS: Final = (*("commit",) * 12, "fail", "fail", "invalidate", "kill")
_LIMIT: Final = (3, 2)
_WORKERS: Final = 8
_CLOSES: Final = 0.005
_ONE: Final = text("SELECT 1")
_PID: Final = text("SELECT pg_backend_pid()")
_SIGN: Final = text("SELECT set_config('storm.holder', :me, true)")
_READ: Final = text("SELECT current_setting('storm.holder')")


class DeliberateError(Exception):
    """A scope that fails."""


def is_allowed(error: Exception) -> bool:
    """Say whether a scope that is killed, refused, closed over or late may end like that."""
    mine = isinstance(error, SQLAlchemyError | SessionFactoryError | DeliberateError)
    return mine or is_lost(error)


class ServerStorm:
    """Workers that use a factory in every way there is, while its server is hurt.

    Args:
        server: may be restarted.
        driver: of the factories.
        seed: decides what is done; when it happens is up to the machine.
        actions: how many.
        restarts: how often the server is restarted meanwhile.

    Attributes:
        done: what was done, and what came of it.
        wrong: how often two had one connection at the same time.
    """

    def __init__(
        self, server: PostgresServer, driver: str, seed: int, actions: int, restarts: int
    ) -> None:
        self.done: Counter[str] = Counter()
        self.wrong = 0
        self._server = server
        self._dice = random.Random(seed)
        self._name = f"storm_{driver}_{seed}"
        url = make_url(server.url_for(driver))
        size, overflow = _LIMIT
        self._settings = DatabaseSettings(
            url.update_query_dict({"application_name": self._name}),
            pool=PoolSettings(size=size, max_overflow=overflow, ping_after=0.01),
        )
        self._left = [self._dice.getrandbits(32) for _ in range(actions)]
        step = actions // (restarts + 1)
        self._restarts = [step * number for number in range(1, restarts + 1)]
        self._holders: dict[object, str] = {}
        self._lock = threading.Lock()

    def _next(self) -> random.Random | None:
        """Return the dice of the next action; ``None`` if there is no more."""
        try:
            return random.Random(self._left.pop())
        except IndexError:
            return None

    def _restart_is_due(self) -> bool:
        with self._lock:
            if not self._restarts or len(self._left) > self._restarts[-1]:
                return False
            self._restarts.pop()
            return True

    def _use(self, session: Session, dice: random.Random, rest: Callable[[float], object]) -> None:
        """Use a connection for a while, and check that no other session does."""
        end = dice.choice(_ENDS)
        self.done[end] += 1
        me = f"{id(session)} {dice.random()}"
        pid = session.scalar(_PID)
        with self._having(pid, me):
            session.execute(_SIGN, {"me": me})
            rest(dice.choice(_RESTS))
            if end == "kill":
                self._hurt(pid, dice)
            self.wrong += session.scalar(_READ) != me
            if end == "invalidate":
                session.connection().invalidate()
        if end == "fail":
            raise DeliberateError

    @contextmanager
    def _having(self, pid: object, me: str) -> Generator[None]:
        self.wrong += self._holders.setdefault(pid, me) != me
        try:
            yield
        finally:
            if self._holders.get(pid) == me:
                del self._holders[pid]

    def _hurt(self, pid: object, dice: random.Random) -> None:
        """End one connection of the storm, or all of them."""
        whose = f"pid = {pid}" if dice.random() < 0.7 else f"application_name = '{self._name}'"
        with self._lock, suppress(ServerError):  # it is down
            self._server.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {whose}"
            )

    def _restart(self) -> None:
        with self._lock:
            self._server.restart("immediate")
        self.done["restart"] += 1

    def _note(self, error: Exception) -> None:
        if not is_allowed(error):
            raise error
        self.done[type(error).__name__] += 1

    @staticmethod
    def _pool(factory: Factory) -> FairPool:
        return cast("FairPool", factory.engine.pool)

    @staticmethod
    def _books(factory: Factory) -> tuple[int, int]:
        status = factory.status()
        return status.in_use, status.waiting

    def _look(self) -> None:
        """Nothing was shared, and nothing is open on the server."""
        assert self.wrong == 0
        assert self._holders == {}
        count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{self._name}'"
        until(lambda: self._server.execute(count) == "0")


class ThreadStorm(ServerStorm):
    """A storm in threads."""

    def rage(self) -> None:
        """Let it rage; see that the books balance."""
        # Where a collection closes what was dropped, an error of that is logged; who keeps its
        # traceback keeps what the interrupted frames had in hand, and pytest keeps the log.
        logging.disable()
        try:
            self._rage()
        finally:
            logging.disable(logging.NOTSET)
        self._look()

    def _rage(self) -> None:
        self._factory = SqlAlchemySessionFactory(self._settings)
        gc.freeze()  # so that a collection takes a moment only
        callers = [Caller(self._work) for _ in range(_WORKERS)]
        tick = threading.Event()
        while not all(caller.done for caller in callers):
            tick.wait(0.05)
            gc.collect()  # all may wait for what only this can find
        gc.unfreeze()
        for caller in callers:
            caller.join()
        factory = self._factory
        pool = self._pool(factory)

        def balances() -> bool:
            gc.collect()  # what the last of them dropped; nothing, while another thread collects
            return (*self._books(factory), pool.taken()) == (0, 0, 0)

        until(balances)
        pool._timeout = 30.0
        with ExitStack() as opened:
            sessions = [opened.enter_context(factory()) for _ in range(sum(_LIMIT))]
            assert [session.scalar(_ONE) for session in sessions] == [1] * sum(_LIMIT)
        assert factory.close() == ()
        assert factory.status().size == 0

    def _work(self) -> None:
        while (dice := self._next()) is not None:
            if self._restart_is_due():
                self._restart()
            try:
                self._act(dice)
            except Exception as error:  # noqa: BLE001 - _note judges it
                self._note(error)

    def _act(self, dice: random.Random) -> None:
        factory = self._factory
        if dice.random() < _CLOSES:
            self._close(factory, dice)
            return
        self._pool(factory)._timeout = dice.choice(_DEADLINES)  # of all who ask now
        if dice.random() < 0.05:
            session = factory()
            session.execute(_PID)
            kept: list[object] = [session]
            kept.append(kept)  # for the collector to find
            self.done["drop"] += 1
            return
        with factory.begin() as session:
            self._use(session, dice, time.sleep)

    def _close(self, factory: SqlAlchemySessionFactory, dice: random.Random) -> None:
        with self._lock:
            if self._factory is not factory:
                return
            self._factory = SqlAlchemySessionFactory(self._settings)
        factory.close(timeout=dice.choice((0, 0.01, 0.3)))
        self.done["close"] += 1
        assert self._books(factory) == (0, 0)


class TaskStorm(ServerStorm):
    """A storm in tasks, some of which are cancelled."""

    def rage(self) -> None:
        """Let it rage; see that the books balance."""
        asyncio.run(self._rage())
        self._look()

    async def _rage(self) -> None:
        self._factory = AsyncSqlAlchemySessionFactory(self._settings)
        tasks: list[asyncio.Task[None]] = []
        while (dice := self._next()) is not None:
            while len(tasks) >= _WORKERS:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0.001)
                if self._dice.random() < 0.1 and tasks:
                    self.done["cancel"] += self._dice.choice(tasks).cancel()
                for task in (task for task in tasks if task.done()):
                    self._end(task)
                tasks = [task for task in tasks if not task.done()]
            tasks.append(asyncio.create_task(self._act(dice)))
        await asyncio.wait(tasks)
        for task in tasks:
            self._end(task)
        factory = self._factory
        pool = self._pool(factory)
        while (*self._books(factory), pool.taken()) != (0, 0, 0):  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)
        pool._timeout = 30.0
        async with AsyncExitStack() as opened:
            for _ in range(sum(_LIMIT)):
                session = await opened.enter_async_context(factory())
                assert await session.scalar(_ONE) == 1
        assert await factory.aclose() == ()
        assert factory.status().size == 0

    def _end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._note(error)
        elif error is not None:
            raise error

    async def _act(self, dice: random.Random) -> None:
        if self._restart_is_due():
            await asyncio.to_thread(self._restart)
        factory = self._factory
        if dice.random() < _CLOSES:
            await self._close(factory, dice)
            return
        self._pool(factory)._timeout = dice.choice(_DEADLINES)  # of all who ask now

        def rest(seconds: float) -> None:
            await_only(asyncio.sleep(seconds))

        async with factory.begin() as session:
            await session.run_sync(self._use, dice, rest)

    async def _close(self, factory: AsyncSqlAlchemySessionFactory, dice: random.Random) -> None:
        self._factory = AsyncSqlAlchemySessionFactory(self._settings)
        self.done["close"] += 1  # which may be cancelled
        await factory.aclose(timeout=dice.choice((0, 0.01, 0.3)))
        assert self._books(factory) == (0, 0)
