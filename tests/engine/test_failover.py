"""A server that became read-only is left at once: later writes go where the writer is now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    ReadOnlyError,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import MariaDBServer, PostgresServer

WRITE = text("INSERT INTO item VALUES (1)")
SIZE = 3
POOL = PoolSettings(size=SIZE, max_overflow=0)


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


def fail_over(proxy: FaultProxy, former: PostgresServer, new: PostgresServer) -> None:
    """Turn the former primary read-only, and lead new connections to the new one."""
    former.configure({"default_transaction_read_only": "on"})
    proxy.upstream = new.url


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_postgresql(
    driver: str, proxy: FaultProxy, former_primary: PostgresServer, next_primary: PostgresServer
) -> None:
    """Each pooled connection fails once at most; then writes reach the new primary."""
    url = proxy.url.set(drivername=f"postgresql+{driver}")
    with SqlAlchemySessionFactory(DatabaseSettings(url, pool=POOL)) as factory:
        sessions = [factory() for _ in range(SIZE)]
        for session in sessions:
            session.execute(text("SELECT 1"))
        for session in sessions:
            session.close()
        fail_over(proxy, former_primary, next_primary)
        errors = 0
        for _ in range(10):
            try:
                with factory.begin() as session:
                    session.execute(WRITE)
            except DBAPIError as error:
                errors += error.connection_invalidated
        assert errors <= SIZE
        assert next_primary.execute("SELECT count(*) FROM item").strip() == str(10 - errors)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_postgresql_async(
    driver: str, proxy: FaultProxy, former_primary: PostgresServer, next_primary: PostgresServer
) -> None:
    """The async half leaves it, too."""

    async def write_ten_times() -> int:
        url = proxy.url.set(drivername=f"postgresql+{driver}")
        errors = 0
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url, pool=POOL)) as factory:
            async with factory() as session:
                await session.execute(text("SELECT 1"))
            fail_over(proxy, former_primary, next_primary)
            for _ in range(10):
                try:
                    async with factory.begin() as session:
                        await session.execute(WRITE)
                except DBAPIError as error:
                    errors += error.connection_invalidated
        return errors

    assert asyncio.run(write_ten_times()) == 1
    assert next_primary.execute("SELECT count(*) FROM item").strip() == "9"


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


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql"])
def test_mariadb(driver: str, mariadb_server: MariaDBServer) -> None:
    """MariaDB's refusal under ``read_only`` costs the connection; another option's does not."""
    root = create_engine(mariadb_server.url, isolation_level="AUTOCOMMIT")
    url = root.url.set(drivername=f"mysql+{driver}", username="plain", password="plain")
    with root.connect() as connection:
        for statement in (
            "CREATE OR REPLACE USER plain IDENTIFIED BY 'plain'",
            "GRANT ALL ON *.* TO plain",
            "REVOKE SUPER, READ_ONLY ADMIN ON *.* FROM plain",
            "SET GLOBAL read_only = 1",
        ):
            connection.exec_driver_sql(statement)
        try:
            lost = asyncio.run(refused(url.render_as_string(hide_password=False)))
        finally:
            connection.exec_driver_sql("SET GLOBAL read_only = 0")
            connection.exec_driver_sql("DROP USER plain")
    root.dispose()
    assert lost


async def refused(url: str) -> bool:
    """Write once, and say whether that cost the connection."""
    write = text("CREATE TABLE refused (a int)")
    settings = DatabaseSettings(url)
    if "aiomysql" in url:
        async with AsyncSqlAlchemySessionFactory(settings) as factory, factory() as session:
            with pytest.raises(DBAPIError) as caught:
                await session.execute(write)
            return caught.value.connection_invalidated
    with SqlAlchemySessionFactory(settings) as sync_factory, sync_factory() as sync_session:
        with pytest.raises(DBAPIError) as caught:
            sync_session.execute(write)
        return caught.value.connection_invalidated
