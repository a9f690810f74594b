"""An event loop that ends in the midst of a COMMIT waits for it."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, commit_outcome
from tests.support.held_commits import Control, Ended

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import MariaDBServer, PostgresServer


@pytest.fixture(params=["psycopg", "asyncpg", "aiomysql"])
def control(request: pytest.FixtureRequest) -> Generator[Control]:
    """A server with each asynchronous driver in turn."""
    name = "mariadb_server" if request.param == "aiomysql" else "postgres_server"
    server: PostgresServer | MariaDBServer = request.getfixturevalue(name)
    made = Control(server.url_for(driver=request.param))
    yield made
    made.close()


async def write(factory: AsyncSqlAlchemySessionFactory) -> None:
    async with factory.begin() as session:
        session.add(Ended(id=1))


async def close(factory: AsyncSqlAlchemySessionFactory) -> None:
    assert factory.status().in_use == 0
    await factory.aclose()


def test_main_is_over(control: Control) -> None:
    """``asyncio.run`` cancels every task at its end; a COMMIT is finished, and its caller told."""
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(control.url))
    outcomes: list[str | None] = []
    release = threading.Timer(0.1, control.release)

    async def work() -> None:
        try:
            await write(factory)
        except asyncio.CancelledError as error:
            outcomes.append(commit_outcome(error))
            raise

    async def main() -> asyncio.Task[None]:
        control.hold_commits_of(factory)
        task = asyncio.create_task(work())
        await control.until_held_up()
        release.start()
        return task

    asyncio.run(main())
    release.join()
    asyncio.run(close(factory))
    if outcomes == ["uncertain"] and control.url.get_driver_name() == "psycopg":
        # psycopg before 3.3 waits in tasks of its own, which the loop cancels, too.
        assert tuple(map(int, psycopg.__version__.split(".")[:2])) < (3, 3)
    else:
        assert (outcomes, control.rows()) == (["committed"], [1])


def test_interrupt(control: Control) -> None:
    """Control-C says what became of the COMMIT, too."""
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(control.url))

    async def interrupt() -> None:
        await control.until_held_up()
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0.05)
        control.release()

    async def main() -> None:
        control.hold_commits_of(factory)
        interrupting = asyncio.create_task(interrupt())
        await write(factory)
        await interrupting

    with pytest.raises(KeyboardInterrupt) as caught:
        asyncio.run(main())
    assert commit_outcome(caught.value) == "committed"
    assert control.rows() == [1]
    asyncio.run(close(factory))
