"""``CloningSessionFactory`` on PostgreSQL: real databases, and none of them left."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessionfactory import DatabaseSettings, PoolSettings
from sessionfactory.testing.cloning._admin import Admin
from sessionfactory.testing.cloning.cloning import CloningSessionFactory
from sessionfactory.testing.memory._image import IsolationError
from tests.support.isolated import Base, one_team, players

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

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
    with CloningSessionFactory(server.url, Base.metadata, seed=one_team) as made:
        yield made


def clients(server: PostgresServer) -> list[str]:
    """Return who is connected to a clone or a template."""
    asked = "SELECT datname FROM pg_stat_activity WHERE datname LIKE 'sessionfactory%'"
    return server.execute(asked).splitlines()


def test_cloned_ahead(server: PostgresServer, cloning: CloningSessionFactory) -> None:
    """While a test runs, the next clones are made; names tell the process."""
    with cloning.clone() as sessions:
        name = sessions.settings.url.database
        for future in cloning._cloner._pending:
            future.result()
        found = [line for line in server.execute(DATABASES).splitlines() if "sessionf" in line]
        assert name in found
        assert len(found) == 4  # this one, two ahead, and the template
    cloning._cloner._thread.submit(int).result()
    assert name not in server.execute(DATABASES)


def test_nothing_is_left(server: PostgresServer) -> None:
    """No database and no connection is left, not even by a test that leaves sessions open."""
    settings = DatabaseSettings(server.url, pool=PoolSettings(size=3))
    left: list[Session] = []
    with CloningSessionFactory(settings, Base.metadata, seed=one_team) as cloning:
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


def test_template_is_gone(server: PostgresServer, cloning: CloningSessionFactory) -> None:
    """What fails in the background is raised in the test that needs the clone."""
    with cloning.clone():
        pass
    for future in cloning._cloner._pending:
        future.result()
    server.execute(f'DROP DATABASE "{cloning._cloner._template}"')
    for _ in range(2):  # those that were ahead
        with cloning.clone() as sessions:
            assert players(sessions) == 1
    for _ in range(2):
        with pytest.raises(IsolationError) as caught, cloning.clone():
            pytest.fail("there is no clone")
        assert str(caught.value) == (
            "No database could be cloned for this test:"
            f' template database "{cloning._cloner._template}" does not exist'
        )


def test_durable_server(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for its disk is spared the checkpoints that copying files takes."""
    said: list[str] = []
    execute = Admin.execute

    def note(self: Admin, statement: str) -> object:
        said.append(statement)
        return execute(self, statement)

    monkeypatch.setattr(Admin, "execute", note)
    for fsync in ("on", "off"):
        own_postgres.configure({"fsync": fsync})
        with (
            CloningSessionFactory(own_postgres.url, Base.metadata, ahead=0) as cloning,
            cloning.clone() as sessions,
        ):
            assert players(sessions) == 0
    clones = [statement for statement in said if "TEMPLATE" in statement]
    assert [statement.endswith("STRATEGY file_copy") for statement in clones] == [False, True]


def test_server_down(own_postgres: PostgresServer) -> None:
    """Where the server is gone, the databases that are left on it are named."""
    cloning = CloningSessionFactory(own_postgres.url, Base.metadata, ahead=0)
    with cloning.clone() as sessions:
        assert players(sessions) == 0
        own_postgres.stop()
    try:
        with pytest.raises(IsolationError) as caught:
            cloning.close()
    finally:
        own_postgres.start()
        for name in cloning._cloner._databases:
            own_postgres.execute(f'DROP DATABASE IF EXISTS "{name}"')
    message = str(caught.value)
    assert message.startswith("These databases could not be dropped:\n  - sessionfactory_")
    assert "Connection refused" in message


def test_several_processes(server: PostgresServer) -> None:
    """Processes that clone on one server at the same time do not meet."""
    program = """
import sys
from sessionfactory.testing.cloning.cloning import CloningSessionFactory
from tests.support.isolated import Base, add_player, one_team, players
with CloningSessionFactory(sys.argv[1], Base.metadata, seed=one_team) as cloning:
    for _ in range(3):
        with cloning.clone() as sessions:
            add_player(sessions)
            assert players(sessions) == 2
"""
    command = [sys.executable, "-W", "error", "-c", program, server.url]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
