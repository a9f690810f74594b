"""A proxy before the real server, and a table to see what really happened there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import pytest
from sqlalchemy import URL, NullPool, TextClause, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sessionfactory.testing.proxy.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Server(Protocol):
    """What these tests need of the fixture `postgres_server`."""

    @property
    def url(self) -> str: ...


@pytest.fixture
def server(postgres_server: Server) -> URL:
    """The way to the server past the proxy."""
    return make_url(postgres_server.url).set(drivername="postgresql+psycopg")


@pytest.fixture
def proxy(server: URL) -> Generator[FaultProxy]:
    """A proxy before the real server."""
    with FaultProxy(server) as proxy:
        yield proxy


@pytest.fixture
def direct(server: URL) -> Callable[[str], list[int]]:
    """Executes a statement past the proxy, and gives the first column of what it returns."""

    def execute(statement: str) -> list[int]:
        engine = create_engine(
            server,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"options": "-c lock_timeout=5s"},  # what a test leaves locked is an error
        )
        with engine.connect() as connection:
            result = connection.execute(text(statement))
            return list(result.scalars()) if result.returns_rows else []

    return execute


@pytest.fixture
def table(direct: Callable[[str], object]) -> Generator[str]:
    """A table of numbers."""
    name = f"numbers_{uuid4().hex}"
    direct(f"CREATE TABLE {name} (n integer)")
    yield name
    direct(f"DROP TABLE {name}")


@pytest.fixture
def values(direct: Callable[[str], list[int]], table: str) -> Callable[[], list[int]]:
    """Gives the numbers that are in the table, past the proxy."""
    return lambda: direct(f"SELECT n FROM {table} ORDER BY n")


@pytest.fixture
def insert(proxy: FaultProxy, table: str) -> Callable[[str, int], Exception | None]:
    """Writes a number by way of the proxy, and gives the driver's complaint, if there is one."""

    def write(driver: str, value: int) -> Exception | None:
        statement = text(f"INSERT INTO {table} VALUES ({value})")
        url = proxy.url.set(drivername=f"postgresql+{driver}")
        try:
            if driver == "asyncpg":
                asyncio.run(_execute_async(url, statement))
            else:
                _execute(url, statement)
        except (DBAPIError, OSError) as error:
            return error
        return None

    return write


def _execute(url: URL, statement: TextClause) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(statement)


async def _execute_async(url: URL, statement: TextClause) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(statement)
    finally:
        await engine.dispose()
