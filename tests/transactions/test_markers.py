"""The table of markers: made, used and cleaned."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import MetaData, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    CommitUncertainError,
    marker_table,
    run_in_transaction,
)
from sessionfactory.testing import FaultProxy
from sessionfactory.transactions.verification import marker
from tests.support.payments import PAY, pay, rows
from tests.support.ways import HALVES, Way

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import URL

    from sessionfactory.testing import MariaDBServer, PostgresServer
    from sessionfactory.testing.proxy._trigger import When


pytestmark = pytest.mark.usefixtures("markers")
halves = pytest.mark.parametrize("way", HALVES, ids=str)


verifications = pytest.mark.parametrize("verify_commit", ["status", "marker"])


@halves
def test_the_table_of_markers_is_made_when_it_is_missing(way: Way, server: PostgresServer) -> None:
    """The first transaction finds no table, and is done again; that is no attempt that counts."""
    server.execute("DROP TABLE sessionfactory_commit")
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        return len(calls)

    assert way.run(server.url, work, verify_commit="marker", attempts=1) == 2
    assert way.run(server.url, work, verify_commit="marker", attempts=1) == 3
    assert rows(server) == 2


def test_there_is_no_limit_to_count_against(server: PostgresServer) -> None:
    """The table is made as well where attempts are not counted."""
    server.execute("DROP TABLE sessionfactory_commit")

    Way("psycopg").run(server.url, pay, verify_commit="marker", attempts=None)

    assert rows(server) == 1


def test_a_connection_that_is_lost_before_its_marker(server: PostgresServer) -> None:
    """A marker that cannot be written is no COMMIT: the work is done again."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        return len(calls)

    assert Way("psycopg").run(server.url, work, verify_commit="marker") == 2
    assert rows(server) == 1


def test_making_the_table_may_be_tried_again(proxy: FaultProxy, server: PostgresServer) -> None:
    """If the connection is lost while the table is made, it is made the next time."""
    server.execute("DROP TABLE sessionfactory_commit")
    proxy.cut("before", "CREATE TABLE")

    Way("psycopg").run(proxy.url, pay, verify_commit="marker")

    assert rows(server) == 1
    assert server.execute("SELECT count(*) FROM sessionfactory_commit") == "1"


def test_somebody_else_may_make_the_table_at_the_same_time(server: PostgresServer) -> None:
    """Of two that make it, the slower one goes on with the other's."""
    server.execute("DROP TABLE sessionfactory_commit")
    engine = create_engine(server.url)

    @event.listens_for(engine, "before_cursor_execute")
    def be_faster(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().startswith("CREATE TABLE"):
            with server_engine.begin() as connection:
                marker_table(MetaData()).create(connection)

    server_engine = create_engine(server.url)
    try:
        run_in_transaction(sessionmaker(engine), pay, verify_commit="marker")
    finally:
        engine.dispose()
        server_engine.dispose()
    assert rows(server) == 1


@pytest.fixture
def poor(server: PostgresServer) -> Generator[URL]:
    """The URL of a role that may write payments, and make no tables."""
    server.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'; GRANT INSERT ON paid TO poor")
    yield make_url(server.url).set(username="poor", password="poor")
    server.execute("DROP OWNED BY poor; DROP ROLE poor")


def test_a_role_that_may_not_make_the_table_is_told(poor: URL, server: PostgresServer) -> None:
    """The error is the database's, and says what to do."""
    server.execute("DROP TABLE sessionfactory_commit")

    with pytest.raises(DBAPIError, match="does not exist") as caught:
        Way("psycopg").run(poor, pay, verify_commit="marker")

    told = "\n".join(caught.value.__notes__)
    assert "create it in a migration, with marker_table()" in told
    assert rows(server) == 0


def test_a_role_that_may_not_use_the_table_is_told(poor: URL, server: PostgresServer) -> None:
    """The error is the database's."""
    with pytest.raises(DBAPIError, match="permission denied for table sessionfactory_commit"):
        Way("psycopg").run(poor, pay, verify_commit="marker")

    assert rows(server) == 0


def test_old_markers_are_deleted(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """From time to time, old markers are deleted; young ones stay."""
    monkeypatch.setattr(marker, "_CLEANING", 1.0)
    server.execute(f"""
        INSERT INTO sessionfactory_commit
        SELECT name, extract(epoch FROM now()) - age, false
        FROM (VALUES ('old', {marker.RETENTION + 60}), ('young', 60)) AS v (name, age)
    """)

    Way("psycopg").run(server.url, pay, verify_commit="marker")

    assert server.execute("SELECT count(*) FROM sessionfactory_commit") == "2"
    assert server.execute("SELECT count(*) FROM sessionfactory_commit WHERE id = 'young'") == "1"


def test_markers_are_deleted_by_the_database_clock(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose clock is hours ahead deletes no marker that others have just written."""
    Way("psycopg").run(server.url, pay, verify_commit="marker")
    clock = time.time
    monkeypatch.setattr(marker, "_CLEANING", 1.0)
    monkeypatch.setattr(time, "time", lambda: clock() + 3 * marker.RETENTION)

    Way("psycopg").run(server.url, pay, verify_commit="marker")
    monkeypatch.setattr(time, "time", lambda: clock() - 3 * marker.RETENTION)
    Way("psycopg").run(server.url, pay, verify_commit="marker")

    assert server.execute("SELECT count(*) FROM sessionfactory_commit") == "3"


def test_markers_are_in_the_default_schema(proxy: FaultProxy, server: PostgresServer) -> None:
    """Whatever schema a transaction works in, markers are looked for where they were written."""
    server.execute("CREATE SCHEMA tenant; CREATE TABLE tenant.paid (amount int)")
    engine = create_engine(proxy.url)
    mapped = engine.execution_options(schema_translate_map={None: "tenant", "public": "tenant"})

    def work(session: Session) -> None:
        session.execute(text("SET LOCAL search_path = tenant"))
        session.execute(PAY)
        proxy.cut("after", "COMMIT")

    try:
        run_in_transaction(sessionmaker(mapped), work, verify_commit="marker")
        assert server.execute("SELECT count(*) FROM tenant.paid") == "1"
        assert server.execute("SELECT count(*) FROM public.sessionfactory_commit") == "1"
    finally:
        engine.dispose()
        server.execute("DROP SCHEMA tenant CASCADE")


def test_a_fence_is_not_taken_for_a_marker(server: PostgresServer) -> None:
    """A check that is repeated, because its own reply was lost, finds the same outcome."""
    engine = create_engine(server.url)
    try:
        asked = marker.Marker(marker_table(MetaData()), "0" * 32)
        assert asked.find(engine) == ("rolled back", "")
        assert asked.find(engine) == ("rolled back", "")
    finally:
        engine.dispose()


@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_markers_on_mariadb(when: When, mariadb_server: MariaDBServer) -> None:
    """Markers make commits certain elsewhere, too: a COMMIT on its way is waited for."""
    look = create_engine(mariadb_server.url)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            proxy.cut(when, "COMMIT", delay=0.1 if when == "late" else None)

    with FaultProxy(mariadb_server.url) as proxy, look.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE paid (amount int)")
        try:
            marker_table(MetaData()).create(look)
            Way("pymysql").run(proxy.url, work, verify_commit="marker")
            assert connection.exec_driver_sql("SELECT count(*) FROM paid").scalar() == 1
            age = "SELECT max(UNIX_TIMESTAMP() - made_at) FROM sessionfactory_commit"
            assert 0 <= int(connection.exec_driver_sql(age).scalar_one()) < 60
        finally:
            connection.rollback()
            connection.exec_driver_sql("DROP TABLE IF EXISTS paid, sessionfactory_commit")
    look.dispose()
    assert len(calls) == (2 if when == "before" else 1)


def test_the_status_elsewhere_is_uncertain(mariadb_server: MariaDBServer) -> None:
    """A database that keeps no status of transactions leaves a lost COMMIT uncertain."""
    look = create_engine(mariadb_server.url)

    def work(session: Session) -> None:
        session.execute(PAY)
        proxy.cut("after", "COMMIT")

    with FaultProxy(mariadb_server.url) as proxy, look.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE paid (amount int)")
        try:
            with pytest.raises(CommitUncertainError):
                Way("pymysql").run(proxy.url, work, verify_commit="status")
        finally:
            connection.exec_driver_sql("DROP TABLE paid")
    look.dispose()


@verifications
def test_sqlite_has_nothing_to_verify(verify_commit: str, tmp_path: Path) -> None:
    """A file's COMMIT cannot be lost: nothing is written beside the work's own."""
    url = f"sqlite:///{tmp_path / 'app.db'}"

    def work(session: Session) -> None:
        session.execute(text("CREATE TABLE paid (amount int)"))
        session.execute(PAY)

    Way("pysqlite").run(url, work, verify_commit=verify_commit)

    engine = create_engine(url)
    assert inspect(engine).get_table_names() == ["paid"]
    engine.dispose()
