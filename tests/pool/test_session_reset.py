"""With ``pool.reset="state"``, nothing of a session is left for the next one on its connection."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import TYPE_CHECKING, Final

import pytest
from attrs import evolve, frozen
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)
from sessionfactory.pool import session_reset
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from sqlalchemy import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

DRIVERS: Final = ("psycopg", "psycopg2", "asyncpg", "psycopg_async")
STATE: Final = PoolSettings(size=1, max_overflow=0, reset="state")


@frozen
class Trace:
    """Something that a session may leave, and how the next one would see it."""

    leave: str
    seen: str
    committed: bool = True


_PATH: Final = "SELECT current_setting('search_path') = 'tenant_a'"
_TENANT: Final = "SELECT current_setting('app.tenant', true) = 'a'"
_LOCKS: Final = (
    "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
)
TRACES: Final = {
    "a setting": Trace("SET search_path = tenant_a", _PATH),
    "a setting, rolled back": Trace("SET search_path = tenant_a", _PATH, committed=False),
    "a setting of the transaction": Trace("SET LOCAL search_path = tenant_a", _PATH),
    "a role": Trace("SET ROLE tenant_a", "SELECT current_user = 'tenant_a'"),
    "a login": Trace("SET SESSION AUTHORIZATION tenant_a", "SELECT session_user = 'tenant_a'"),
    "a custom setting": Trace("SELECT set_config('app.tenant', 'a', false)", _TENANT),
    "a custom setting of the transaction": Trace(
        "SELECT set_config('app.tenant', 'a', true)", _TENANT
    ),
    "a temporary table": Trace(
        "CREATE TEMPORARY TABLE scratch AS SELECT 'a'",
        "SELECT to_regclass('pg_temp.scratch') IS NOT NULL",
    ),
    "an advisory lock": Trace("SELECT pg_advisory_lock(42)", _LOCKS),
    "an advisory lock of the transaction": Trace("SELECT pg_advisory_xact_lock(42)", _LOCKS),
    "a time limit": Trace(
        "SET statement_timeout = '7s'", "SELECT current_setting('statement_timeout') = '7s'"
    ),
    "a subscription": Trace("LISTEN news", "SELECT count(*) > 0 FROM pg_listening_channels()"),
    "a cursor": Trace(
        "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) > 0 FROM pg_cursors WHERE name = 'held'",
    ),
    "characteristics": Trace(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT current_setting('default_transaction_read_only') = 'on'",
    ),
}
KEPT_BY_ROLLBACK: Final = {
    *("a setting", "a role", "a login", "a custom setting", "a temporary table"),
    *("an advisory lock", "a time limit", "a subscription", "a cursor", "characteristics"),
}


@pytest.fixture(scope="module")
def server(postgres_server: PostgresServer) -> Generator[PostgresServer]:
    """A PostgreSQL with a role ``tenant_a`` and a sequence."""
    postgres_server.execute("CREATE ROLE tenant_a; CREATE SEQUENCE numbers")
    yield postgres_server
    postgres_server.execute("DROP ROLE tenant_a; DROP SEQUENCE numbers")


def in_turn(
    url: URL | str,
    driver: str,
    works: Iterable[Callable[[Session], object]],
    pool: PoolSettings = STATE,
    prepare: Callable[[Engine], object] = id,
) -> list[object]:
    """Do each work in a session of its own, one after the other; return what they return."""
    url = make_url(url).set(drivername=f"postgresql+{driver.removesuffix('_async')}")
    settings = DatabaseSettings(url, pool=pool, statement_timeout=77)

    async def in_tasks() -> list[object]:
        async with AsyncSqlAlchemySessionFactory(settings) as factory:
            prepare(factory.engine.sync_engine)
            found: list[object] = []
            for work in works:
                async with factory() as session:
                    found.append(await session.run_sync(work))
            return found

    if driver not in {"psycopg", "psycopg2"}:
        return asyncio.run(in_tasks())
    with SqlAlchemySessionFactory(settings) as factory:
        prepare(factory.engine)
        found: list[object] = []
        for work in works:
            with factory() as session:
                found.append(work(session))
        return found


def asking(sql: str) -> Callable[[Session], object]:
    return lambda session: session.scalar(text(sql))


def leaving(trace: Trace) -> Callable[[Session], object]:
    def leave(session: Session) -> None:
        session.execute(text(trace.leave))
        if trace.committed:
            session.commit()

    return leave


BACKEND: Final = asking("SELECT pg_backend_pid()")


@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_left(driver: str, server: PostgresServer) -> None:
    """The next session sees none of the kinds of state that the former one left."""
    works = [
        work for trace in TRACES.values() for work in (leaving(trace), asking(trace.seen), BACKEND)
    ]
    found = in_turn(server.url, driver, works)
    assert found[1::3] == [False] * len(TRACES)
    assert len(set(found[2::3])) == 1  # all on one connection


def test_what_a_rollback_leaves(server: PostgresServer) -> None:
    """Without it, the next session sees most of them."""
    plain = PoolSettings(size=1)
    left = {
        name
        for name, trace in TRACES.items()
        if in_turn(server.url, "psycopg", [leaving(trace), asking(trace.seen)], plain)[1]
    }
    assert left == KEPT_BY_ROLLBACK


def test_sequences(server: PostgresServer) -> None:
    """What a sequence gave to a session is that session's."""
    with pytest.raises(DBAPIError, match="lastval is not yet defined"):
        in_turn(
            server.url, "psycopg", [asking("SELECT nextval('numbers')"), asking("SELECT lastval()")]
        )


@pytest.mark.parametrize("driver", DRIVERS)
def test_start_up_options_stay(driver: str, server: PostgresServer) -> None:
    """What was said when connecting is no session's: role, path, our time limits, dates."""
    options = "-c role=tenant_a -c search_path=elsewhere -c datestyle=sql,dmy"
    url = make_url(server.url).update_query_dict({"options": options})
    told = asking(
        "SELECT current_user || current_setting('search_path')"
        " || current_setting('statement_timeout')"
    )
    found = in_turn(url, driver, [told, asking("SELECT date '2026-02-01'")] * 2)
    assert found == ["tenant_aelsewhere77s", date(2026, 2, 1)] * 2


def test_listeners_do_not(server: PostgresServer) -> None:
    """What a listener to ``connect`` sets is cleared, too; one to ``checkout`` sets it again."""

    def prepare(engine: Engine) -> None:
        def set_path(connection: DBAPIConnection, *_: object) -> None:
            connection.cursor().execute("SET search_path = connected")
            connection.commit()

        def set_tenant(connection: DBAPIConnection, *_: object) -> None:
            connection.cursor().execute("SET app.tenant = 'a'")

        event.listen(engine, "connect", set_path)
        event.listen(engine, "checkout", set_tenant)

    path = asking("SELECT current_setting('search_path')")
    found = in_turn(server.url, "psycopg", [path, path, asking(_TENANT)], prepare=prepare)
    assert found == ["connected", '"$user", public', True]


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_round_trip_and_prepared_statements(driver: str, server: PostgresServer) -> None:
    """It costs what the ping would: one round trip; statements that the driver prepared stay."""
    with FaultProxy(server.url) as proxy:

        def work(session: Session) -> int:
            with proxy.counting() as count:
                session.execute(text("SELECT 4711"))
                session.commit()
            return count.round_trips

        prepared = asking(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 4711'"
        )
        trips: list[object]
        *trips, kept = in_turn(proxy.url, driver, [work] * 8 + [prepared])
    assert trips[-1] == 4  # with BEGIN, the statement and COMMIT
    assert kept == (driver != "psycopg2")


@pytest.mark.parametrize("driver", DRIVERS)
def test_dead_connections_are_replaced(driver: str, server: PostgresServer) -> None:
    """A connection that is found dead when it is cleared is replaced, without ``pre_ping``, too."""
    pool = evolve(STATE, pre_ping=False)

    def end(session: Session) -> None:
        backend = BACKEND(session)
        event.listen(
            session.get_bind().engine,
            "checkin",
            lambda *_: server.execute(f"SELECT pg_terminate_backend({backend}, 5000)"),
            once=True,
        )

    assert in_turn(server.url, driver, [end, asking("SELECT 1")], pool)[1] == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite://", 'on sqlite, no driver can clear a connection; "state" is for PostgreSQL'),
        ("mysql+pymysql://db/app", "on mysql, no driver can clear a connection"),
        ("postgresql+pg8000://db/app", "pg8000 is not known to do it; .* psycopg, psycopg2"),
    ],
)
def test_other_databases(url: str, why: str) -> None:
    """Where there is no way to it, the setting is refused, and says why."""
    with pytest.raises(SettingsError, match=rf"pool\.reset: {why}.*; leave the default"):
        session_reset.refuse_other_databases(make_url(url))


def test_refused_when_made() -> None:
    """That is told when the factory is made."""
    with pytest.raises(SettingsError, match="on sqlite, no driver"):
        SqlAlchemySessionFactory(DatabaseSettings("sqlite://", pool=STATE))
