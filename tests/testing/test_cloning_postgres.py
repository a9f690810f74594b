"""``CloningSessionFactory`` on PostgreSQL: real databases, and none of them left."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import MetaData, create_engine, make_url, text

from sessionfactory import DatabaseSettings, PoolSettings
from sessionfactory.testing._image import IsolationError
from sessionfactory.testing._templates import PostgresTemplates
from sessionfactory.testing.cloning import CloningSessionFactory
from tests.testing.isolated import Base, add_player, one_team, players

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

# A copy, for SQLAlchemy breaks circles with ALTER TABLE on PostgreSQL and notes it in the metadata:
# on SQLite, which has no such thing, the foreign key would then be left out in this process.
METADATA = MetaData()
for _table in Base.metadata.tables.values():
    _table.to_metadata(METADATA)
DATABASES = "SELECT datname FROM pg_database ORDER BY 1"


@pytest.fixture
def server(postgres_server: PostgresServer) -> Generator[PostgresServer]:
    """A server on which a test leaves no database."""
    before = postgres_server.execute(DATABASES)
    yield postgres_server
    assert postgres_server.execute(DATABASES) == before


@pytest.fixture
def cloning(server: PostgresServer) -> Generator[CloningSessionFactory]:
    """Clones with one team and one player."""
    with CloningSessionFactory(server.url, METADATA, seed=one_team) as made:
        yield made


def clients(server: PostgresServer) -> list[str]:
    """Return who is connected to a clone or a template."""
    asked = "SELECT datname FROM pg_stat_activity WHERE datname LIKE 'sessionfactory%'"
    return server.execute(asked).splitlines()


def test_clones_are_apart(cloning: CloningSessionFactory) -> None:
    """Commits and new tables of one test are not seen by the next, nor by one at the same time."""
    for _ in range(3):
        with cloning.clone() as sessions, cloning.clone() as others:
            add_player(sessions)
            with sessions.begin() as session:
                session.execute(text("CREATE TABLE extra (a INTEGER)"))
            assert (players(sessions), players(others)) == (2, 1)


def test_cloned_ahead(server: PostgresServer, cloning: CloningSessionFactory) -> None:
    """While a test runs, the next clones are made; names tell the process."""
    with cloning.clone() as sessions:
        name = sessions.settings.url.database
        for future in cloning._pending:
            future.result()
        found = [line for line in server.execute(DATABASES).splitlines() if "sessionf" in line]
        assert name in found
        assert len(found) == 4  # this one, two ahead, and the template
    cloning._thread.submit(int).result()
    assert name not in server.execute(DATABASES)


def test_nothing_is_left(server: PostgresServer) -> None:
    """No database and no connection is left, not even by a test that leaves sessions open."""
    settings = DatabaseSettings(server.url, pool=PoolSettings(size=3))
    left: list[Session] = []
    with CloningSessionFactory(settings, METADATA, seed=one_team) as cloning:
        with (
            pytest.raises(IsolationError, match="This test left sessions open"),
            cloning.clone() as sessions,
        ):
            left += [sessions() for _ in range(3)]
            for session in left:
                session.connection()
        with cloning.clone() as sessions:
            assert players(sessions) == 1
    assert "sessionfactory" not in server.execute(DATABASES)
    assert clients(server) == []
    for session in left:
        session.close()


def test_connections_of_others(cloning: CloningSessionFactory, server: PostgresServer) -> None:
    """A clone is dropped while somebody else is still connected to it."""
    password = make_url(server.url).password
    with cloning.clone() as sessions:
        other = create_engine(sessions.settings.url.set(password=password))
        connection = other.connect()
    cloning.close()
    assert "sessionfactory" not in server.execute(DATABASES)
    connection.invalidate()
    connection.close()
    other.dispose()


def test_no_right_to_create(server: PostgresServer) -> None:
    """A user who may not create databases is told so in the server's words."""
    server.execute("CREATE ROLE humble LOGIN PASSWORD 'x'")
    settings = DatabaseSettings(f"postgresql://humble:x@127.0.0.1:{server.port}/postgres")
    try:
        with (
            CloningSessionFactory(settings, METADATA) as cloning,
            pytest.raises(IsolationError) as caught,
            cloning.clone(),
        ):
            pytest.fail("there is no clone")
    finally:
        server.execute("DROP ROLE humble")
    assert str(caught.value) == (
        "No template could be made to clone databases from: permission denied to create database"
    )


def test_template_is_gone(server: PostgresServer, cloning: CloningSessionFactory) -> None:
    """What fails in the background is raised in the test that needs the clone."""
    with cloning.clone():
        pass
    for future in cloning._pending:
        future.result()
    server.execute(f'DROP DATABASE "{cloning._template}"')
    for _ in range(2):  # those that were ahead
        with cloning.clone() as sessions:
            assert players(sessions) == 1
    for _ in range(2):
        with pytest.raises(IsolationError) as caught, cloning.clone():
            pytest.fail("there is no clone")
        assert str(caught.value) == (
            "No database could be cloned for this test:"
            f' template database "{cloning._template}" does not exist'
        )


def test_durable_server(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for its disk is spared the checkpoints that copying files takes."""
    said: list[str] = []
    execute = PostgresTemplates._execute

    def note(self: PostgresTemplates, statement: str) -> None:
        said.append(statement)
        execute(self, statement)

    monkeypatch.setattr(PostgresTemplates, "_execute", note)
    for fsync in ("on", "off"):
        own_postgres.configure({"fsync": fsync})
        with (
            CloningSessionFactory(own_postgres.url, METADATA, ahead=0) as cloning,
            cloning.clone() as sessions,
        ):
            assert players(sessions) == 0
    clones = [statement for statement in said if "TEMPLATE" in statement]
    assert [statement.endswith("STRATEGY file_copy") for statement in clones] == [False, True]


def test_server_down(own_postgres: PostgresServer) -> None:
    """Where the server is gone, the databases that are left on it are named."""
    cloning = CloningSessionFactory(own_postgres.url, METADATA, ahead=0)
    with cloning.clone() as sessions:
        assert players(sessions) == 0
        own_postgres.stop()
    try:
        with pytest.raises(IsolationError) as caught:
            cloning.close()
    finally:
        own_postgres.start()
        for name in cloning._databases:
            own_postgres.execute(f'DROP DATABASE IF EXISTS "{name}"')
    message = str(caught.value)
    assert message.startswith("These databases could not be dropped:\n  - sessionfactory_")
    assert "Connection refused" in message


def test_several_processes(server: PostgresServer) -> None:
    """Processes that clone on one server at the same time do not meet."""
    program = """
import sys
from sessionfactory.testing.cloning import CloningSessionFactory
from tests.testing.isolated import Base, add_player, one_team, players
with CloningSessionFactory(sys.argv[1], Base.metadata, seed=one_team) as cloning:
    for _ in range(3):
        with cloning.clone() as sessions:
            add_player(sessions)
            assert players(sessions) == 2
"""
    command = [sys.executable, "-W", "error", "-c", program, server.url]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
