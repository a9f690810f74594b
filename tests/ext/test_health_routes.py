"""Health routes: alive is not ready, the deadline holds, and strangers are shown nothing."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from sessionfactory import NullSessionFactory, SessionFactoryRegistry
from sessionfactory.ext.fastapi import health_router
from sessionfactory.ext.registries import ping
from sessionfactory.ext.starlette import health_routes, lifespan, registry_of
from tests.support.slow_items import maker

if TYPE_CHECKING:
    from pathlib import Path

HALVES: Final = ("sync", "async")


@pytest.mark.parametrize("half", HALVES)
def test_ready_and_alive(half: str) -> None:
    """A service whose database answers is both, and says nothing more."""
    app = Starlette(routes=[*health_routes()], lifespan=lifespan(maker(half, "sqlite:///:memory:")))
    with TestClient(app) as client:
        for path in ("/health/ready", "/health/live"):
            response = client.get(path)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})
            assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("half", HALVES)
def test_alive_and_not_ready(half: str, tmp_path: Path) -> None:
    """A service whose database is not there is alive; strangers do not learn why."""
    url = f"sqlite:///{tmp_path}/missing/app.db"
    routes = [
        *health_routes(),
        *health_routes(prefix="/inside", details=lambda request: "key" in request.query_params),
    ]
    with TestClient(Starlette(routes=routes, lifespan=lifespan(maker(half, url)))) as client:
        assert client.get("/health/live").status_code == 200
        response = client.get("/health/ready")
        assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
        assert client.get("/inside/ready").json() == {"status": "unavailable"}
        shown = client.get("/inside/ready?key").json()
    assert shown["databases"]["default"]["state"] == "unreachable"


def test_a_database_that_is_not_configured_is_not_ready(url: str) -> None:
    """A name that the probe asks for and that the application does not have is a 503."""
    routes = health_routes(names=["reports"], details=lambda _: True)
    with TestClient(Starlette(routes=routes, lifespan=lifespan(maker("sync", url)))) as client:
        response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["databases"]["reports"]["state"] == "unconfigured"


def test_an_application_without_databases_is_ready() -> None:
    """Where nothing is configured or required, nothing is missing."""
    nothing = lifespan(SessionFactoryRegistry, require=())
    with TestClient(Starlette(routes=health_routes(), lifespan=nothing)) as client:
        assert client.get("/health/ready").status_code == 200


def test_the_router_of_fastapi_is_not_in_its_documentation() -> None:
    """FastAPI serves the same routes, and does not list them."""
    app = FastAPI(lifespan=lifespan(maker("sync", "sqlite:///:memory:")))
    app.include_router(health_router(prefix="/-"))
    with TestClient(app) as client:
        assert client.get("/-/ready").status_code == 200
        assert client.get("/openapi.json").json()["paths"] == {}


def test_an_override_is_asked_instead(url: str) -> None:
    """Tests that replace the database probe the replacement."""
    app = Starlette(
        routes=health_routes(details=lambda _: True), lifespan=lifespan(maker("sync", url))
    )
    fake = NullSessionFactory("not today")
    with TestClient(app) as client, registry_of(app).override("default", fake):
        response = client.get("/health/ready")
    assert response.json()["databases"]["default"]["detail"] == "not today"


def test_the_deadline_holds_when_no_thread_is_free(url: str) -> None:
    """A sync ping waits for a thread; where all are busy, the probe is in time all the same."""
    release = threading.Event()

    async def probe() -> str:
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(1)
        loop.set_default_executor(threads)
        blocked = loop.run_in_executor(None, release.wait, 30)
        try:
            with SessionFactoryRegistry.from_env({"DATABASE_URL": url}) as registry:
                health = await ping(registry, None, 0.05)
        finally:
            release.set()
            await blocked
        return health["default"].state

    assert asyncio.run(probe()) == "slow"
