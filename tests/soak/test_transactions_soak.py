"""The long forms of what ``tests/transactions`` proves: 0 duplicated, 0 lost, many times over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from examples.transfers.models import Base
from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
    run_in_transaction,
    run_in_transaction_async,
)
from sessionfactory.testing import FaultProxy
from tests.support.histories import SOON, TABLE, WRITE, History, move_money, write_through_crashes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy.ext.asyncio import AsyncSession

    from sessionfactory.testing import PostgresServer
    from sessionfactory.testing.proxy._trigger import When
    from sessionfactory.transactions.verification.watch import Verification

TIMES = 100
CRASHES = 12
TRANSFERS = 2_000
POOL = PoolSettings(size=6, max_overflow=0)


@pytest.fixture
def server(own_postgres: PostgresServer) -> Generator[PostgresServer]:
    """A server of one's own, with an empty table of tokens."""
    own_postgres.execute(TABLE)
    yield own_postgres
    own_postgres.execute("DROP TABLE IF EXISTS history, sessionfactory_commit")


@pytest.mark.parametrize("verify_commit", ["status", "marker"])
@pytest.mark.parametrize("when", ["before", "after", "late"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_cut_commits(
    driver: str, when: When, verify_commit: Verification, server: PostgresServer
) -> None:
    """A hundred COMMITs are cut: nothing is duplicated, lost, or uncertain."""
    history = History()
    with FaultProxy(server.url) as proxy:
        settings = DatabaseSettings(make_url(proxy.url).set(drivername=f"postgresql+{driver}"))
        with SqlAlchemySessionFactory(settings) as factory:
            run_in_transaction(factory, lambda _: None)
            for number in range(TIMES):
                cut = proxy.cut(when, "COMMIT", delay=0.01 if when == "late" else None)
                history.write(
                    f"{number}",
                    lambda work: run_in_transaction(factory, work, verify_commit=verify_commit),
                )
                assert cut.fired
                if when == "late":
                    cut.wait_delivered()
    assert history.faults(server) == ([], set(), set())
    assert (len(history.done), history.uncertain) == (TIMES, set())


@pytest.mark.parametrize("verify_commit", ["status", "marker"])
@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_cut_commits_async(when: When, verify_commit: Verification, server: PostgresServer) -> None:
    """The same with asyncpg."""
    history = History()

    async def main() -> None:
        with FaultProxy(server.url) as proxy:
            settings = DatabaseSettings(make_url(proxy.url).set(drivername="postgresql+asyncpg"))
            async with AsyncSqlAlchemySessionFactory(settings) as factory:
                for number in range(TIMES):
                    cut = proxy.cut(when, "COMMIT", delay=0.01 if when == "late" else None)

                    async def work(session: AsyncSession, number: int = number) -> None:
                        await session.execute(WRITE, {"token": str(number)})

                    await run_in_transaction_async(factory, work, verify_commit=verify_commit)
                    history.done.add(str(number))
                    assert cut.fired
                    if when == "late":
                        cut.wait_delivered()

    asyncio.run(main())
    assert history.faults(server) == ([], set(), set())
    assert len(history.done) == TIMES


@pytest.mark.parametrize("verify_commit", ["status", "marker"])
def test_crashes(
    verify_commit: Verification,
    server: PostgresServer,
    record_property: Callable[[str, object], None],
) -> None:
    """Twelve crashes under six writers: 0 duplicated, 0 lost; with markers, 0 uncertain."""
    with SqlAlchemySessionFactory(DatabaseSettings(server.url, pool=POOL)) as factory:
        history = write_through_crashes(factory, server, CRASHES, verify_commit=verify_commit)
    record_property("done", len(history.done))
    record_property("uncertain", len(history.uncertain))
    assert history.faults(server) == ([], set(), set())
    assert verify_commit == "status" or not history.uncertain


def test_transfers(server: PostgresServer) -> None:
    """Two thousand transfers under random faults: the sum exact, nothing twice, nothing lost."""
    with (
        FaultProxy(server.url) as proxy,
        SqlAlchemySessionFactory(
            DatabaseSettings(proxy.url.update_query_dict(SOON), pool=POOL)
        ) as factory,
    ):
        Base.metadata.create_all(factory.engine)
        try:
            bank, done = move_money(factory, proxy, server, TRANSFERS)
            books = bank.books()
            assert books.total == 4 * 1000
            assert books.references == dict.fromkeys(done, 1)
        finally:
            proxy.restore()
            Base.metadata.drop_all(factory.engine)
