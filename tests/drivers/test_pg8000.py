"""pg8000, PostgreSQL in Python alone, is an ordinary driver."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    ReadOnlyError,
    SqlAlchemySessionFactory,
    with_options,
)
from sessionfactory.drivers import connections, known
from sessionfactory.drivers.error_codes import classify

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import PostgresServer


@pytest.fixture
def sessions(postgres_server: PostgresServer) -> Generator[SqlAlchemySessionFactory]:
    """A factory on pg8000, with each kind of time limit."""
    settings = DatabaseSettings(
        postgres_server.url_for("pg8000"),
        statement_timeout=5,
        lock_timeout=2,
        pool=PoolSettings(size=1, max_overflow=0, ping_after=0),
    )
    with SqlAlchemySessionFactory(settings) as factory:
        yield factory


def test_sessions(sessions: SqlAlchemySessionFactory) -> None:
    """Connections open, are looked at and pinged, and come back."""
    for _ in range(3):
        with sessions.begin() as session:
            assert session.scalar(text("SHOW statement_timeout")) == "5s"
    assert sessions.ping().state == "ok"


def test_a_reader(sessions: SqlAlchemySessionFactory) -> None:
    """A write of a reader is a ``ReadOnlyError``, and the next session may write."""
    with sessions.begin() as session:
        session.execute(text("CREATE TEMPORARY TABLE written (a INTEGER)"))
    with pytest.raises(ReadOnlyError), sessions.reader.begin() as session:
        session.execute(text("CREATE TABLE never (a INTEGER)"))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO written VALUES (1)"))


def test_options(sessions: SqlAlchemySessionFactory) -> None:
    """Options of one transaction hold for that one."""
    with with_options(sessions, local={"app.tenant": "7"}, lock_timeout=1).begin() as session:
        assert session.scalar(text("SHOW app.tenant")) == "7"
        assert session.scalar(text("SHOW lock_timeout")) == "1s"
    with sessions.begin() as session:
        assert session.scalar(text("SHOW lock_timeout")) == "2s"


def test_its_errors(sessions: SqlAlchemySessionFactory) -> None:
    """The SQLSTATE is read from the message's fields."""
    with pytest.raises(Exception, match="cancel") as caught, sessions.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 10"))
        session.execute(text("SELECT pg_sleep(5)"))
    assert classify(caught.value).codes == ("57014",)
    with pytest.raises(Exception, match="no_such") as caught, sessions.begin() as session:
        session.execute(text("SELECT * FROM no_such_table"))
    assert classify(caught.value).meanings == ("missing table",)


def test_its_connection(sessions: SqlAlchemySessionFactory) -> None:
    """The server's process, the socket and its end are found."""
    with sessions.begin() as session:
        raw = session.connection().connection.dbapi_connection
        assert raw is not None
        assert connections.driver_of(raw) is known.named("pg8000")
        assert connections.backend_of(raw) == session.scalar(text("SELECT pg_backend_pid()"))
        assert not connections.listener(raw)()
        connections.hang_up(raw)
        with contextlib.suppress(Exception):
            session.execute(text("SELECT 1"))
        session.invalidate()
