"""Every fake of the project keeps the promises of the interface that it stands in for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.testing import (
    CONFORMANCE_TABLE,
    AsyncCloningSessionFactory,
    AsyncInMemorySessionFactory,
    AsyncRecordingSessionFactory,
    AsyncRollbackSessionFactory,
    CloningSessionFactory,
    InMemorySessionFactory,
    RecordingSessionFactory,
    RollbackSessionFactory,
    check_async_session_factory,
    check_session_factory,
)

if TYPE_CHECKING:
    from sessionfactory.testing import MariaDBServer, PostgresServer


def test_in_memory_conforms() -> None:
    """The in-memory factory, and one that records it, keep every promise."""
    check_session_factory(lambda: InMemorySessionFactory(MetaData()))
    with InMemorySessionFactory(MetaData()) as sessions:
        check_session_factory(lambda: RecordingSessionFactory(sessions))


@pytest.mark.parametrize("place", ["sqlite", "postgres", "mariadb"])
def test_rollback_conforms(
    place: str, url: str, postgres_server: PostgresServer, mariadb_server: MariaDBServer
) -> None:
    """The rolling-back factory keeps every promise, on every database."""
    where = {"sqlite": url, "postgres": postgres_server.url, "mariadb": mariadb_server.url}[place]
    engine = create_engine(where)
    CONFORMANCE_TABLE.create(engine)  # MariaDB would commit amid the check
    try:
        check_session_factory(lambda: RollbackSessionFactory(engine))
    finally:
        CONFORMANCE_TABLE.drop(engine)
        engine.dispose()


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_clones_conform(place: str, postgres_server: PostgresServer) -> None:
    """What a clone gives keeps every promise."""
    where = {"sqlite": "sqlite://", "postgres": postgres_server.url}[place]
    with CloningSessionFactory(where, MetaData()) as cloning:
        check_session_factory(cloning.clone)


@pytest.mark.asyncio
async def test_async_fakes_conform(postgres_server: PostgresServer) -> None:
    """The async fakes keep every promise of the async interface."""
    await check_async_session_factory(lambda: AsyncInMemorySessionFactory(MetaData()))
    async with AsyncInMemorySessionFactory(MetaData()) as sessions:
        await check_async_session_factory(lambda: AsyncRecordingSessionFactory(sessions))
    engine = create_async_engine(postgres_server.url_for(driver="asyncpg"))
    await check_async_session_factory(lambda: AsyncRollbackSessionFactory(engine))
    await engine.dispose()


@pytest.mark.asyncio
@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "asyncpg"])
async def test_async_clones_conform(driver: str, postgres_server: PostgresServer) -> None:
    """What an async clone gives keeps every promise of the async interface."""
    where = "sqlite://" if driver == "sqlite" else postgres_server.url_for(driver=driver)
    async with AsyncCloningSessionFactory(where, MetaData()) as cloning:
        await check_async_session_factory(cloning.clone)


def test_views_of_a_factory_conform(url: str) -> None:
    """A factory of ours under the rolling-back fake conforms, as the service's tests have it."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        CONFORMANCE_TABLE.create(factory.engine)
        check_session_factory(lambda: RollbackSessionFactory(factory))
