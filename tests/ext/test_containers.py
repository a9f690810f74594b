"""svcs and dishka: factories by type and by name, pings, and a container closes no factory."""

from __future__ import annotations

import asyncio
from collections.abc import Generator  # noqa: TC003 - svcs reads annotations
from typing import TYPE_CHECKING, Protocol

import pytest
import svcs
from dishka import make_async_container, make_container
from sqlalchemy import text

from sessionfactory import (
    AsyncSessionFactory,
    AsyncSessionFactoryRegistry,
    ClosedError,
    NotConfiguredError,
    NullSessionFactory,
    ReadOnlyError,
    SessionFactory,
    SessionFactoryRegistry,
)
from sessionfactory.ext.dishka import async_session_factories, session_factories
from sessionfactory.ext.svcs import register

if TYPE_CHECKING:
    from pathlib import Path


class Analytics(SessionFactory, Protocol):
    """The factory of another database."""


class Reports(SessionFactory, Protocol):
    """A factory that only reads."""


class AsyncAnalytics(AsyncSessionFactory, Protocol):
    """The factory of another database."""


class AsyncReports(AsyncSessionFactory, Protocol):
    """A factory that only reads."""


@pytest.fixture
def environ(url: str, tmp_path: Path) -> dict[str, str]:
    """Two databases."""
    return {"DATABASE_URL": url, "ANALYTICS_DATABASE_URL": f"sqlite:///{tmp_path}/analytics.db"}


@pytest.fixture
def databases(environ: dict[str, str]) -> Generator[SessionFactoryRegistry]:
    """The application's registry."""
    with SessionFactoryRegistry.from_env(environ) as registry:
        for name in registry.names:
            registry.engine(name).connect().close()  # makes the file
        yield registry


def use(sessions: SessionFactory) -> int:
    """Run a statement."""
    with sessions.begin() as session:
        return int(session.scalars(text("SELECT 42")).one())


async def use_async(sessions: AsyncSessionFactory) -> int:
    """Run a statement."""
    async with sessions.begin() as session:
        return int((await session.scalars(text("SELECT 42"))).one())


def write(sessions: SessionFactory) -> None:
    """Write, which a reader refuses."""
    with sessions.begin() as session:
        session.execute(text("CREATE TABLE t (a INTEGER)"))


def test_svcs_finds_factories_and_closes_none(databases: SessionFactoryRegistry) -> None:
    """Container after container uses the factories of the application, by type."""
    with svcs.Registry() as services:
        types: dict[type, str] = {SessionFactory: "default", Analytics: "analytics"}
        register(services, databases, types=types, readers={Reports: "default"})
        for _ in range(2):
            with svcs.Container(services) as container:
                assert use(container.get_abstract(SessionFactory)) == 42
                assert use(container.get_abstract(Analytics)) == 42
                with pytest.raises(ReadOnlyError):
                    write(container.get_abstract(Reports))
                assert container.get_abstract(Analytics) is databases.get("analytics")
    assert use(databases.get()) == 42


def test_svcs_pings(databases: SessionFactoryRegistry) -> None:
    """A health check by svcs asks each database, and an error names the one that is away."""
    with svcs.Registry() as services:
        register(services, databases, types={SessionFactory: "default", Analytics: "analytics"})
        with svcs.Container(services) as container:
            first, second = container.get_pings()
            first.ping()
            guard = databases.override("analytics", NullSessionFactory("not today"))
            unconfigured = "database 'analytics': unconfigured, not today"
            with guard, pytest.raises(ConnectionError, match=unconfigured):
                second.ping()


def test_svcs_async(environ: dict[str, str]) -> None:
    """The async half is found under its own interface, and its pings are awaited."""

    async def main() -> None:
        registry = AsyncSessionFactoryRegistry.from_env(environ)
        async with registry, svcs.Registry() as services:
            register(services, registry)
            for _ in range(2):
                async with svcs.Container(services) as container:
                    sessions = await container.aget_abstract(AsyncSessionFactory)
                    assert await use_async(sessions) == 42
                    (ping,) = container.get_pings()
                    assert ping.is_async
                    await ping.aping()

    asyncio.run(main())


def test_dishka_finds_factories_by_type_and_by_name(environ: dict[str, str]) -> None:
    """The container owns the registry: it drains it when it is closed."""
    container = make_container(
        *session_factories(
            lambda: SessionFactoryRegistry.from_env(environ),
            types={SessionFactory: "default", Analytics: "analytics"},
            readers={Reports: "default"},
            components=["analytics"],
        )
    )
    registry = container.get(SessionFactoryRegistry)
    for _ in range(2):
        with container() as request:
            assert use(request.get(SessionFactory)) == 42
            assert request.get(Analytics) is registry.get("analytics")
            assert request.get(SessionFactory, component="analytics") is registry.get("analytics")
            with pytest.raises(ReadOnlyError):
                write(request.get(Reports))
    guard = NullSessionFactory("no database in this test")
    with registry.override("default", guard):
        assert container.get(SessionFactory) is guard
    container.close()
    with pytest.raises(ClosedError):
        registry.get()


def test_dishka_async(environ: dict[str, str]) -> None:
    """The async half, in an async container."""

    async def main() -> None:
        container = make_async_container(
            *async_session_factories(
                lambda: AsyncSessionFactoryRegistry.from_env(environ),
                types={AsyncSessionFactory: "default", AsyncAnalytics: "analytics"},
                readers={AsyncReports: "default"},
                components=["analytics"],
            )
        )
        registry = await container.get(AsyncSessionFactoryRegistry)
        for kind in (AsyncSessionFactory, AsyncAnalytics, AsyncReports):
            assert await use_async(await container.get(kind)) == 42
        named = await container.get(AsyncSessionFactory, component="analytics")
        assert named is registry.get("analytics")
        await container.close()
        with pytest.raises(ClosedError):
            registry.get()

    asyncio.run(main())


def test_dishka_requires_databases() -> None:
    """A required database that is missing is an error when the registry is made."""
    container = make_container(*session_factories(lambda: SessionFactoryRegistry.from_env({})))
    with pytest.raises(NotConfiguredError, match="set DATABASE_URL"):
        container.get(SessionFactory)
