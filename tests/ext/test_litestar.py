"""Litestar: a plugin gives handlers factories, and owns the registry."""

# No ``from __future__ import annotations``: Litestar reads the annotations of these handlers.

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from litestar import Litestar, get, post
from litestar.di import Provide
from litestar.params import FromPath
from litestar.testing import TestClient
from sqlalchemy import select

from sessionfactory import CommitUncertainError, NotConfiguredError, SessionFactoryRegistry
from sessionfactory.ext.litestar import AsyncSessions, SessionFactoryPlugin, Sessions, health_router
from sessionfactory.testing import InMemorySessionFactory
from tests.support.slow_items import Base, Item, maker

POOL: Final = {"size": 1, "max_overflow": 0, "timeout": 0.05}


@post("/items/{number:int}", sync_to_thread=True)
def add(number: FromPath[int], sessions: Sessions) -> None:
    """Write with an injected factory."""
    with sessions.begin() as session:
        session.add(Item(id=number))


@get("/items", sync_to_thread=True)
def items(reader: Sessions) -> list[int]:
    """Read with an injected reader."""
    with reader() as session:
        return list(session.scalars(select(Item.id)))


@post("/async-items/{number:int}")
async def add_async(number: FromPath[int], sessions: AsyncSessions) -> None:
    """Write with an injected factory."""
    async with sessions.begin() as session:
        session.add(Item(id=number))


@get("/async-items")
async def async_items(reader: AsyncSessions) -> list[int]:
    """Read with an injected reader."""
    async with reader() as session:
        return list(await session.scalars(select(Item.id)))


@post("/readonly", sync_to_thread=True)
def readonly(reader: Sessions) -> None:
    """Write where only reading is allowed."""
    with reader.begin() as session:
        session.add(Item(id=1))


@post("/nested", sync_to_thread=True)
def nested(sessions: Sessions) -> None:
    """Need two connections of a pool that has one."""
    with sessions() as outer, sessions() as inner:
        outer.connection()
        inner.connection()


@post("/uncertain")
async def uncertain() -> None:
    """Lose the answer to a COMMIT."""
    raise CommitUncertainError("the text of this error")


@get("/reports", sync_to_thread=True)
def reports(reports_sessions: Sessions, reports_reader: Sessions) -> list[str]:
    """Return what is injected."""
    return [repr(reports_sessions), repr(reports_reader)]


quiet = partial(Litestar, logging_config=None)  # Litestar's own would be that of all tests


@pytest.fixture
def tables(url: str) -> str:
    """The URL of a SQLite file that has the tables."""
    with SessionFactoryRegistry.from_env({"DATABASE_URL": url}) as registry:
        Base.metadata.create_all(registry.engine())
    return url


def test_handlers_write_and_read(tables: str) -> None:
    """Factories are injected by name in the sync half."""
    plugin = SessionFactoryPlugin(maker("sync", tables))
    with TestClient(quiet([add, items], plugins=[plugin])) as client:
        assert client.post("/items/7").status_code == 201
        assert client.get("/items").json() == [7]


def test_async_handlers_write_and_read(tables: str) -> None:
    """Factories are injected by name in the async half."""
    plugin = SessionFactoryPlugin(maker("async", tables))
    with TestClient(quiet([add_async, async_items], plugins=[plugin])) as client:
        assert client.post("/async-items/7").status_code == 201
        assert client.get("/async-items").json() == [7]


def test_another_database_has_its_name_in_front(tables: str, tmp_path: Path) -> None:
    """A second database is injected as ``reports_sessions`` and ``reports_reader``."""
    environ = {"DATABASE_URL": tables, "REPORTS_DATABASE_URL": f"sqlite:///{tmp_path}/reports.db"}
    plugin = SessionFactoryPlugin(
        lambda: SessionFactoryRegistry.from_env(environ), names=["reports"]
    )
    with TestClient(quiet([reports], plugins=[plugin])) as client:
        first, second = client.get("/reports").json()
    assert "name='reports'" in first
    assert first != second


def test_the_application_s_own_dependency_wins(tables: str) -> None:
    """A test injects a fake under the same name, and the real factory is not asked for."""
    with InMemorySessionFactory(Base.metadata) as fake:

        async def provide() -> InMemorySessionFactory:
            return fake

        plugin = SessionFactoryPlugin(maker("sync", tables))
        given = {"sessions": Provide(provide)}
        with TestClient(quiet([add, items], plugins=[plugin], dependencies=given)) as client:
            assert client.post("/items/7").status_code == 201
            assert client.get("/items").json() == []
        with fake() as session:
            assert session.scalars(select(Item.id)).all() == [7]


def test_errors_of_the_database_have_their_status(
    tables: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader's write is 409, an empty pool 503, an uncertain COMMIT 500, without details."""
    plugin = SessionFactoryPlugin(maker("sync", tables, pool=POOL), retry_after=7)
    app = quiet([readonly, nested, uncertain], plugins=[plugin])
    with TestClient(app) as client:
        refused, busy, lost = (
            client.post(f"/{path}") for path in ("readonly", "nested", "uncertain")
        )

    assert (refused.status_code, refused.json()["code"]) == (409, "read_only")
    assert (busy.status_code, busy.json()["code"]) == (503, "database_busy")
    assert busy.headers["Retry-After"] == "7"
    assert (lost.status_code, lost.json()["code"]) == (500, "commit_uncertain")
    assert "the text of this error" not in lost.text


def test_the_registry_is_there_for_all_of_the_own_lifespan(tables: str) -> None:
    """The plugin's lifespan begins before the application's own, and ends after it."""
    seen: list[bool] = []

    @asynccontextmanager
    async def own(app: Litestar) -> AsyncGenerator[None]:
        seen.append("sessionfactory_registry" in app.state)
        yield
        seen.append("sessionfactory_registry" in app.state)

    plugin = SessionFactoryPlugin(maker("sync", tables))
    app = quiet(plugins=[plugin], lifespan=[own])
    with TestClient(app):
        pass
    assert seen == [True, True]
    assert "sessionfactory_registry" not in app.state


def test_a_missing_database_stops_the_start() -> None:
    """The application does not start without the databases that it requires."""
    app = quiet(
        plugins=[SessionFactoryPlugin(lambda: SessionFactoryRegistry.from_env({}))],
        logging_config=None,
    )
    with pytest.raises(ExceptionGroup) as caught, TestClient(app):
        pytest.fail("it has started")
    (error,) = caught.value.exceptions
    assert isinstance(error, NotConfiguredError)
    assert "set DATABASE_URL" in str(error)


def test_an_application_that_has_not_started() -> None:
    """The error says what to do in a test."""
    app = quiet(
        [items],
        plugins=[SessionFactoryPlugin(maker("sync", "sqlite://"))],
        logging_config=None,
        debug=True,
    )
    with TestClient(app) as client:
        app.state.pop("sessionfactory_registry")
        assert "has not started (in a test: with TestClient(app))" in client.get("/items").text


@pytest.mark.parametrize("half", ["sync", "async"])
def test_ready_and_alive(half: str) -> None:
    """An application whose database answers is both; the routes are not in its OpenAPI schema."""
    plugin = SessionFactoryPlugin(maker(half, "sqlite:///:memory:"))
    app = quiet([health_router()], plugins=[plugin])
    with TestClient(app) as client:
        for path in ("/health/ready", "/health/live"):
            response = client.get(path)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})
            assert response.headers["Cache-Control"] == "no-store"
        assert "/health" not in client.get("/schema/openapi.json").text


@pytest.mark.parametrize("half", ["sync", "async"])
def test_alive_and_not_ready(half: str, tmp_path: Path) -> None:
    """A missing database is 503 for readiness alone; only ``details`` shows its state."""
    routes = [
        health_router(),
        health_router(
            prefix="/inside",
            names=["default", "reports"],
            details=lambda request: "key" in request.query_params,
        ),
    ]
    plugin = SessionFactoryPlugin(maker(half, f"sqlite:///{tmp_path}/missing/app.db"))
    with TestClient(quiet([*routes], plugins=[plugin])) as client:
        assert client.get("/health/live").status_code == 200
        response = client.get("/health/ready")
        assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
        assert client.get("/inside/ready").json() == {"status": "unavailable"}
        shown = client.get("/inside/ready?key").json()["databases"]
    assert (shown["default"]["state"], shown["reports"]["state"]) == ("unreachable", "unconfigured")
