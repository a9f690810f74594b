"""Views whose transactions have options: in both halves, on every database, over any factory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sessionfactory import PoolSettings, ReadOnlyError, SettingsError, with_options
from sessionfactory.drivers.dialects import with_driver
from sessionfactory.testing import AsyncRollbackSessionFactory, FaultProxy
from tests.support.available import LOCK_TIMEOUT
from tests.support.awaited import Awaited, plain, sync_of
from tests.support.halves import AsyncHalf
from tests.support.places import FILES, ROOMY, SERVERS, Place, Row, ids, on

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from sqlalchemy import Connection

    from sessionfactory import AsyncSessionFactory

POSTGRES: Final = ("sync psycopg", "sync psycopg2", "async psycopg", "async asyncpg")
MARIADB: Final = ("sync pymysql", "async aiomysql")
KINDS: Final = pytest.mark.parametrize("kind", ["real", "plain"])
"""A factory of ours, whose pool is ours, and SQLAlchemy's own ``sessionmaker`` on its own."""
_BACKEND: Final = {
    "postgresql": "SELECT pg_backend_pid()",
    "mysql": "SELECT connection_id()",
    "sqlite": "SELECT 1",
}
_CLEAN: Final[dict[str, dict[str, object]]] = {
    "postgresql": {
        "SHOW transaction_isolation": "read committed",
        "SHOW transaction_read_only": "off",
        "SHOW transaction_deferrable": "off",
        "SHOW default_transaction_read_only": "off",
        "SHOW statement_timeout": "0",
        "SHOW lock_timeout": f"{LOCK_TIMEOUT}s",
        "SELECT coalesce(current_setting('app.tenant', true), '')": "",
    },
    "mysql": {
        "SELECT @@tx_read_only": 0,
        "SELECT @@tx_isolation": "REPEATABLE-READ",
        "SELECT @@max_statement_time": 0,
        "SELECT @@innodb_lock_wait_timeout": LOCK_TIMEOUT,
        "SELECT @@autocommit": 0,
    },
    "sqlite": {"PRAGMA query_only": 0},
}
LONG: Final = {
    "postgresql": "SELECT pg_sleep(600)",
    "mysql": "SELECT count(*) FROM seq_1_to_100000 a, seq_1_to_100000 b",
}


def view_of(sessions: AsyncSessionFactory, **options: Any) -> AsyncSessionFactory:
    """Return a view of a factory of either half."""
    make = cast("Callable[..., Any]", with_options)
    made = make(sync_of(sessions), **options)
    return cast("AsyncSessionFactory", Awaited(made) if isinstance(sessions, Awaited) else made)


@asynccontextmanager
async def factory(place: Place, kind: str) -> AsyncGenerator[AsyncSessionFactory]:
    """Open a factory of ours, or a plain one on an engine of SQLAlchemy's, of one connection."""
    async with place.factory(pool=PoolSettings(size=1, max_overflow=0)) as ours:
        if kind == "real":
            yield ours
            return
        is_async = isinstance(place.half, AsyncHalf)
        url = with_driver(make_url(place.url), is_async=is_async)
        make = create_async_engine if is_async else plain(create_engine)
        engine = make(url, pool_size=1, max_overflow=0)
        try:
            yield place.half.make(async_sessionmaker, engine, expire_on_commit=False)
        finally:
            await engine.dispose()


async def scalar(session: AsyncSession, sql: str) -> object:
    return await session.scalar(text(sql))


@asynccontextmanager
async def left_clean(place: Place, sessions: AsyncSessionFactory) -> AsyncGenerator[None]:
    """Require that the same back-end is as it was at its next checkouts."""
    async with sessions() as session:
        before = await scalar(session, _BACKEND[place.backend])
    yield
    async with sessions() as session:
        assert await scalar(session, _BACKEND[place.backend]) == before
        for sql, value in _CLEAN[place.backend].items():
            assert await scalar(session, sql) == value, sql


@KINDS
@on(*ROOMY)
async def test_read_only(place: Place, kind: str) -> None:
    """The database refuses what writes, on flush and in raw SQL, and reads as ever."""
    async with factory(place, kind) as sessions, left_clean(place, sessions):
        view = view_of(sessions, read_only=True)
        async with view.begin() as session:
            assert await scalar(session, "SELECT count(*) FROM contract_row") == 0
        for scope in (view, view.begin):
            with pytest.raises(ReadOnlyError, match="This transaction is read-only"):
                async with scope() as session:
                    session.add(Row(id=1))
                    await session.flush()
            with pytest.raises(ReadOnlyError):
                async with scope() as session:
                    await session.execute(text("INSERT INTO contract_row VALUES (1)"))
            with pytest.raises(ReadOnlyError):
                async with scope() as session:
                    await session.execute(text("DROP TABLE contract_row"))
            with pytest.raises(ReadOnlyError):
                async with scope() as session:
                    await session.execute(text("CREATE TABLE other (a INT)"))
                    await session.execute(text("INSERT INTO other VALUES (1)"))
        async with sessions.begin() as session:
            session.add(Row(id=1))
        assert await ids(view) == [1]


@KINDS
@pytest.mark.parametrize("level", ["SERIALIZABLE", "READ COMMITTED", "AUTOCOMMIT"])
@on(*SERVERS)
async def test_isolation_level(place: Place, kind: str, level: str) -> None:
    """Each transaction has the level that was asked for; under AUTOCOMMIT there is none."""
    shown = {"postgresql": "SHOW transaction_isolation", "mysql": "SELECT @@tx_isolation"}
    async with factory(place, kind) as sessions, left_clean(place, sessions):
        view = view_of(sessions, isolation_level=level)
        for scope in (view, view.begin):
            async with scope() as session:
                if level == "AUTOCOMMIT":
                    await session.execute(text("DELETE FROM contract_row"))
                    await session.execute(text("INSERT INTO contract_row VALUES (1)"))
                    await session.rollback()
                else:
                    told = str(await scalar(session, shown[place.backend]))
                    assert told.upper().replace("-", " ") == level
        assert await ids(sessions) == [1] * (level == "AUTOCOMMIT")


@on(*FILES)
async def test_isolation_level_of_sqlite(place: Place) -> None:
    """SQLite is always SERIALIZABLE, can do without transactions, and has no levels between."""
    async with factory(place, "real") as sessions, left_clean(place, sessions):
        async with view_of(sessions, isolation_level="SERIALIZABLE").begin() as session:
            session.add(Row(id=1))
        async with view_of(sessions, isolation_level="AUTOCOMMIT")() as session:
            await session.execute(text("INSERT INTO contract_row VALUES (2)"))
        assert await ids(sessions) == [1, 2]
        with pytest.raises(SettingsError, match="isolation_level: sqlite has SERIALIZABLE"):
            async with view_of(sessions, isolation_level="READ COMMITTED").begin() as session:
                await scalar(session, "SELECT 1")


@KINDS
@on(*ROOMY)
async def test_autocommit_that_only_reads(place: Place, kind: str) -> None:
    """Without transactions, the database refuses writes as well, and is as before afterwards."""
    async with factory(place, kind) as sessions, left_clean(place, sessions):
        view = view_of(sessions, isolation_level="AUTOCOMMIT", read_only=True)
        for _ in range(2):
            async with view() as session:
                assert await scalar(session, "SELECT count(*) FROM contract_row") == 0
                with pytest.raises(ReadOnlyError):
                    await session.execute(text("INSERT INTO contract_row VALUES (1)"))
        async with view.begin() as session:
            with pytest.raises(ReadOnlyError):
                await session.execute(text("DROP TABLE contract_row"))
        async with sessions.begin() as session:
            session.add(Row(id=1))
        assert await ids(view) == [1]


@on("sync psycopg", "sync psycopg2", "async asyncpg")
async def test_autocommit_that_only_reads_from_a_clean_state(place: Place) -> None:
    """Where the pool clears connections at each checkout, what a view needs is put there anew."""
    pool = PoolSettings(size=1, max_overflow=0, reset="state")
    async with place.factory(pool=pool) as sessions:
        view = view_of(sessions, isolation_level="AUTOCOMMIT", read_only=True)
        for _ in range(3):
            with pytest.raises(ReadOnlyError):
                async with view() as session:
                    await session.execute(text("INSERT INTO contract_row VALUES (1)"))
        async with sessions.begin() as session:
            session.add(Row(id=1))


@KINDS
@on(*POSTGRES)
async def test_read_only_whatever_a_session_asks_for(place: Place, kind: str) -> None:
    """A reader's session cannot write, and what a session sets itself is not left behind."""
    insert = text("INSERT INTO contract_row VALUES (1)")
    async with factory(place, kind) as sessions, left_clean(place, sessions):
        view = view_of(sessions, read_only=True)
        async with view() as session:
            with pytest.raises(SettingsError, match="a reader stays read-only"):
                await session.connection(execution_options={"postgresql_readonly": False})
        with pytest.raises(ReadOnlyError):
            async with view() as session:
                await session.execute(insert)
        async with sessions() as session:
            await session.connection(execution_options={"postgresql_readonly": True})
            with pytest.raises(DBAPIError, match="read-only transaction"):
                await session.execute(insert)


@on("sync psycopg", "sync psycopg2", "async asyncpg")
async def test_writing_after_reading_from_a_clean_state(place: Place) -> None:
    """What the driver keeps for a reader is taken back where the server forgets by itself."""
    async with place.factory(pool=PoolSettings(size=1, max_overflow=0, reset="state")) as sessions:
        for number in range(3):
            with pytest.raises(ReadOnlyError):
                async with cast("Any", sessions).reader() as session:
                    await session.execute(text("INSERT INTO contract_row VALUES (1)"))
            async with sessions.begin() as session:
                session.add(Row(id=number))


@KINDS
@on("sync psycopg", "async psycopg", "async asyncpg")
async def test_setting_that_cannot_be_taken_back(place: Place, kind: str) -> None:
    """A connection that breaks while a view's setting stands on it is replaced, and no error."""
    async with place.factory() as other, factory(place, kind) as sessions:
        view = view_of(sessions, isolation_level="AUTOCOMMIT", read_only=True)
        async with view() as session:
            backend = await scalar(session, "SELECT pg_backend_pid()")
            if kind == "plain":
                await kill(other, backend)
        if kind == "real":
            await kill(other, backend)
        async with sessions.begin() as session:
            session.add(Row(id=1))
            assert await scalar(session, "SELECT pg_backend_pid()") != backend


async def kill(sessions: AsyncSessionFactory, backend: object) -> None:
    """End a back-end, and wait until it is gone."""
    async with sessions() as session:
        await session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})


@on(*MARIADB)
async def test_setting_on_a_connection_that_nobody_looks_at(place: Place) -> None:
    """Without pre-ping, what stands is taken back from a dead connection by replacing it."""
    pool = PoolSettings(size=1, max_overflow=0, pre_ping=False)
    async with place.factory() as other, place.factory(pool=pool) as sessions:
        async with view_of(sessions, read_only=True)() as session:
            backend = await scalar(session, "SELECT connection_id()")
        async with other() as session:
            await session.execute(text(f"KILL {backend}"))
        async with sessions.begin() as session:
            session.add(Row(id=1))
            assert await scalar(session, "SELECT connection_id()") != backend


@KINDS
@on(*SERVERS)
async def test_timeouts(place: Place, kind: str) -> None:
    """A statement that takes too long is ended, in transactions of the view, and of no other."""
    async with factory(place, kind) as sessions, left_clean(place, sessions):
        view = view_of(sessions, statement_timeout=0.05, lock_timeout=2)
        for scope in (view, view.begin):
            with pytest.raises(DBAPIError, match=r"statement timeout|max_statement_time|interrupt"):
                async with scope() as session:
                    shown = {
                        "postgresql": "SHOW lock_timeout",
                        "mysql": "SELECT @@lock_wait_timeout",
                    }
                    assert str(await scalar(session, shown[place.backend])).rstrip("s") == "2"
                    await session.execute(text(LONG[place.backend]))


@KINDS
@on(*POSTGRES)
async def test_local_settings(place: Place, kind: str) -> None:
    """Settings hold in each transaction, savepoints too, whatever characters they are of."""
    odd = 'it\'s "7"; -- $1 :p1 \\ ü'
    current = "SELECT current_setting('app.tenant', true)"
    async with factory(place, kind) as sessions, left_clean(place, sessions):
        view = view_of(sessions, local={"app.tenant": odd}, statement_timeout=5)
        for scope in (view, view.begin):
            async with scope() as session:
                assert await scalar(session, current) == odd
                assert await scalar(session, "SHOW statement_timeout") == "5s"
                with pytest.raises(KeyError):
                    async with session.begin_nested():
                        assert await scalar(session, current) == odd
                        raise KeyError
                assert await scalar(session, current) == odd
        async with view() as session:
            assert await scalar(session, current) == odd
            await session.commit()
            assert await scalar(session, current) == odd  # in the next transaction


@on("sync psycopg", "async asyncpg")
async def test_row_level_security(place: Place) -> None:
    """A policy shows each tenant its own rows, on one connection."""
    async with factory(place, "real") as sessions:
        async with sessions.begin() as session:
            for statement in _POLICY:
                await session.execute(text(statement))
        try:
            for tenant in ("1", "2", "1"):
                view = view_of(sessions, local={"role": "guest", "app.tenant": tenant})
                assert await ids(view) == [int(tenant)]
                async with view.begin() as session:
                    await session.execute(text("UPDATE contract_row SET id = id"))
            assert await ids(sessions) == [1, 2]
        finally:
            async with sessions.begin() as session:
                for statement in _NO_POLICY:
                    await session.execute(text(statement))


_POLICY: Final = (
    "INSERT INTO contract_row VALUES (1), (2)",
    "CREATE ROLE guest",
    "GRANT SELECT, UPDATE ON contract_row TO guest",
    "ALTER TABLE contract_row ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON contract_row USING (id = current_setting('app.tenant')::int)",
)
_NO_POLICY: Final = (
    "DROP POLICY own ON contract_row",
    "ALTER TABLE contract_row DISABLE ROW LEVEL SECURITY",
    "DROP OWNED BY guest",
    "DROP ROLE guest",
)


@on(*ROOMY)
async def test_translated_schemas(place: Place) -> None:
    """Tables without a schema are looked for in another one; views of views add up."""
    there = {"postgresql": "pg_temp", "mysql": "test", "sqlite": "main"}[place.backend]
    nowhere = {"postgresql": "nowhere", "mysql": "nowhere", "sqlite": "nowhere"}[place.backend]
    async with factory(place, "real") as sessions:
        view = view_of(sessions, schema_translate_map={None: nowhere})
        with pytest.raises(DBAPIError, match="nowhere"):
            await ids(view)
        both = view_of(view, schema_translate_map={"other": there})
        with pytest.raises(DBAPIError, match="nowhere"):
            await ids(both)
        assert await ids(sessions) == []


@on(*ROOMY)
async def test_views_of_views(place: Place) -> None:
    """Options add up, in any order; the factory itself, and other views, are as they were."""
    async with factory(place, "real") as sessions, left_clean(place, sessions):
        reads = view_of(sessions, read_only=True)
        for view in (
            view_of(reads, isolation_level="SERIALIZABLE"),
            view_of(view_of(sessions, isolation_level="SERIALIZABLE"), read_only=True),
            view_of(cast("Any", sessions).reader, isolation_level="AUTOCOMMIT"),
            view_of(reads, read_only=True),
        ):
            with pytest.raises(ReadOnlyError):
                async with view() as session:
                    await session.execute(text("INSERT INTO contract_row VALUES (1)"))
        async with view_of(sessions).begin() as session:
            session.add(Row(id=1))
        async with view_of(sessions, read_only=False).begin() as session:
            session.add(Row(id=2))
        assert await ids(reads) == [1, 2]


@on("sync psycopg", "async psycopg", "async asyncpg")
async def test_deferrable(place: Place) -> None:
    """A SERIALIZABLE read may wait for a moment in which nothing can make it fail."""
    async with factory(place, "plain") as sessions, left_clean(place, sessions):
        serializable = view_of(sessions, isolation_level="SERIALIZABLE", read_only=True)
        async with view_of(serializable, deferrable=True).begin() as session:
            assert await scalar(session, "SHOW transaction_deferrable") == "on"


@on("sync psycopg", "async asyncpg", "sync file", "async file", "sync pymysql")
async def test_what_a_database_cannot_do(place: Place) -> None:
    """An option that the database cannot honour is refused, by name, and nothing stays behind."""
    unknown: dict[str, dict[str, dict[str, Any]]] = {
        "postgresql": {},
        "mysql": {
            "local": {"local": {"app.tenant": "7"}},
            "deferrable": {
                "deferrable": True,
                "read_only": True,
                "isolation_level": "SERIALIZABLE",
            },
        },
        "sqlite": {
            "local": {"local": {"app.tenant": "7"}},
            "statement_timeout": {"statement_timeout": 1},
            "lock_timeout": {"lock_timeout": 1},
        },
    }
    async with factory(place, "real") as sessions, left_clean(place, sessions):
        for name, options in unknown[place.backend].items():
            message = f"{name}: {place.backend} cannot do this for one transaction"
            with pytest.raises(SettingsError, match=message):
                async with view_of(sessions, **options).begin() as session:
                    await scalar(session, "SELECT 1")
        if place.backend == "postgresql":  # which knows its own names
            with pytest.raises(DBAPIError, match="unrecognized configuration parameter"):
                async with view_of(sessions, local={"tenant": "7"}).begin() as session:
                    await scalar(session, "SELECT 1")


class _Used:
    """A factory whose scopes have asked the database something before they are entered."""

    def __init__(self, sessions: AsyncSessionFactory) -> None:
        self._sessions = sessions

    def __call__(self) -> AsyncSession:
        return self._sessions()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        async with self._sessions.begin() as session:
            await scalar(session, "SELECT 1")
            yield session


@on("async psycopg", "async asyncpg", "async file")
async def test_sessions_that_were_used_before(place: Place) -> None:
    """A transaction that began without the options is refused, and its connection goes back."""
    async with place.factory(pool=PoolSettings(size=1, max_overflow=0)) as sessions:
        view = view_of(_Used(sessions), read_only=True)
        for _ in range(2):
            with pytest.raises(SettingsError, match="holds a connection already"):
                async with view.begin():
                    pytest.fail("it began")
        async with view() as session:  # this one is new
            assert await scalar(session, "SELECT 1") == 1


@on("sync rollback", "async rollback")
async def test_rollback_fake(place: Place) -> None:
    """Over a rollback fake a view works, in the one transaction that there is."""
    async with place.sessions() as sessions:
        view = view_of(sessions, read_only=True, isolation_level="SERIALIZABLE")
        async with view.begin() as session:
            session.add(Row(id=1))
        assert await ids(view) == [1]


@on("sync psycopg", "async asyncpg")
async def test_local_settings_over_a_rollback_fake(place: Place) -> None:
    """Settings hold in the session's transaction, and are what they were for the next session."""
    current = "SELECT coalesce(current_setting('app.tenant', true), '')"
    async with (
        place.factory() as real,
        place.half.make(AsyncRollbackSessionFactory, real) as sessions,
    ):
        view = view_of(sessions, local={"app.tenant": "7"}, statement_timeout=5)
        for scope in (view, view.begin):
            async with scope() as session:
                assert await scalar(session, current) == "7"
                async with session.begin_nested():
                    assert await scalar(session, "SHOW statement_timeout") == "5s"
                async with view_of(sessions, local={"app.tenant": "8"})() as other:
                    assert await scalar(other, current) == "8"
                assert await scalar(session, current) == "7"
            async with sessions() as session:
                assert await scalar(session, current) == ""
                assert await scalar(session, "SHOW statement_timeout") == "0"
        with pytest.raises(DBAPIError):
            async with view.begin() as session:
                await scalar(session, "SELECT 1 / 0")
        async with sessions() as session:
            assert await scalar(session, current) == ""


@pytest.mark.parametrize("way", ["close", "fail", "rollback", "break"])
@on("sync psycopg", "async psycopg")
async def test_closed_reads_end_in_commit(place: Place, way: str) -> None:
    """A read that is closed keeps psycopg's prepared statements; one that fails is rolled back."""
    ends: list[str] = []

    def note_commit(_: Connection) -> None:
        ends.append("commit")

    def note_rollback(_: Connection) -> None:
        ends.append("rollback")

    async with factory(place, "real") as sessions:
        engine = sync_of(cast("Any", sessions).engine)
        engine = getattr(engine, "sync_engine", engine)
        event.listen(engine, "commit", note_commit)
        event.listen(engine, "rollback", note_rollback)
        for view in (view_of(sessions, read_only=True), cast("Any", sessions).reader):
            ends.clear()
            async with view() as session:
                await scalar(session, "SELECT 1")
                if way == "fail":
                    with pytest.raises(DBAPIError):
                        await scalar(session, "SELECT 1 / 0")
                session.add(Row(id=1))  # pending, and never sent
                if way == "rollback":
                    await session.rollback()
                if way == "break":
                    await session.invalidate()
            assert ends == ["commit" if way == "close" else "rollback"]


@on("sync psycopg", "async psycopg", "sync psycopg2", "async asyncpg")
async def test_round_trips(place: Place) -> None:
    """Options travel with BEGIN, local settings in one statement, AUTOCOMMIT reads alone."""
    asked: dict[str, tuple[dict[str, Any], int]] = {
        "read_only": ({"read_only": True, "isolation_level": "REPEATABLE READ"}, 3),
        "local": ({"local": {"app.tenant": "7", "app.user": "8"}, "lock_timeout": 1}, 4),
        "autocommit": ({"isolation_level": "AUTOCOMMIT"}, 1),
        "reads": ({"isolation_level": "AUTOCOMMIT", "read_only": True}, 1),
    }
    if "psycopg2" in str(
        place.url
    ):  # which sets and resets its defaults whenever it comes and goes
        del asked["autocommit"], asked["reads"]
    with FaultProxy(place.url) as proxy:
        async with factory(Place(place.half, proxy.url), "real") as sessions:
            for name, (options, trips) in asked.items():
                view = view_of(sessions, **options)
                for n in range(8):  # after the fifth time psycopg has prepared it
                    with proxy.counting() as count:
                        async with view.begin() as session:
                            await scalar(session, "SELECT 1")
                    assert n < 7 or count.round_trips == trips, name
