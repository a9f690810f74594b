"""What both rollback fakes promise, on every database and driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from sessionfactory.testing.rollback._shared_connection import (
    ConnectionLostError,
    InterleavedTransactionsError,
    NotUndoneError,
    SessionLeftOpenError,
)
from tests.support.rollback_cases import COUNT, NAMES, Case, Database, Item, database

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sessionfactory.testing import MariaDBServer, PostgresServer

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Generator[Database]:
    file: Path = tmp_path_factory.mktemp("rollback") / "app.db"
    sync = dict.fromkeys(("look", "ours", "engine", "sessionmaker"), f"sqlite:///{file}")
    with database("sqlite", {**sync, "async": f"sqlite+aiosqlite:///{file}"}) as made:
        yield made


@pytest.fixture(scope="module")
def postgresql(postgres_server: PostgresServer) -> Generator[Database]:
    server = postgres_server
    sync = dict.fromkeys(("look", "ours", "sessionmaker"), server.url_for("psycopg"))
    urls = {"async psycopg": server.url_for("psycopg"), "async": server.url_for("asyncpg")}
    with database("postgresql", {**sync, **urls}) as made:
        yield made


@pytest.fixture(scope="module")
def mysql(mariadb_server: MariaDBServer) -> Generator[Database]:
    server = mariadb_server
    sync = dict.fromkeys(("look", "ours"), server.url_for("pymysql"))
    with database("mysql", {**sync, "async": server.url_for("aiomysql")}) as made:
        yield made


CASES = [
    *("sqlite ours", "sqlite engine", "sqlite sessionmaker", "sqlite async"),
    *("postgresql ours", "postgresql sessionmaker", "postgresql async psycopg"),
    *("postgresql async", "mysql ours", "mysql async"),
]
SERVERS = [case for case in CASES if not case.startswith("sqlite")]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Generator[Case]:
    backend, _, kind = request.param.partition(" ")
    made = Case(request.getfixturevalue(backend), kind)
    yield made
    with made.database.engine.begin() as connection:
        connection.execute(delete(Item))


async def names(fake: Any) -> list[str]:
    async with fake() as session:
        found: list[str] = list((await session.scalars(NAMES)).all())
        return found


async def test_everything_is_undone_commits_included(case: Case) -> None:
    """What sessions committed is seen by later ones, and by no other connection, ever."""
    async with case.fake() as fake:
        async with fake.begin() as session:
            session.add(Item(name="scope"))
        async with fake() as session:
            session.add(Item(name="session"))
            await session.commit()
            await session.execute(insert(Item), [{"name": "bulk"}, {"name": "core"}])
            await session.commit()
        async with fake.begin() as session:
            await session.execute(update(Item).where(Item.name == "core").values(name="changed"))

        assert await names(fake) == ["bulk", "changed", "scope", "session"]
        if case.kind != "ours" or case.database.backend != "sqlite":
            assert case.database.names() == []
    assert case.database.names() == []


async def test_a_rollback_undoes_what_came_after_the_commit(case: Case) -> None:
    """A rollback goes back to the session's last commit, and no further."""
    async with case.fake() as fake:
        async with fake() as session:
            session.add(Item(name="kept"))
            await session.commit()
            session.add(Item(name="dropped"))
            await session.flush()
            await session.rollback()
            assert await session.scalar(COUNT) == 1
        with pytest.raises(ZeroDivisionError):
            async with fake.begin() as session:
                session.add(Item(name="failed"))
                await session.flush()
                _ = 1 / 0

        assert await names(fake) == ["kept"]


async def test_savepoints_of_a_session_work(case: Case) -> None:
    """A savepoint inside a session's transaction can be rolled back by itself."""
    async with case.fake() as fake:
        async with fake.begin() as session:
            session.add(Item(name="outer"))
            async with session.begin_nested():
                session.add(Item(name="inner"))
            with pytest.raises(ZeroDivisionError):
                async with session.begin_nested():
                    session.add(Item(name="dropped"))
                    await session.flush()
                    _ = 1 / 0

        assert await names(fake) == ["inner", "outer"]


async def test_a_failed_flush_leaves_the_others_usable(case: Case) -> None:
    """An error in one session's transaction is not one for the transaction around it."""
    async with case.fake() as fake:
        async with fake() as outer:
            outer.add(Item(name="ada"))
            await outer.flush()
            with pytest.raises(IntegrityError):
                async with fake.begin() as inner:
                    inner.add(Item(name="ada"))
            with pytest.raises(IntegrityError):
                async with outer.begin_nested():
                    outer.add(Item(name="ada"))
                    await outer.flush()
            outer.add(Item(name="bob"))
            await outer.commit()

        assert await names(fake) == ["ada", "bob"]


async def test_a_commit_after_an_error_leaves_the_next_session_usable(case: Case) -> None:
    """PostgreSQL lets nothing be committed after an error; what comes later is not affected."""
    async with case.fake() as fake:
        async with fake() as session:
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT missing FROM nowhere"))
            if case.database.backend == "postgresql":
                with pytest.raises(DBAPIError, match="aborted"):
                    await session.commit()
        async with fake.begin() as session:
            session.add(Item(name="next"))

        assert await names(fake) == ["next"]


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_an_earlier_transaction_does_not_end_before_a_later_one(case: Case, end: str) -> None:
    """Each way to end it is refused, changes nothing, and works once the later one has ended."""
    async with case.fake() as fake:
        earlier, later = fake(), fake()
        earlier.add(Item(name="earlier"))
        await earlier.flush()
        later.add(Item(name="later"))
        await later.flush()
        with pytest.raises(InterleavedTransactionsError, match="began later and is still open"):
            await getattr(earlier, end)()
        earlier.add(Item(name="more"))
        await earlier.flush()
        await later.commit()
        await later.close()
        await getattr(earlier, end)()
        await earlier.close()

        assert await names(fake) == (["earlier", "later", "more"] if end == "commit" else [])


async def test_a_savepoint_does_not_end_before_a_later_transaction(case: Case) -> None:
    """The order holds for savepoints inside sessions as well, in both directions."""
    async with case.fake() as fake:
        one, two = fake(), fake()
        first = one.begin_nested()
        await first.__aenter__()
        await one.execute(insert(Item), [{"name": "one"}])
        await two.execute(insert(Item), [{"name": "two"}])
        second = one.begin_nested()
        await second.__aenter__()
        await one.execute(insert(Item), [{"name": "three"}])
        for end in (first.commit, two.commit, one.commit):
            with pytest.raises(InterleavedTransactionsError):
                await end()
        await second.commit()
        await two.commit()
        await one.commit()
        await one.close()
        await two.close()

        assert await names(fake) == ["one", "three", "two"]


async def test_a_scope_that_could_not_end_is_rolled_back_later(case: Case) -> None:
    """When the session in its way ends, a dropped scope is closed."""
    async with case.fake() as fake:
        other = fake()
        with pytest.raises(InterleavedTransactionsError):
            async with fake.begin() as session:
                session.add(Item(name="scope"))
                await session.flush()
                await other.execute(insert(Item), [{"name": "other"}])
        await other.commit()
        await other.close()

        assert await names(fake) == []


async def test_a_flush_that_fails_under_a_later_transaction_is_told(case: Case) -> None:
    """Its rollback would take the later one with it; ended in order, all can be used again."""
    async with case.fake() as fake:
        async with fake.begin() as session:
            session.add(Item(name="ada"))
        earlier, later = fake(), fake()
        await earlier.execute(insert(Item), [{"name": "bob"}])
        await later.execute(insert(Item), [{"name": "eve"}])
        earlier.add(Item(name="ada"))
        with pytest.raises(InterleavedTransactionsError) as caught:
            await earlier.flush()
        assert isinstance(caught.value.__context__, IntegrityError)
        await later.close()
        await earlier.close()

        assert await names(fake) == ["ada"]


async def test_a_session_left_open_is_told_and_undone(case: Case) -> None:
    """The block's end names the place where the session was opened, after undoing its work."""
    with pytest.raises(SessionLeftOpenError, match=r"opened at:\n  - .*test.*\.py:\d+ in "):
        async with case.fake() as fake:
            left = fake()
            await left.execute(insert(Item), [{"name": "left"}])

    assert case.database.names() == []


async def test_a_connection_closed_under_the_fake_is_told(case: Case) -> None:
    """What is done next says what happened, and so does the end of the block."""
    with pytest.raises(ConnectionLostError, match="was closed"):
        async with case.fake() as fake:
            async with fake.begin() as session:
                session.add(Item(name="undone"))
            async with fake() as session:
                await (await session.connection()).close()
                with pytest.raises(ConnectionLostError, match="was closed"):
                    await session.execute(NAMES)
            with pytest.raises(ConnectionLostError, match="was closed"):
                await names(fake)

    assert case.database.names() == []


async def test_a_connection_closed_in_a_transaction_is_told(case: Case) -> None:
    """The scope in which it was closed cannot commit, and says so without further noise."""
    with pytest.raises(ConnectionLostError, match="was closed"):
        async with case.fake() as fake:
            with pytest.raises(ConnectionLostError, match="was closed"):
                async with fake.begin() as session:
                    session.add(Item(name="undone"))
                    await (await session.connection()).close()

    assert case.database.names() == []


@pytest.mark.parametrize("how", ["invalidate", "rollback"])
async def test_a_connection_invalidated_under_the_fake_is_told(case: Case, how: str) -> None:
    """A session's commit that can no longer come true says so."""
    with pytest.raises(ConnectionLostError, match=r"invalidated|rolled back past"):
        async with case.fake() as fake, fake() as session:
            await session.execute(insert(Item), [{"name": "undone"}])
            await getattr(await session.connection(), how)()
            with pytest.raises(ConnectionLostError):
                await session.commit()

    assert case.database.names() == []


async def test_an_invalidated_session_is_told(case: Case) -> None:
    """``Session.invalidate`` gives up the connection of all."""
    with pytest.raises(ConnectionLostError, match="lost or invalidated"):
        async with case.fake() as fake:
            session = fake()
            await session.execute(insert(Item), [{"name": "undone"}])
            await session.invalidate()

    assert case.database.names() == []


@pytest.mark.parametrize("case", SERVERS, indirect=True)
@pytest.mark.parametrize("noticed", [True, False])
async def test_a_connection_killed_under_the_fake_is_told(case: Case, noticed: bool) -> None:  # noqa: FBT001
    """The driver's error gets the explanation as a note; a kill unnoticed is told at the end."""
    which = "pg_backend_pid()" if case.database.backend == "postgresql" else "connection_id()"
    with pytest.raises(DBAPIError if noticed else ConnectionLostError) as caught:
        async with case.fake() as fake:
            async with fake.begin() as session:
                session.add(Item(name="undone"))
                await session.flush()
                number = await session.scalar(text(f"SELECT {which}"))
            case.database.kill(number)
            if noticed:
                await names(fake)

    told = caught.value.__notes__[0] if noticed else str(caught.value)
    assert "was lost or invalidated" in told
    assert case.database.names() == []


async def test_a_commit_in_sql_is_told(case: Case) -> None:
    """What was committed past the sessions cannot be undone, and the block's end says so."""
    with pytest.raises(NotUndoneError, match="by a COMMIT or ROLLBACK in SQL"):
        async with case.fake() as fake:
            session = fake()
            await session.execute(insert(Item), [{"name": "committed"}])
            connection = await session.connection()
            await connection.exec_driver_sql("COMMIT")
            with pytest.raises(DBAPIError):
                await session.commit()
            await session.close()

    assert case.database.names() == ["committed"]


@pytest.mark.parametrize("case", ["mysql ours", "mysql async"], indirect=True)
async def test_statements_that_commit_by_themselves_are_told(case: Case) -> None:
    """MariaDB commits before DDL; the error at the block's end says what did it."""
    with pytest.raises(NotUndoneError, match="as CREATE, ALTER, DROP and TRUNCATE do on MariaDB"):
        async with case.fake() as fake:
            async with fake.begin() as session:
                session.add(Item(name="committed"))
            async with fake() as session:
                await session.execute(text("CREATE TEMPORARY TABLE no_commit (a int)"))
                await session.execute(text("CREATE OR REPLACE TABLE made (a int)"))
                await session.execute(text("DROP TABLE made"))
                with pytest.raises(DBAPIError):
                    await session.commit()

    assert case.database.names() == ["committed"]


async def test_the_connection_itself_cannot_be_committed(case: Case) -> None:
    """A commit past the session is refused before anything happens."""
    async with case.fake() as fake, fake() as session:
        await session.execute(insert(Item), [{"name": "undone"}])
        with pytest.raises(NotUndoneError, match="Commit the session"):
            await (await session.connection()).commit()

    assert case.database.names() == []


async def test_an_error_of_the_block_is_the_one_that_is_raised(case: Case) -> None:
    """A test that fails with sessions open fails with its own error, and is undone."""
    with pytest.raises(ZeroDivisionError) as caught:
        async with case.fake() as fake:
            session = fake()
            await session.execute(insert(Item), [{"name": "undone"}])
            _ = 1 / 0

    assert not hasattr(caught.value, "__notes__")
    assert case.database.names() == []


async def test_many_scopes_leave_nothing(case: Case) -> None:
    """Sixty scopes leave no row, no connection and no transaction."""
    async with case.fake() as fake:
        for number in range(60):
            async with fake.begin() as session:
                session.add(Item(name=str(number)))
        async with fake() as session:
            assert await session.scalar(COUNT) == 60

    assert case.database.names() == []
