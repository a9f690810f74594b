"""A thousand tests with a rollback fake on one factory, as a user's suite has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy.exc import IntegrityError

from sessionfactory.testing import InterleavedTransactionsError, SessionLeftOpenError
from tests.support.observe import until
from tests.support.rollback_cases import COUNT, Case, Item, database

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.rollback_cases import Database

pytestmark = pytest.mark.asyncio

TESTS: Final = 1000
LOOK: Final = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql"}
SERVERS: Final = {"postgresql": "postgres_server", "mysql": "mariadb_server"}
CASES: Final = [
    ("sqlite", "ours", "pysqlite"),
    ("sqlite", "engine", "pysqlite"),
    ("sqlite", "async", "aiosqlite"),
    ("postgresql", "ours", "psycopg"),
    ("postgresql", "async", "psycopg"),
    ("postgresql", "async", "asyncpg"),
    ("mysql", "ours", "pymysql"),
    ("mysql", "async", "aiomysql"),
]


@pytest.fixture(params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Case]:
    backend, kind, driver = request.param

    def url(driver: str) -> str:
        if backend == "sqlite":
            return f"sqlite+{driver}:///{tmp_path / 'app.db'}"
        server = request.getfixturevalue(SERVERS[backend])
        return str(server.url_for(driver))

    with database(backend, {"look": url(LOOK[backend]), kind: url(driver)}) as made:
        if backend == "sqlite":  # whose log exists as long as the file is open
            with made.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = wal")
        yield Case(made, kind)


async def writes_and_reads(fake: Any) -> None:
    async with fake.begin() as session:
        session.add(Item(name="ada"))
        session.add(Item(name="bob"))
    async with fake() as session:
        assert await session.scalar(COUNT) == 2


async def fails(fake: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with fake.begin() as session:
            session.add(Item(name="ada"))
            await session.flush()
            _ = 1 / 0


async def violates(fake: Any) -> None:
    await writes_and_reads(fake)
    with pytest.raises(IntegrityError):
        async with fake.begin() as session:
            session.add(Item(name="ada"))
    async with fake() as session:
        assert await session.scalar(COUNT) == 2


async def interleaves(fake: Any) -> None:
    earlier, later = fake(), fake()
    for session in (earlier, later):
        session.add(Item(name=str(id(session))))
        await session.flush()
    with pytest.raises(InterleavedTransactionsError):
        await earlier.commit()
    await later.commit()
    await earlier.commit()
    for session in (earlier, later):
        await session.close()


async def forgets_to_close(fake: Any) -> None:
    session = fake()
    session.add(Item(name="ada"))
    await session.flush()


BODIES: Final = (writes_and_reads, fails, violates, interleaves, forgets_to_close)


async def test_a_thousand_tests_leave_nothing(case: Case) -> None:
    """No row, no open connection, and no back-end that is idle in a transaction, is left."""
    async with case.real() as real:
        for number in range(TESTS):
            body = BODIES[number % len(BODIES)]
            try:
                async with case.fake_over(real) as fake:
                    await body(fake)
            except SessionLeftOpenError:
                assert body is forgets_to_close
            else:
                assert body is not forgets_to_close
        case.expect_nothing_left()
        assert case.database.names() == []
        assert connections(case.database) == 1  # the pool's own, which is idle
    until(lambda: not connections(case.database))


def connections(database: Database) -> int:
    """Count the connections that others have open; to a file, whether there is any."""
    engine = database.engine
    if database.backend == "sqlite":
        engine.dispose()
        return int(Path(f"{engine.url.database}-wal").exists())  # the last to close removes it
    queries = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist"
        " WHERE user = 'root' AND id <> connection_id()",
    }
    with engine.connect() as connection:
        found: int = connection.exec_driver_sql(queries[database.backend]).scalar_one()
    return found
