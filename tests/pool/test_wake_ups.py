"""anyio cancels again and again; who waits for a transaction to end sleeps on all the same."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

import anyio
import pytest

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, commit_outcome
from sessionfactory.testing import FaultProxy
from tests.support.held_commits import Control, Ended, until_sent

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import MariaDBServer, PostgresServer

LATENCY = 0.4
FEW = 40
"""A driver may look around now and then; a busy loop comes to some ten thousand."""


class CountingSelector(selectors.DefaultSelector):
    """Counts how often an event loop goes round."""

    rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Count."""
        self.rounds += 1
        return super().select(timeout)


@pytest.fixture(params=["psycopg", "asyncpg", "aiomysql"])
def proxy(request: pytest.FixtureRequest) -> Generator[FaultProxy]:
    """A slow line to a server, for each asynchronous driver."""
    name = "mariadb_server" if request.param == "aiomysql" else "postgres_server"
    server: PostgresServer | MariaDBServer = request.getfixturevalue(name)
    url = server.url_for(driver=request.param)
    Control(url).close()  # makes the table
    with FaultProxy(url) as made:
        yield made


@pytest.mark.parametrize("outcome", ["committed", None])
def test_wake_ups(proxy: FaultProxy, outcome: str | None) -> None:
    """A slow COMMIT, or a slow ROLLBACK, in a scope that was cancelled is waited for asleep."""
    selector, told = CountingSelector(), list[str | None]()

    async def write(
        factory: AsyncSqlAlchemySessionFactory, scope: anyio.CancelScope, ready: asyncio.Event
    ) -> None:
        with scope:
            try:
                async with factory.begin() as session:
                    session.add(Ended(id=1))
                    await session.flush()
                    proxy.latency = LATENCY
                    if outcome is None:
                        ready.set()
                        await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                told.append(commit_outcome(error))
                raise

    async def measure() -> int:
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(proxy.url)) as factory:
            scope, ready = anyio.CancelScope(), asyncio.Event()
            task = asyncio.create_task(write(factory, scope, ready))
            await (ready.wait() if outcome is None else until_sent())
            rounds = selector.rounds
            scope.cancel()
            await task
            return selector.rounds - rounds

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert runner.run(measure()) < FEW
    assert told == [outcome]
