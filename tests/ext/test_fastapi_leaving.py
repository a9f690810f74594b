"""FastAPI under 200 clients, a third of which disconnect half-way."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, cast

import pytest

from sessionfactory.ext.starlette import async_registry_of, registry_of
from tests.support.leaving_clients import CLIENTS, Base, make_app, storm
from tests.support.serving import PATIENCE, serving

if TYPE_CHECKING:
    from collections.abc import Generator

    from fastapi import FastAPI

    from sessionfactory import PoolStatus
    from sessionfactory.testing import PostgresServer

OURS: Final = ("sessionfactory", "sqlalchemy", "asyncio", "uvicorn", "psycopg")


@pytest.fixture
def tables(postgres_server: PostgresServer) -> Generator[None]:
    """The table of the service."""
    postgres_server.execute(
        "CREATE TABLE ext_half (number int, side int, PRIMARY KEY (number, side))"
    )
    assert list(Base.metadata.tables) == ["ext_half"]
    yield
    postgres_server.execute("DROP TABLE ext_half")


def status_of(app: FastAPI, half: str) -> PoolStatus:
    """Return what the pool holds."""
    registry = registry_of(app) if half == "sync" else async_registry_of(app)
    return registry.status()["default"]


def wait_until_all_are_back(app: FastAPI, half: str) -> PoolStatus:
    """Wait until the last request of a client that left has ended."""
    deadline = time.monotonic() + PATIENCE
    while (status := status_of(app, half)).in_use and time.monotonic() < deadline:
        time.sleep(0.02)
    return status


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("half", ["sync", "async"])
def test_clients_that_leave_cost_nothing(
    half: str, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No connection is lost, no row is half written, and nothing is in the log that is ours."""
    app = make_app(half, postgres_server.url)
    with caplog.at_level(logging.WARNING), serving(app) as port:
        told = asyncio.run(storm(port))
        status = wait_until_all_are_back(app, half)
        assert status.in_use == 0, status
        if half == "sync":
            take_all(app, cast("int", status.limit))

    assert told.left == (CLIENTS + 2) // 3
    assert told.statuses == {"200", "201"}
    halves = postgres_server.execute(
        "SELECT number FROM ext_half GROUP BY number HAVING count(*) <> 2"
    )
    assert halves.split() == []
    saved = set(map(int, postgres_server.execute("SELECT number FROM ext_half").split()))
    assert told.created <= saved
    assert [record for record in caplog.records if record.name.startswith(OURS)] == []


def take_all(app: FastAPI, limit: int) -> None:
    """Take every connection that the pool may have."""
    sessions = registry_of(app).get()
    with ExitStack() as stack:
        for _ in range(limit):
            stack.enter_context(sessions()).connection()
