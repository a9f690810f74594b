"""Fewer round trips: where they can be had, how many are left, and what else is kept."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
    with_options,
)
from sessionfactory.drivers.psycopg_pipeline import connection_base
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import URL, Connection
    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

ONE_CONNECTION = PoolSettings(size=1, max_overflow=0)


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Generator[FaultProxy]:
    """What counts round trips, and where lines can be cut."""
    with FaultProxy(postgres_server.url) as made:
        yield made


def settings_for(url: str | URL, *, pipeline: bool = True, **options: Any) -> DatabaseSettings:
    """Return settings whose pool is one connection."""
    return DatabaseSettings(url, pipeline=pipeline, pool=ONE_CONNECTION, engine_options=options)


def refusal(settings: DatabaseSettings) -> str:
    """Return why settings are refused."""
    with pytest.raises(SettingsError) as caught:
        SqlAlchemySessionFactory(settings)
    assert [fault.path for fault in caught.value.faults] == ["pipeline"]
    return str(caught.value)


@pytest.mark.parametrize("url", ["postgresql+psycopg2://app@db/app", "sqlite://"])
def test_another_driver(url: str) -> None:
    """What only psycopg can do is refused on another driver, with the reason."""
    told = refusal(DatabaseSettings(url, pipeline=True))
    assert "expected psycopg 3" in told
    assert "write postgresql://" in told


def test_asyncpg() -> None:
    """The async half refuses it on asyncpg."""
    settings = DatabaseSettings("postgresql+asyncpg://app@db/app", pipeline=True)
    with pytest.raises(SettingsError, match=r"expected psycopg 3, and not postgresql\+asyncpg"):
        AsyncSqlAlchemySessionFactory(settings)


def test_old_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """A libpq without pipelines is refused."""
    monkeypatch.setattr(psycopg.capabilities, "has_pipeline", lambda: False)
    told = refusal(DatabaseSettings("postgresql://app@db/app", pipeline=True))
    assert "expected libpq 14 or newer" in told


def test_unknown_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """A psycopg in which a name that is relied on has moved is refused, not tried."""
    monkeypatch.setitem(connection_base.RELIED_ON, psycopg.BaseConnection, ("_moved",))
    told = refusal(DatabaseSettings("postgresql://app@db/app", pipeline=True))
    assert f"does not know psycopg {psycopg.__version__}: it has no _moved" in told


def test_psycopg_that_lacks_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is one in which a module has moved."""
    monkeypatch.setitem(
        sys.modules, "sessionfactory.drivers.psycopg_pipeline.connection_base", None
    )
    told = refusal(DatabaseSettings("postgresql://app@db/app", pipeline=True))
    assert f"does not know psycopg {psycopg.__version__}" in told


@pytest.mark.parametrize("name", ["cursor_factory", "async_creator_fn"])
def test_cursors_of_the_user(name: str) -> None:
    """Cursors and connections of the user's own would not take part, and are refused."""
    told = refusal(settings_for("postgresql://app@db/app", connect_args={name: object}))
    assert f"has cursors and connections of its own; take {name} away" in told


def test_names_that_are_relied_on() -> None:
    """Every private name that is used is still there."""
    for owner, names in connection_base.RELIED_ON.items():
        for name in names:
            assert hasattr(owner, name), (owner, name)


def write(session: Session) -> None:
    """Write one row."""
    session.execute(text("INSERT INTO trip VALUES (:number)"), {"number": 1})


def write_many(session: Session) -> None:
    """Write two rows by executemany."""
    session.execute(text("INSERT INTO trip VALUES (:n)"), [{"n": 1}, {"n": 2}])


def read(session: Session) -> None:
    """Read a value."""
    assert session.scalar(text("SELECT CAST(:n AS int)"), {"n": 1}) == 1


@pytest.fixture
def tables(postgres_server: PostgresServer) -> Generator[None]:
    """A table ``trip(number)``."""
    postgres_server.execute("CREATE TABLE trip (number int)")
    yield
    postgres_server.execute("DROP TABLE trip")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(("work", "plain"), [(write, 3), (write_many, 3), (read, 3)])
def test_round_trips(work: Callable[[Session], None], plain: int, proxy: FaultProxy) -> None:
    """BEGIN travels with the first statement: a transaction of one statement is two round trips."""
    for pipeline, expected in ((False, plain), (True, 2)):
        with SqlAlchemySessionFactory(settings_for(proxy.url, pipeline=pipeline)) as factory:
            with factory.begin() as session:
                work(session)
            with proxy.counting() as count, factory.begin() as session:
                work(session)
        assert count.round_trips == expected
        assert count.flights[-1] == ["COMMIT"]


@pytest.mark.usefixtures("tables")
def test_round_trips_async(proxy: FaultProxy) -> None:
    """The async half needs as few."""

    async def run() -> None:
        async with AsyncSqlAlchemySessionFactory(settings_for(proxy.url)) as factory:
            for work in (write, write_many, read):
                async with factory.begin() as session:
                    await session.run_sync(work)
                with proxy.counting() as count:
                    async with factory.begin() as session:
                        await session.run_sync(work)
                assert count.round_trips == 2
                assert count.flights[0][0] == "BEGIN"

    asyncio.run(run())


TENANT = {"app.tenant": "seven"}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("work", [write, write_many, read])
def test_tenant(work: Callable[[Session], None], proxy: FaultProxy) -> None:
    """A tenant's setting travels with BEGIN, before the first statement, and is gone afterwards."""
    shown = text("SELECT current_setting('app.tenant', true)")
    for pipeline, expected in ((False, 4), (True, 2)):
        with SqlAlchemySessionFactory(settings_for(proxy.url, pipeline=pipeline)) as factory:
            tenant = with_options(factory, local=TENANT, statement_timeout=20)
            with tenant.begin() as session:
                work(session)
            with proxy.counting() as count, tenant.begin() as session:
                work(session)
            assert count.round_trips == expected
            with tenant.begin() as session:
                work(session)
                assert session.scalar(shown) == "seven"
            with factory.begin() as session:
                assert not session.scalar(shown)
            with with_options(factory, isolation_level="AUTOCOMMIT")() as session:
                assert not session.scalar(shown)


def test_tenant_who_does_nothing(proxy: FaultProxy) -> None:
    """What was to travel with a BEGIN that never came is not said in the next transaction."""
    with SqlAlchemySessionFactory(settings_for(proxy.url)) as factory:
        with with_options(factory, local=TENANT).begin() as session:
            session.connection()
        with factory.begin() as session:
            assert not session.scalar(text("SELECT current_setting('app.tenant', true)"))


def test_tenant_after_a_listener(proxy: FaultProxy) -> None:
    """Where a listener has used the transaction first, the setting is said by itself."""

    def use(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))

    with SqlAlchemySessionFactory(settings_for(proxy.url)) as factory:
        event.listen(factory.engine, "begin", use)
        with with_options(factory, local=TENANT).begin() as session:
            assert session.scalar(text("SELECT current_setting('app.tenant', true)")) == "seven"


def test_statement_along_that_fails(proxy: FaultProxy) -> None:
    """What cannot be set fails the first statement, with its own error."""
    with SqlAlchemySessionFactory(settings_for(proxy.url)) as factory:
        refused = with_options(factory, local={"work_mem": "nonsense"})
        with pytest.raises(DBAPIError, match="invalid value for parameter"), refused() as session:
            read(session)
        with factory.begin() as session:
            read(session)


def prepared(session: Session) -> int:
    """Return how many statements the server has prepared for a session's connection."""
    statement = "SELECT count(*) FROM pg_prepared_statements WHERE strpos(statement, 'AS int') > 0"
    found = session.connection().exec_driver_sql(statement).scalar_one()
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("end", ["close", "rollback"])
def test_reads_keep_prepared_statements(postgres_server: PostgresServer, end: str) -> None:
    """A statement that is read again and again is prepared, however its transactions end.

    One that failed makes psycopg forget: the plan may have been outdated.
    """
    with SqlAlchemySessionFactory(settings_for(postgres_server.url)) as factory:
        for _ in range(8):
            with factory.reader() as session:
                read(session)
                getattr(session, end)()
        with factory.reader() as session:
            assert prepared(session) == 1
        with factory.reader() as session, pytest.raises(DBAPIError, match="no_such"):
            session.execute(text("SELECT no_such_column"))
        with factory.reader() as session:
            assert prepared(session) == 0


def test_reads_keep_prepared_statements_async(postgres_server: PostgresServer) -> None:
    """The async half keeps them, too."""

    async def run() -> None:
        async with AsyncSqlAlchemySessionFactory(settings_for(postgres_server.url)) as factory:
            for _ in range(8):
                async with factory.reader() as session:
                    await session.run_sync(read)
            async with factory.reader() as session:
                assert await session.run_sync(prepared) == 1

    asyncio.run(run())


@pytest.mark.parametrize("pipeline", [False, True])
def test_reader_whose_connection_was_cut(postgres_server: PostgresServer, pipeline: bool) -> None:  # noqa: FBT001
    """A reader from which close() took the connection rolls back in silence."""
    factory = SqlAlchemySessionFactory(settings_for(postgres_server.url, pipeline=pipeline))
    with factory.reader() as session:
        read(session)
        assert len(factory.close(timeout=0)) == 1
        session.rollback()
