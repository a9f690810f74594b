"""A factory that is closed under load: who ends well, who is cut off, what the server keeps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import MariaDBServer, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    import pytest

    from sessionfactory import Holder

Server = PostgresServer | MariaDBServer
SYNC: Final = ("psycopg", "psycopg2", "pymysql")
DRIVERS: Final = (*SYNC, "asyncpg", "psycopg_async", "aiomysql")
_POOL: Final = PoolSettings(size=4, max_overflow=4)  # so that connections come and go
_BUSY: Final = 6  # workers whose scopes are short
_FIRST: Final = 50  # scopes that end before it is closed
_INSERT: Final = text("INSERT INTO drained VALUES (1)")


class Load:
    """Workers on one factory: some in short scopes, one in a statement that does not end, one idle.

    Args:
        server: where the table ``drained`` is.
        driver: with which; ``_async`` behind it for that half of psycopg.

    Attributes:
        committed: how many scopes ended well.
        errors: what the workers got at last.
        cut_off: whom ``close`` named.
        seconds: how long it took.
    """

    def __init__(self, server: Server, driver: str) -> None:
        url = make_url(server.url_for(driver.removesuffix("_async")))
        if isinstance(server, PostgresServer):
            url = url.update_query_dict({"application_name": "drained"})
            self._sleep = text("SELECT pg_sleep(60)")
        else:
            # Not SLEEP, which looks every five seconds whether anybody still waits.
            self._sleep = text("SELECT count(*) FROM seq_1_to_100000 a, seq_1_to_100000 b")
        self._settings = DatabaseSettings(url, pool=_POOL)
        self._is_async = driver not in SYNC
        self.committed = 0
        self.errors: Counter[str] = Counter()
        self.cut_off: tuple[Holder, ...] = ()
        self.seconds = 0.0

    def close(self, timeout: float) -> None:
        """Close the factory while its workers work, and see them end."""
        if self._is_async:
            asyncio.run(self._in_tasks(timeout))
        else:
            self._in_threads(timeout)

    def _in_threads(self, timeout: float) -> None:
        factory = SqlAlchemySessionFactory(self._settings)
        done, stuck, closed = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

        def work() -> None:
            while True:
                with factory.begin() as session:
                    session.execute(_INSERT)
                self.committed += 1
                done.release()

        def sleep() -> None:
            with factory.begin() as session:
                session.execute(_INSERT)
                stuck.release()
                session.execute(self._sleep)

        def sit() -> None:
            with factory.begin() as session:
                session.execute(_INSERT)
                stuck.release()
                assert closed.wait(20)
                session.execute(_INSERT)

        def run(call: Callable[[], None]) -> None:
            try:
                call()
            except (DBAPIError, ClosedError) as error:
                self._note(call.__name__, error)

        calls = [*[work] * _BUSY, sleep, sit]
        threads = [threading.Thread(target=run, args=(call,), name=call.__name__) for call in calls]
        for thread in threads:
            thread.start()
        for semaphore in (*[done] * _FIRST, stuck, stuck):
            assert semaphore.acquire(timeout=20)
        began = time.monotonic()
        self.cut_off = factory.close(timeout=timeout)
        self.seconds = time.monotonic() - began
        closed.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    async def _in_tasks(self, timeout: float) -> None:
        factory = AsyncSqlAlchemySessionFactory(self._settings)
        done, stuck, closed = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()

        async def work() -> None:
            while True:
                async with factory.begin() as session:
                    await session.execute(_INSERT)
                self.committed += 1
                done.release()

        async def sleep() -> None:
            async with factory.begin() as session:
                await session.execute(_INSERT)
                stuck.release()
                await session.execute(self._sleep)

        async def sit() -> None:
            async with factory.begin() as session:
                await session.execute(_INSERT)
                stuck.release()
                await closed.wait()
                await session.execute(_INSERT)

        async def run(call: Callable[[], Awaitable[None]]) -> None:
            try:
                await call()
            except (DBAPIError, ClosedError) as error:
                self._note(call.__name__, error)

        calls = [*[work] * _BUSY, sleep, sit]
        tasks = [asyncio.create_task(run(call), name=call.__name__) for call in calls]
        for semaphore in (*[done] * _FIRST, stuck, stuck):
            await asyncio.wait_for(semaphore.acquire(), 20)
        began = time.monotonic()
        self.cut_off = await factory.aclose(timeout=timeout)
        self.seconds = time.monotonic() - began
        closed.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)

    def _note(self, worker: str, error: DBAPIError | ClosedError) -> None:
        self.errors[f"{worker}: {type(error).__name__}"] += 1


def server_of(driver: str, request: pytest.FixtureRequest) -> Generator[Server]:
    """Return the server of a driver, with an empty table: a fixture to import."""
    name = "mariadb_server" if "mysql" in driver else "postgres_server"
    found = cast("Server", request.getfixturevalue(name))
    found.execute("CREATE TABLE drained (a INT)")
    yield found
    found.execute("DROP TABLE drained")


def connections_of_ours(server: Server) -> str:
    """Return how many there are on the server; its own client's is not one of them."""
    if isinstance(server, MariaDBServer):
        return server.execute(
            "SELECT count(*) FROM information_schema.processlist"
            " WHERE user = 'root' AND host LIKE '127.0.0.1%'"
        )
    return server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'drained'"
    )


def until_none(server: Server) -> None:
    """Wait until the server saw that the connections are closed: it takes a moment for that."""
    deadline = time.monotonic() + 20
    while (left := connections_of_ours(server)) != "0":
        assert time.monotonic() < deadline, left
