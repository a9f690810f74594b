"""A savepoint of a rollback fake: what is done in its block is undone, what was before stays."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory.testing import (
    ConnectionLostError,
    InterleavedTransactionsError,
    NotUndoneError,
    SessionLeftOpenError,
)
from tests.support.rollback_cases import NAMES, Case, Database, Item, database

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import MariaDBServer, PostgresServer

pytestmark = pytest.mark.asyncio

CASES = [
    *("sqlite ours", "sqlite async", "postgresql ours", "postgresql async psycopg"),
    *("postgresql async", "mysql ours", "mysql async"),
]


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Generator[Database]:
    file = tmp_path_factory.mktemp("savepoints") / "app.db"
    urls = {"look": f"sqlite:///{file}", "ours": f"sqlite:///{file}"}
    with database("sqlite", {**urls, "async": f"sqlite+aiosqlite:///{file}"}) as made:
        yield made


@pytest.fixture(scope="module")
def postgresql(postgres_server: PostgresServer) -> Generator[Database]:
    urls = dict.fromkeys(("look", "ours", "async psycopg"), postgres_server.url_for("psycopg"))
    with database("postgresql", {**urls, "async": postgres_server.url_for("asyncpg")}) as made:
        yield made


@pytest.fixture(scope="module")
def mysql(mariadb_server: MariaDBServer) -> Generator[Database]:
    urls = dict.fromkeys(("look", "ours"), mariadb_server.url_for("pymysql"))
    with database("mysql", {**urls, "async": mariadb_server.url_for("aiomysql")}) as made:
        yield made


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    backend, _, kind = request.param.partition(" ")
    return Case(request.getfixturevalue(backend), kind)


async def names(fake: Any) -> list[str]:
    """Return the names that the sessions of a fake see."""
    async with fake() as session:
        return list(await session.scalars(NAMES))


async def add(fake: Any, name: str) -> None:
    """Commit a row."""
    async with fake.begin() as session:
        session.add(Item(name=name))


async def test_each_block_starts_from_what_was_there_before(case: Case) -> None:
    """The rows of a module's fixture are there in each block; a block's own are undone."""
    async with case.fake() as fake:
        await add(fake, "shop")
        for _ in range(2):
            async with fake.savepoint():
                await add(fake, "user")
                assert await names(fake) == ["shop", "user"]
            assert await names(fake) == ["shop"]
    assert case.database.names() == []


async def test_blocks_nest(case: Case) -> None:
    """An inner block undoes its own work only, also when it raises."""
    async with case.fake() as fake, fake.savepoint():
        await add(fake, "outer")
        with pytest.raises(LookupError):
            async with fake.savepoint():
                await add(fake, "inner")
                raise LookupError
        assert await names(fake) == ["outer"]


async def test_a_transaction_that_began_before_does_not_end_in_a_block(case: Case) -> None:
    """Its commit would take the savepoint along: it is refused, and works after the block."""
    async with case.fake() as fake, fake() as session:
        session.add(Item(name="shop"))
        await session.flush()
        async with fake.savepoint():
            with pytest.raises(InterleavedTransactionsError, match="savepoint of the rollback"):
                await session.commit()
            assert await names(fake) == ["shop"]
        await session.commit()
        assert await names(fake) == ["shop"]


async def test_an_earlier_session_is_rolled_back_with_the_block(case: Case) -> None:
    """A session of the module may read and write in a test; what it began there is undone."""
    async with case.fake() as fake, fake() as session:
        await add(fake, "shop")
        async with fake.savepoint():
            session.add(Item(name="user"))
            await session.flush()
        assert list(await session.scalars(NAMES)) == ["shop"]


async def test_a_session_left_open_in_a_block_is_reported(case: Case) -> None:
    """The error names it, its work is undone, and the next block is not affected."""
    async with case.fake() as fake:
        await add(fake, "shop")
        with pytest.raises(SessionLeftOpenError, match="opened at"):
            async with fake.savepoint():
                session = fake()
                session.add(Item(name="user"))
                await session.flush()
        async with fake.savepoint():
            assert await names(fake) == ["shop"]


async def test_sessions_with_open_savepoints_are_unwound(case: Case) -> None:
    """Transactions of two sessions that are left open, one within the other, are all undone."""
    async with case.fake() as fake, fake() as earlier:
        with pytest.raises(SessionLeftOpenError):
            async with fake.savepoint():
                earlier.add(Item(name="earlier"))
                await earlier.flush()
                later = fake()
                later.add(Item(name="later"))
                await later.flush()
                await _begin_nested(earlier)
                earlier.add(Item(name="nested"))
                await earlier.flush()
        assert await names(fake) == []
        await add(fake, "usable")
        assert await names(fake) == ["usable"]


async def _begin_nested(session: Any) -> None:
    begun = session.begin_nested()
    await begun.__aenter__()


async def test_a_rollback_in_sql_is_reported(case: Case) -> None:
    """A test that ends the one transaction by SQL fails at its own end, and the module's too."""
    reported = (NotUndoneError, ConnectionLostError)
    with pytest.raises(reported):
        async with case.fake() as fake:
            await add(fake, "shop")
            with pytest.raises(reported):
                async with fake.savepoint():
                    session = fake()
                    await session.execute(text("ROLLBACK"))
                    with suppress(DBAPIError):  # its own savepoint is gone
                        await session.close()


async def test_a_block_after_the_end_of_the_fake_is_no_error(case: Case) -> None:
    """A savepoint whose fake has ended meanwhile has nothing to undo."""
    async with case.fake() as fake:
        savepoint = fake.savepoint()
        await savepoint.__aenter__()
    await savepoint.__aexit__(None, None, None)
