"""Cancellation, and what runs after a commit: of one that happened, all of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionfactory import (
    AfterCommitError,
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    commit_outcome,
    on_commit,
)
from tests.support.held_commits import Control, Ended, cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.testing import MariaDBServer, PostgresServer

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=["psycopg", "asyncpg", "aiomysql"])
def control(request: pytest.FixtureRequest) -> Generator[Control]:
    """A server with each asynchronous driver in turn."""
    name = "mariadb_server" if request.param == "aiomysql" else "postgres_server"
    server: PostgresServer | MariaDBServer = request.getfixturevalue(name)
    made = Control(server.url_for(driver=request.param))
    yield made
    made.close()


def fail() -> None:
    raise KeyError


async def test_commit_that_happens_is_followed_by_its_callbacks(control: Control) -> None:
    """A task that is cancelled during its COMMIT, or in a callback, still runs all of them."""
    log: list[object] = []
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings(control.url)) as factory:
        go_on, reached = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await go_on.wait()
            log.append("waited")

        async def write() -> None:
            async with factory.begin() as session:
                session.add(Ended(id=1))
                on_commit(session, wait)
                on_commit(session, fail)
                on_commit(session, lambda: log.append("last"))

        control.hold_commits_of(factory)
        task = asyncio.create_task(write())
        await control.until_held_up()
        task.cancel()
        control.release()
        await reached.wait()
        task.cancel()
        assert log == []
        go_on.set()
        error = await cancelled(task)
        assert commit_outcome(error) == "committed"
        assert isinstance(error.__cause__, AfterCommitError)
        assert log == ["waited", "last"]
        assert factory.status().in_use == 0
    assert control.rows() == [1]


async def test_commit_that_is_not_sent_drops_its_callbacks(control: Control) -> None:
    """A task that is cancelled before its COMMIT is sent runs none."""
    log: list[object] = []
    add: Callable[[], None] = lambda: log.append(1)  # noqa: E731
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings(control.url)) as factory:

        async def write() -> None:
            async with factory.begin() as session:
                session.add(Ended(id=1))
                on_commit(session, add)

        control.hold_writes()
        task = asyncio.create_task(write())
        await control.until_held_up()
        task.cancel()
        error = await cancelled(task)
        assert commit_outcome(error) == "rolled back"
        control.release()
    assert log == []
    assert control.rows() == []
