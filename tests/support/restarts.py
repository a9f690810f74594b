"""Eight who work on one factory without a pause, while all of its connections end."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory import AsyncSqlAlchemySessionFactory, PoolSettings, SqlAlchemySessionFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory import DatabaseSettings
    from sessionfactory.testing import PostgresServer

SYNC: Final = ("psycopg", "psycopg2")
DRIVERS: Final = (*SYNC, "psycopg_async", "asyncpg")
POOL: Final = PoolSettings(size=8, max_overflow=0, ping_after=1000)
Death = Literal["fast", "immediate", "terminated"]
DEATHS: Final[tuple[Death, ...]] = ("fast", "immediate", "terminated")
_WORKERS: Final = 8
_OFTEN: Final = 20
_ONE: Final = text("SELECT 1")


def die(server: PostgresServer, death: Death) -> None:
    """End all connections of a server, which serves again when this returns."""
    if death == "terminated":
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    else:
        server.restart(death)


def is_lost(error: Exception) -> bool:
    """Say whether an error is of those that a lost or refused connection gives."""
    # asyncpg's errors while it connects are not wrapped.
    unwrapped = type(error).__module__.startswith("asyncpg.")
    return unwrapped or isinstance(error, DBAPIError | OSError)


class UnderLoad:
    """Workers on a factory of one half, and when they failed.

    Args:
        settings: of the factory.
        is_async: which half.
        seconds: for how long they go on when the server is back, and until each was served often.

    Attributes:
        errors: when an error came, on the monotonic clock.
        back: when the server was back.
    """

    def __init__(self, settings: DatabaseSettings, *, is_async: bool, seconds: float = 0) -> None:
        self.errors: list[float] = []
        self.back = inf
        self._settings = settings
        self._is_async = is_async
        self._seconds = seconds

    def survive(self, death: Callable[[], None]) -> None:
        """Let all connections end while the workers work."""
        if self._is_async:
            asyncio.run(self._in_tasks(death))
        else:
            self._in_threads(death)

    def late(self, seconds: float) -> list[float]:
        """Return the errors that came later than so long after the server was back."""
        return [error - self.back for error in self.errors if error > self.back + seconds]

    def _in_threads(self, death: Callable[[], None]) -> None:
        warm = threading.Barrier(_WORKERS + 1)

        def work(_: int) -> None:
            served = 0
            warm.wait(20)
            while self._goes_on(served):
                try:
                    with factory.begin() as session:
                        session.execute(_ONE)
                    served += time.monotonic() > self.back
                except Exception as error:  # noqa: BLE001 - _note judges it
                    self._note(error)

        with (
            SqlAlchemySessionFactory(self._settings) as factory,
            ThreadPoolExecutor(_WORKERS) as threads,
        ):
            working = threads.map(work, range(_WORKERS))
            warm.wait(20)
            death()
            self.back = time.monotonic()
            list(working)

    async def _in_tasks(self, death: Callable[[], None]) -> None:
        async with AsyncSqlAlchemySessionFactory(self._settings) as factory:

            async def work() -> None:
                served = 0
                while self._goes_on(served):
                    try:
                        async with factory.begin() as session:
                            await session.execute(_ONE)
                        served += time.monotonic() > self.back
                    except Exception as error:  # noqa: BLE001 - _note judges it
                        self._note(error)

            tasks = [asyncio.create_task(work()) for _ in range(_WORKERS)]
            await asyncio.to_thread(death)
            self.back = time.monotonic()
            await asyncio.gather(*tasks)

    def _note(self, error: Exception) -> None:
        if not is_lost(error):
            raise error
        self.errors.append(time.monotonic())

    def _goes_on(self, served: int) -> bool:
        now = time.monotonic()
        assert now < self.back + 30, f"served {served} times only"
        return served < _OFTEN or now < self.back + self._seconds
