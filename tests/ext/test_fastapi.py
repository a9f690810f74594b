"""FastAPI: named databases, one transaction for a request, and tests that bring other databases."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of these functions.

import subprocess
import sys
from collections.abc import Generator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from sessionfactory import (
    AsyncSessionFactory,
    NotConfiguredError,
    NullSessionFactory,
    SessionFactory,
    SessionFactoryRegistry,
)
from sessionfactory.ext.fastapi import (
    AsyncSessions,
    Sessions,
    SessionsOf,
    Transaction,
    async_reader,
    async_sessions,
    get_async_registry,
    get_registry,
    lifespan,
    reader,
    registry_of,
    transaction,
)
from sessionfactory.testing import (
    AsyncInMemorySessionFactory,
    InMemorySessionFactory,
    RecordingSessionFactory,
)
from tests.support.slow_items import Base, Item, maker

AnalyticsReader = Annotated[SessionFactory, reader("analytics")]
AnalyticsSession = Annotated[Session, transaction("analytics")]
AsyncAnalytics = Annotated[AsyncSessionFactory, async_sessions("analytics")]
AsyncAnalyticsReader = Annotated[AsyncSessionFactory, async_reader("analytics")]

app = FastAPI()


@app.post("/items/{number}")
def add(number: int, default: Sessions) -> None:
    """Write with an injected factory."""
    with default.begin() as session:
        session.add(Item(id=number))


@app.get("/items")
def items(default: Sessions) -> list[int]:
    """Read with an injected factory."""
    with default() as session:
        return list(session.scalars(select(Item.id).order_by(Item.id)))


def audited(session: Transaction) -> None:
    """Write in the transaction of the request."""
    session.add(Item(id=1000))


@app.post("/audited/{number}", dependencies=[Depends(audited)])
def add_audited(number: int, session: Transaction) -> list[int]:
    """Write in the same transaction as a dependency."""
    session.add(Item(id=number))
    return list(session.scalars(select(Item.id).order_by(Item.id)))


@app.post("/analytics/{number}")
def add_analytics(number: int, session: AnalyticsSession, other: AnalyticsReader) -> list[int]:
    """Write to another database, and read it as it was before."""
    session.add(Item(id=number))
    with other() as reading:
        return list(reading.scalars(select(Item.id)))


@app.get("/async-names")
async def async_factories(
    first: AsyncSessions, second: AsyncAnalytics, third: AsyncAnalyticsReader
) -> list[str]:
    """Return which factories are injected."""
    return [repr(first), repr(second), repr(third)]


@app.websocket("/socket")
async def socket(websocket: WebSocket, default: Sessions) -> None:
    """A websocket is given factories as well."""
    await websocket.accept()
    with default() as session:
        await websocket.send_json(list(session.scalars(select(Item.id))))
    await websocket.close()


@pytest.fixture
def fake() -> Generator[InMemorySessionFactory]:
    """A database in memory with the tables of the service."""
    with InMemorySessionFactory(Base.metadata) as made:
        yield made


@pytest.fixture
def registry(fake: InMemorySessionFactory) -> Generator[SessionFactoryRegistry]:
    """The registry of a test, in the place of the application's."""
    with SessionFactoryRegistry() as made, InMemorySessionFactory(Base.metadata) as other:
        made.register("default", fake)
        made.register("analytics", other)
        app.dependency_overrides[get_registry] = lambda: made
        yield made
        app.dependency_overrides.clear()


@pytest.mark.usefixtures("registry")
def test_one_override_replaces_all_databases() -> None:
    """``get_registry`` is the root of all dependencies, and needs no lifespan when replaced."""
    client = TestClient(app)
    assert client.post("/items/7").status_code == 200
    assert client.get("/items").json() == [7]
    with client.websocket_connect("/socket") as connection:
        assert connection.receive_json() == [7]


def test_one_factory_is_replaced_by_a_recording_one(
    registry: SessionFactoryRegistry, fake: InMemorySessionFactory
) -> None:
    """An override of one dependency leaves the others; the fake says what the endpoint did."""
    recorder = RecordingSessionFactory(fake)
    app.dependency_overrides[SessionsOf()] = lambda: recorder
    client = TestClient(app)
    client.post("/items/7")
    assert (recorder.recording.transactions, len(recorder.recording.writes)) == (1, 1)
    assert client.post("/analytics/1").status_code == 200


def test_a_forbidden_database_is_an_error(registry: SessionFactoryRegistry) -> None:
    """The null factory guards a test that should not touch a database."""
    guard = NullSessionFactory("no database in this test")
    with registry.override("default", guard), pytest.raises(NotConfiguredError, match=guard.reason):
        TestClient(app).get("/items")


@pytest.mark.usefixtures("registry")
def test_dependencies_share_the_transaction_of_a_request() -> None:
    """Everybody in a request who asks for the transaction is given the same session."""
    client = TestClient(app)
    assert client.post("/audited/7").json() == [7, 1000]
    assert client.get("/items").json() == [7, 1000]


def test_named_databases_are_separate(registry: SessionFactoryRegistry) -> None:
    """A named database has its own factory, its own transaction and its own reader."""
    client = TestClient(app)
    assert client.post("/analytics/1").status_code == 200
    assert client.get("/items").json() == []
    with registry.override("default", registry.get("analytics")):
        assert client.get("/items").json() == [1]


def test_the_async_half_has_the_same_dependencies() -> None:
    """Factories and readers of the async half are found by name."""
    fake = AsyncInMemorySessionFactory(Base.metadata)

    class Registry:
        """The two methods that the dependencies call."""

        def get(self, name: str) -> AsyncSessionFactory:
            return fake

        def reader(self, name: str) -> AsyncSessionFactory:
            return fake

    app.dependency_overrides[get_async_registry] = Registry
    try:
        assert TestClient(app).get("/async-names").json() == [repr(fake)] * 3
    finally:
        app.dependency_overrides.clear()


def test_a_running_application_s_database_is_overridden(
    url: str, fake: InMemorySessionFactory
) -> None:
    """A test that starts the real application replaces a database in its registry."""
    real = FastAPI(lifespan=lifespan(maker("sync", url)))
    real.include_router(app.router)
    with TestClient(real) as client, registry_of(real).override("default", fake):
        client.post("/items/7")
        assert client.get("/items").json() == [7]


def test_an_old_fastapi_is_refused_with_a_sentence() -> None:
    """Below 0.121 a dependency commits behind the response: the import says so."""
    code = """
import dataclasses, fastapi, fastapi.params
@dataclasses.dataclass
class Depends:
    dependency: object = None
    use_cache: bool = True
fastapi.params.Depends = Depends
fastapi.__version__ = "0.120.4"
import sessionfactory.ext.fastapi
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "needs FastAPI 0.121 or newer, and this is 0.120.4" in done.stderr
    assert 'Install "sessionfactory[fastapi]"' in done.stderr
