"""The example `examples/shortlinks`, as its clients and its readers see it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient

from examples.shortlinks.app import make_app
from examples.shortlinks.models import CODE_LENGTH, TARGET_LENGTH, Base
from examples.shortlinks.service import Links
from sessionfactory import (
    AsyncNullSessionFactory,
    NotConfiguredError,
)
from sessionfactory.ext.fastapi import async_registry_of
from sessionfactory.testing import AsyncInMemorySessionFactory, AsyncRecordingSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fastapi import FastAPI

    from sessionfactory.testing import PostgresServer

pytestmark = pytest.mark.asyncio
TARGET = "https://example.org/a/long/way?to=go"


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    """Start an application, and return its client."""
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app=app), base_url="http://short") as client,
    ):
        yield client


@pytest.fixture(params=["sqlite", "asyncpg"])
def app(request: pytest.FixtureRequest, url: str) -> FastAPI:
    """The application, on a file and on a server."""
    if request.param == "sqlite":
        return make_app({"DATABASE_URL": url})
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return make_app({"DATABASE_URL": server.async_url})


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    """A client of the application; its tables are dropped afterwards."""
    async with client_of(app) as client:
        yield client
        async with async_registry_of(app).engine().begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)


async def test_a_link_leads_to_its_target(client: AsyncClient) -> None:
    """A target gets one code, however often it is asked for; following it is counted."""
    made = await client.post("/links", json={"target": TARGET})
    code = made.json()["code"]
    assert (made.status_code, len(code)) == (201, CODE_LENGTH)
    assert (await client.post("/links", json={"target": TARGET})).json() == {"code": code}

    followed = await client.get(f"/{code}")
    assert (followed.status_code, followed.headers["location"]) == (307, TARGET)
    (await client.post("/links", json={"target": f"{TARGET}&other=1"})).raise_for_status()
    assert (await client.get("/links", params={"limit": 1})).json() == [
        {"code": code, "target": TARGET, "followed": 1}
    ]


async def test_what_is_refused(client: AsyncClient) -> None:
    """What is no address, or too long, is refused, and a code that leads nowhere is told."""
    for target in ("no address", f"https://example.org/{'x' * TARGET_LENGTH}"):
        assert (await client.post("/links", json={"target": target})).status_code == 422
    assert (await client.get("/nowhere")).status_code == 404
    assert (await client.get("/links", params={"limit": 0})).status_code == 422
    assert (await client.get("/links")).json() == []


async def test_requests_side_by_side_lose_nothing(client: AsyncClient) -> None:
    """Eight clients that ask for one target at once get one code, and each visit is counted."""
    asked = [client.post("/links", json={"target": TARGET}) for _ in range(8)]
    (code,) = {response.json()["code"] for response in await asyncio.gather(*asked)}
    await asyncio.gather(*(client.get(f"/{code}") for _ in range(40)))
    (link,) = (await client.get("/links")).json()
    assert link["followed"] == 40


async def test_its_health(app: FastAPI) -> None:
    """Readiness is 503 without a database, and the process is alive all the same."""
    async with client_of(app) as client:
        response = await client.get("/health/ready")
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        null = AsyncNullSessionFactory("no database in this test")
        with async_registry_of(app).override("default", null):
            response = await client.get("/health/ready")
            assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
            assert (await client.get("/health/live")).status_code == 200


async def test_without_a_database_it_does_not_start() -> None:
    """Without a setting it does not start, and names what to set."""
    with pytest.raises(NotConfiguredError, match=r"set DATABASE_URL \(environment\)"):
        async with client_of(make_app({})):
            pytest.fail("it has started")


async def test_the_service_is_tested_without_a_server() -> None:
    """A service that is handed factories is tested with others: here, in memory and recorded."""
    async with AsyncInMemorySessionFactory(Base.metadata) as memory:
        sessions = AsyncRecordingSessionFactory(memory)
        links = Links(sessions, sessions.reader)
        code = await links.shorten(TARGET)
        assert await links.follow(code) == TARGET
        assert await links.follow("nowhere") is None
        (link,) = await links.most_followed()
        assert (link.code, link.followed) == (code, 1)
        assert sessions.recording.commits == 3, sessions.recording
