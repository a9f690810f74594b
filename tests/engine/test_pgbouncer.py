"""A pooler before PostgreSQL is recognised; then no statement is prepared, and no row is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from sessionfactory import (
    ConnectTimeoutError,
    DatabaseSettings,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
    with_options,
)
from sessionfactory.drivers import connections
from sessionfactory.testing import FaultProxy
from tests.support.available import running_or_skipped
from tests.support.pgbouncer import PgBouncer
from tests.support.pooled import DRIVERS, values

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.testing import PostgresServer


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Generator[PgBouncer]:
    """A PgBouncer in transaction mode, with two connections for all of its clients."""
    with running_or_skipped(PgBouncer(postgres_server)) as server:
        yield server


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_value_is_right(driver: str, pooler: PgBouncer) -> None:
    """Eight at once, of several statements each, get what they asked for. The long form: soak."""
    assert values(pooler.url_for(driver.removesuffix("_async")), driver, 400) == {"right": 400}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async"])
def test_every_value_is_right_in_a_pipeline(driver: str, pooler: PgBouncer) -> None:
    """BEGIN that travels, and ends that are not awaited, pass through a pooler in one piece."""
    found = values(pooler.url_for(), driver, 400, pipeline=True)
    assert found == {"right": 400}


def driver_connection(factory: SqlAlchemySessionFactory) -> Any:
    with factory() as session:
        return session.connection().connection.driver_connection


def test_only_a_pooler_is_one(pooler: PgBouncer, postgres_server: PostgresServer) -> None:
    """Statements are prepared on a server itself, also when a plain proxy stands before it."""
    with FaultProxy(postgres_server.url) as proxy:
        for url, threshold in (
            (make_url(pooler.url_for()), None),
            (make_url(postgres_server.url), 5),
            (proxy.url, 5),
        ):
            with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
                assert driver_connection(factory).prepare_threshold == threshold


def test_what_the_user_says_wins(pooler: PgBouncer) -> None:
    """A newer pooler may know prepared statements, and its user will say so."""
    options = {"connect_args": {"prepare_threshold": 3}}
    settings = DatabaseSettings(pooler.url_for(), engine_options=options)
    with SqlAlchemySessionFactory(settings) as factory:
        assert driver_connection(factory).prepare_threshold == 3


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_no_clean_state(driver: str, pooler: PgBouncer) -> None:
    """A pooler would have a stranger's connection cleared: that is refused when it is found."""
    settings = DatabaseSettings(pooler.url_for(driver), pool=PoolSettings(reset="state"))
    with SqlAlchemySessionFactory(settings) as factory:
        with pytest.raises(SettingsError, match="a pooler, such as PgBouncer") as caught:
            factory().execute(text("SELECT 1"))
        assert [fault.path for fault in caught.value.faults] == ["pool.reset"]
        assert factory.ping().state == "refused"
        assert factory.status().size == 0


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_no_read_only_setting_for_a_stranger(driver: str, pooler: PgBouncer) -> None:
    """A view that would leave a setting on a stranger's connection is refused, and leaves none."""
    with SqlAlchemySessionFactory(DatabaseSettings(pooler.url_for(driver))) as factory:
        view = with_options(factory, isolation_level="AUTOCOMMIT", read_only=True)
        for _ in range(3):
            with pytest.raises(SettingsError, match="read_only: a pooler, such as PgBouncer"):
                view().execute(text("SELECT 1"))
        assert factory.status().in_use == 0
        with factory() as one, factory() as two:
            for session in (one, two):
                assert session.scalar(text("SHOW default_transaction_read_only")) == "off"
        with factory.reader() as session:  # which says it in each transaction
            assert session.scalar(text("SHOW transaction_read_only")) == "on"


def trips_to_connect(driver: str, proxy: FaultProxy) -> int:
    """Count the round trips of a connection that is not the first of its engine."""
    url = proxy.url.set(drivername=f"postgresql+{driver}")
    counted: list[int] = []
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory, factory() as first:
        first.execute(text("SELECT 1"))
        opened = factory.engine.dialect.connect

        def connect(*arguments: Any, **keywords: Any) -> DBAPIConnection:
            with proxy.counting() as count:
                connection = opened(*arguments, **keywords)
            counted.append(count.round_trips)
            return connection

        factory.engine.dialect.connect = connect  # type: ignore[method-assign]
        with factory() as second:
            second.execute(text("SELECT 1"))
    return counted[0]


def test_only_when_connecting(postgres_server: PostgresServer) -> None:
    """A connection is asked once, in one round trip; psycopg2, which prepares nothing, never."""
    with FaultProxy(postgres_server.url) as proxy:
        assert trips_to_connect("psycopg", proxy) == trips_to_connect("psycopg2", proxy) + 1


def test_lost_while_asked(postgres_server: PostgresServer) -> None:
    """A connection that breaks at this question is hung up, and its error is the driver's."""
    with FaultProxy(postgres_server.url) as proxy:
        factory = SqlAlchemySessionFactory(DatabaseSettings(proxy.url))
        with (
            factory,
            proxy.cut("before", "SELECT 1 WHERE") as cut,
            pytest.raises(OperationalError),
            factory() as session,
        ):
            session.execute(text("SELECT 1"))
        assert cut.fired
        assert factory.status().size == 0


@pytest.mark.parametrize("timeout", [30.0, None])
def test_a_server_that_falls_silent_just_then(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    """A new connection that the network swallows is given up after connect_timeout."""
    ask = connections.backend_of

    def fall_silent(connection: DBAPIConnection | None) -> int | None:
        proxy.black_hole()
        return ask(connection)

    pool = PoolSettings(timeout=timeout)
    with FaultProxy(postgres_server.url) as proxy:
        settings = DatabaseSettings(proxy.url, connect_timeout=1, pool=pool)
        with SqlAlchemySessionFactory(settings) as factory, factory() as session:
            monkeypatch.setattr(connections, "backend_of", fall_silent)
            with pytest.raises(ConnectTimeoutError, match="new connection within 1 s; see connect"):
                session.connection()
            monkeypatch.undo()
            proxy.restore()
            assert session.scalar(text("SELECT 1")) == 1


def test_limits_that_the_pooler_ignores(pooler: PgBouncer) -> None:
    """A time limit that a pooler drops is reported when connecting, and not promised."""
    limits = {"statement_timeout": 5.0, "idle_in_transaction_timeout": 7.0}
    settings = DatabaseSettings(pooler.url_for(), **limits)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with SqlAlchemySessionFactory(settings) as factory:
        for _ in range(2):  # every time, and not the first time only
            with pytest.raises(SettingsError, match="ignores start-up parameters") as caught:
                factory().connection()
            assert [fault.path for fault in caught.value.faults] == [*limits]


def test_limits_of_the_role_behind_a_pooler(
    pooler: PgBouncer, postgres_server: PostgresServer
) -> None:
    """Where the role has the limit on the server, it holds, and the setting is accepted."""
    name = f"limited_{uuid4().hex[:8]}"
    database = make_url(pooler.url_for()).database
    postgres_server.execute(f"CREATE DATABASE {name}")
    postgres_server.execute(f"ALTER DATABASE {name} SET statement_timeout = 5000")
    try:
        url = make_url(pooler.url_for()).set(database=name)
        assert database != name
        settings = DatabaseSettings(url, statement_timeout=5)
        with SqlAlchemySessionFactory(settings) as factory, factory() as session:
            assert session.scalar(text("SHOW statement_timeout")) == "5s"
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
