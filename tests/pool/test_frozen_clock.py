"""A clock that a test has stopped stops no wait of a pool, and no close."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

ONE = text("SELECT 1")


@pytest.fixture
def settings(postgres_server: PostgresServer) -> DatabaseSettings:
    pool = PoolSettings(size=1, max_overflow=0, timeout=0.1)
    return DatabaseSettings(postgres_server.url, pool=pool)


def freeze(patch: pytest.MonkeyPatch) -> None:
    """Stop the clocks, in the way of the tools that do so: they replace the functions."""
    for name in ("time", "monotonic", "perf_counter"):
        patch.setattr(time, name, lambda: 1_000_000.0)


def test_close(settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is left open is cut off, and a checkout meets its deadline."""
    factory = SqlAlchemySessionFactory(settings)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with factory() as session:
            session.execute(ONE)
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    with monkeypatch.context() as patch:
        freeze(patch)
        with factory() as session, pytest.raises(SqlAlchemyTimeoutError):
            session.execute(ONE)
        assert len(factory.close(timeout=0.1)) == 1
    done.set()
    holder.join(30)


def test_aclose(settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a task's, where the event loop's own clock goes on."""
    goes_on = time.monotonic

    async def main() -> None:
        factory = AsyncSqlAlchemySessionFactory(settings)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", goes_on)
        held = asyncio.Event()

        async def hold() -> None:
            async with factory() as session:
                await session.execute(ONE)
                held.set()
                await asyncio.sleep(60)

        holder = asyncio.create_task(hold())
        await held.wait()
        with monkeypatch.context() as patch:
            freeze(patch)
            assert len(await factory.aclose(timeout=0.1)) == 1
        holder.cancel()
        await asyncio.wait([holder])

    asyncio.run(main())
