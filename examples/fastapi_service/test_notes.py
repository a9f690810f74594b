"""How the service is tested: with fakes, which cost a millisecond, and with a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient

from examples.fastapi_service.app import make_app
from examples.fastapi_service.models import Base
from examples.fastapi_service.service import Notes
from sessionfactory import AsyncNullSessionFactory
from sessionfactory.ext.fastapi import async_registry_of
from sessionfactory.testing import (
    AsyncInMemorySessionFactory,
    AsyncRecordingSessionFactory,
    PostgresServer,
)

if TYPE_CHECKING:
    from collections.abc import Generator


def test_the_service_with_fakes() -> None:
    """The service is given factories in memory; one of them records what it did."""

    async def main() -> None:
        async with AsyncInMemorySessionFactory(Base.metadata) as memory:
            sessions = AsyncRecordingSessionFactory(memory)
            notes = Notes(sessions, memory.reader)
            number = await notes.write("buy milk")
            found = await notes.read(number)
            assert found is not None
            assert found.text == "buy milk"
            assert sessions.recording.commits == 1

    asyncio.run(main())


def test_an_empty_note_is_refused_before_any_database_is_asked() -> None:
    """The application with its database replaced: here by a guard that any use would trip."""
    app = make_app({"DATABASE_URL": "postgresql://app@db/notes"})
    guard = AsyncNullSessionFactory("no database in this test")
    with TestClient(app) as client, async_registry_of(app).override("default", guard):
        assert client.post("/notes", json={"text": ""}).status_code == 422


@pytest.fixture(scope="module")
def server() -> Generator[PostgresServer]:
    """A real server, in less than a second."""
    with PostgresServer() as started:
        yield started


def test_the_application_on_a_real_server(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real application, on a database that Alembic made."""
    environ = {"DATABASE_URL": server.url}
    monkeypatch.setenv("DATABASE_URL", server.url)
    command.upgrade(Config("examples/fastapi_service/alembic.ini"), "head")
    with TestClient(make_app(environ)) as client:
        assert client.get("/health/ready").json() == {"status": "ok"}
        written = client.post("/notes", json={"text": "buy milk"}).json()
        assert client.get(f"/notes/{written['id']}").json() == written
        assert client.get("/notes").text == f"{written['id']}\tbuy milk\n"
        assert client.get("/notes/999").status_code == 404
