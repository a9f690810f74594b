"""A server that became read-only is left at once: later writes go where the writer is now."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    ReadOnlyError,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import FaultProxy, MariaDBServer
from tests.support.available import MARIADB_LIMITS, running_or_skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import URL

    from sessionfactory.testing import PostgresServer

ONE: Final = text("SELECT 1")
WRITE: Final = text("INSERT INTO item VALUES (1)")
WRITES: Final = 10
SIZE: Final = 3
POOL: Final = PoolSettings(size=SIZE, max_overflow=0)


@pytest.fixture
def next_primary(own_postgres: PostgresServer) -> Generator[PostgresServer]:
    """The server that writes after the failover: a standby of the former, promoted."""
    with own_postgres.standby() as server:
        server.promote().execute("TRUNCATE item")
        yield server


@pytest.fixture
def former_primary(own_postgres: PostgresServer) -> Generator[PostgresServer]:
    """The server that writes before the failover, and afterwards only reads."""
    yield own_postgres
    own_postgres.configure({"default_transaction_read_only": "off"})


@pytest.fixture
def proxy(former_primary: PostgresServer) -> Generator[FaultProxy]:
    """The address under which clients know the primary."""
    with FaultProxy(former_primary.url) as made:
        yield made


def write(url: URL, *, is_async: bool, fail_over: Callable[[], object]) -> list[bool]:
    """Open all connections of a pool, have the server fail over, and write ten times.

    Returns:
        for each write that failed, whether it cost its connection.
    """
    settings = DatabaseSettings(url, pool=POOL)
    if is_async:
        return asyncio.run(_write_async(settings, fail_over))
    lost: list[bool] = []
    with SqlAlchemySessionFactory(settings) as factory:
        with ExitStack() as opened:
            for _ in range(SIZE):
                opened.enter_context(factory()).execute(ONE)
        fail_over()
        for _ in range(WRITES):
            try:
                with factory.begin() as session:
                    session.execute(WRITE)
            except DBAPIError as error:
                lost.append(error.connection_invalidated)
    return lost


async def _write_async(settings: DatabaseSettings, fail_over: Callable[[], object]) -> list[bool]:
    lost: list[bool] = []
    async with AsyncSqlAlchemySessionFactory(settings) as factory:
        async with AsyncExitStack() as opened:
            for _ in range(SIZE):
                await (await opened.enter_async_context(factory())).execute(ONE)
        fail_over()
        for _ in range(WRITES):
            try:
                async with factory.begin() as session:
                    await session.execute(WRITE)
            except DBAPIError as error:
                lost.append(error.connection_invalidated)
    return lost


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_postgresql(
    driver: str, proxy: FaultProxy, former_primary: PostgresServer, next_primary: PostgresServer
) -> None:
    """Each pooled connection fails once at most; then writes reach the new primary."""

    def fail_over() -> None:
        former_primary.configure({"default_transaction_read_only": "on"})
        proxy.upstream = next_primary.url

    url = proxy.url.set(drivername=f"postgresql+{driver.removesuffix('_async')}")
    lost = write(url, is_async=driver not in {"psycopg", "psycopg2"}, fail_over=fail_over)
    assert lost == [True] * len(lost)
    assert 1 <= len(lost) <= SIZE
    assert next_primary.execute("SELECT count(*) FROM item") == str(WRITES - len(lost))


@pytest.fixture(scope="module")
def next_mariadb() -> Generator[MariaDBServer]:
    """The MariaDB that writes after a failover."""
    with running_or_skipped(MariaDBServer(settings=MARIADB_LIMITS)) as server:
        yield server


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql"])
def test_mariadb(driver: str, mariadb_server: MariaDBServer, next_mariadb: MariaDBServer) -> None:
    """So it is on MariaDB under ``read_only``, for a user that does not stand above it."""
    for server in (mariadb_server, next_mariadb):
        for statement in (
            "CREATE OR REPLACE USER plain IDENTIFIED BY 'plain'",
            "GRANT ALL ON *.* TO plain",
            "REVOKE SUPER, READ_ONLY ADMIN ON *.* FROM plain",
            "CREATE OR REPLACE TABLE item (id INT)",
        ):
            server.execute(statement)
    with FaultProxy(mariadb_server.url) as proxy:

        def fail_over() -> None:
            mariadb_server.execute("SET GLOBAL read_only = 1")
            proxy.upstream = next_mariadb.url

        url = proxy.url.set(drivername=f"mysql+{driver}", username="plain", password="plain")
        try:
            lost = write(url, is_async=driver == "aiomysql", fail_over=fail_over)
        finally:
            mariadb_server.execute("SET GLOBAL read_only = 0")
            mariadb_server.execute("DROP USER plain")
            mariadb_server.execute("DROP TABLE item")
    assert lost == [True] * len(lost)
    assert 1 <= len(lost) <= SIZE
    assert next_mariadb.execute("SELECT count(*) FROM item") == str(WRITES - len(lost))


def test_read_only_view_is_no_failover(postgres_server: PostgresServer) -> None:
    """A refused write of the reader is an error of ours, and costs no connection."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        for _ in range(3):
            with factory.reader() as session, pytest.raises(ReadOnlyError):
                session.execute(text("CREATE TABLE refused (a int)"))
        assert factory.status().size == 1


def test_read_only_by_option_is_no_failover(postgres_server: PostgresServer) -> None:
    """A transaction that was opened read-only by SQLAlchemy's option keeps its connection."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        engine = factory.engine.execution_options(postgresql_readonly=True)
        with Session(engine) as session, pytest.raises(DBAPIError) as caught:
            session.execute(text("CREATE TABLE refused (a int)"))
        assert not caught.value.connection_invalidated
