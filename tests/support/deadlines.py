"""Servers that do not answer, in every way there is, and checkouts that end in time."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from attrs import define, evolve
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import NullPool

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ConnectTimeoutError,
    DatabaseSettings,
    PoolExhaustedError,
    PoolSettings,
)
from sessionfactory.testing import FaultProxy
from tests.support.awaited import sync_of
from tests.support.halves import AsyncHalf, SyncHalf

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import URL, Connection, Engine

    from sessionfactory.pool.fair import FairPool
    from sessionfactory.testing import MariaDBServer, PostgresServer
    from tests.support.halves import Half

DRIVERS: Final = ("psycopg", "psycopg2", "pymysql", "asyncpg", "psycopg_async", "aiomysql")
ONE: Final = text("SELECT 1")
NOWHERE: Final = "nowhere"
"""A name whose look-up takes for ever."""
LONG: Final = 20.0
"""Seconds after which a test fails that should have been done at once."""


@define
class Faults:
    """A real server behind a proxy, and what a checkout does when that is unwell.

    Args:
        half: the half of the driver.
        url: the server, without the proxy.
        proxy: stands before it.
        timeout: ``pool.timeout`` in seconds.
        slack: by how much a checkout may be late, in seconds.
        recovery: seconds that the first checkout may take after all is well again.
    """

    half: Half
    url: URL
    proxy: FaultProxy
    timeout: float
    slack: float
    recovery: float

    def silent(self, fall_silent: Callable[[], None]) -> None:
        """The server responds neither to a connect nor to a ping; then it does again."""
        with self._restored():
            self.half.run(self._silent(fall_silent))

    async def _silent(self, fall_silent: Callable[[], None]) -> None:
        async with self._factory() as sessions:
            fall_silent()
            for _ in range(2):
                await self._is_told(sessions, ConnectTimeoutError)
            self.proxy.restore()
            await self._recovers(sessions)

    def silent_when_pinged(self) -> None:
        """Connections are there, and do not answer a ping."""
        with self._restored():
            self.half.run(self._silent_when_pinged())

    async def _silent_when_pinged(self) -> None:
        async with self._factory(size=2, ping_after=0, ping_timeout=LONG) as sessions:
            _limit(sessions, LONG)
            async with sessions() as one, sessions() as two:
                await one.execute(ONE)
                await two.execute(ONE)
            _limit(sessions, self.timeout)
            self.proxy.black_hole()
            await self._is_told(sessions, ConnectTimeoutError)
            self.proxy.restore()
            await self._recovers(sessions)

    def refused(self) -> None:
        """There is no listener."""
        with self._restored():
            self.half.run(self._refused())

    async def _refused(self) -> None:
        async with self._factory() as sessions:
            self.proxy.refuse(existing="cut")
            await self._is_told(sessions, (DBAPIError, OSError))
            self.proxy.restore()
            await self._recovers(sessions)

    def exhausted(self) -> None:
        """Every connection is out."""
        self.half.run(self._exhausted())

    async def _exhausted(self) -> None:
        async with self._factory(size=1) as sessions:
            _limit(sessions, LONG)
            async with sessions() as session:
                await session.execute(ONE)
                _limit(sessions, self.timeout)
                async with self.half.elsewhere(lambda: self._is_told(sessions, PoolExhaustedError)):
                    pass
            await self._recovers(sessions)

    def name_not_found(self, patch: pytest.MonkeyPatch) -> None:
        """The look-up of the server's name takes for ever."""
        go_on, look_up = threading.Event(), socket.getaddrinfo

        def hang(host: Any, *arguments: Any, **keywords: Any) -> Any:
            if host == NOWHERE:
                go_on.wait(LONG)
                raise socket.gaierror(socket.EAI_AGAIN, "try again")
            return look_up(host, *arguments, **keywords)

        patch.setattr(socket, "getaddrinfo", hang)
        self.half.run(self._hangs(self.url.set(host=NOWHERE), go_on))

    def password_not_given(self) -> None:
        """Who knows the password does not say it."""
        go_on = threading.Event()

        def ask() -> str:
            go_on.wait(LONG)
            return "secret"

        self.half.run(self._hangs(self.url._replace(password=None), go_on, password=ask))

    async def _hangs(self, url: URL, go_on: threading.Event, **settings: Any) -> None:
        try:
            async with self._factory(url=url, **settings) as sessions:
                await self._is_told(sessions, ConnectTimeoutError)
        finally:
            go_on.set()

    def held_up_listener(self) -> None:
        """A listener to the engine's first connection sends a statement that is not answered."""
        with self._lock() as take:
            self.half.run(self._held_up_listener(take))

    async def _held_up_listener(self, take: str) -> None:
        async with self._factory() as sessions:
            statements = iter([take])

            def send(connection: Any, _record: object) -> None:
                cursor = connection.cursor()
                cursor.execute(next(statements, "SELECT 1"))
                cursor.close()

            engine: Engine = sync_of(sessions.engine)
            event.listen(getattr(engine, "sync_engine", engine), "connect", send)
            await self._is_told(sessions, ConnectTimeoutError)
            await self._recovers(sessions)

    @contextmanager
    def _lock(self) -> Generator[str]:
        """Hold a lock in another session; the value is a statement that takes it."""
        is_postgres = self.url.get_backend_name() == "postgresql"
        driver = "postgresql+psycopg" if is_postgres else "mysql+pymysql"
        take = "SELECT pg_advisory_lock(5)" if is_postgres else "SELECT GET_LOCK('five', 600)"
        engine = create_engine(self.url.set(drivername=driver), poolclass=NullPool)
        connection: Connection
        with engine.connect() as connection:
            connection.exec_driver_sql(take)
            yield take

    @contextmanager
    def _restored(self) -> Generator[None]:
        try:
            yield
        finally:
            self.proxy.restore()

    def _factory(
        self, *, url: URL | None = None, password: Any = None, **pool: Any
    ) -> AsyncSqlAlchemySessionFactory:
        # The driver's own limit is far away, so that it is ours that is proved.
        settings = DatabaseSettings(
            self.proxy.url.set(drivername=self.url.drivername) if url is None else url,
            password=password,
            connect_timeout=60,
            pool=evolve(PoolSettings(max_overflow=0, timeout=self.timeout), **pool),
        )
        return self.half.make(AsyncSqlAlchemySessionFactory, settings)

    async def _is_told(
        self,
        sessions: AsyncSqlAlchemySessionFactory,
        error: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        """Require a checkout to raise within the deadline and the slack, and to leave nothing."""
        async with sessions() as session:
            began = time.monotonic()
            with pytest.raises(error) as caught:
                await session.execute(ONE)
            took = time.monotonic() - began
        assert took < self.timeout + self.slack
        if error in {ConnectTimeoutError, PoolExhaustedError}:
            assert isinstance(caught.value, SqlAlchemyTimeoutError)
            assert took >= self.timeout
        assert sessions.status().waiting == 0

    async def _recovers(self, sessions: AsyncSqlAlchemySessionFactory) -> None:
        """Require the first session to work, in time."""
        _limit(sessions, self.recovery)
        began = time.monotonic()
        async with sessions() as session:
            assert await session.scalar(ONE) == 1
        assert time.monotonic() - began < self.recovery


def _limit(sessions: AsyncSqlAlchemySessionFactory, seconds: float) -> None:
    """Give checkouts so much time from now on."""
    engine: Any = sync_of(sessions.engine)
    cast("FairPool", engine.pool)._timeout = seconds


@contextmanager
def faults(
    driver: str, request: pytest.FixtureRequest, timeout: float, slack: float, recovery: float
) -> Generator[Faults]:
    """Put a proxy before a server of a driver's."""
    mine = "mariadb_server" if driver.endswith("mysql") else "postgres_server"
    server: PostgresServer | MariaDBServer = request.getfixturevalue(mine)
    url = make_url(server.url_for(driver.removesuffix("_async")))
    is_async = driver in {"asyncpg", "psycopg_async", "aiomysql"}
    half: Half = AsyncHalf() if is_async else SyncHalf()
    with FaultProxy(url) as proxy:
        yield Faults(half, url, proxy, timeout, slack, recovery)
