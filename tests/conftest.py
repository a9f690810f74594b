"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.testing import MariaDBServer, PostgresServer
from tests.support.available import running_or_skipped
from tests.support.sqlite_pools import Databases

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def pytest_configure() -> None:
    """Hear SIGINT, which a shell has the programs ignore that it runs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the developer's own shell says about databases."""
    for variable in list(os.environ):
        if "DATABASE" in variable:
            monkeypatch.delenv(variable)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'app.db'}"


@pytest.fixture
def factory(url: str) -> Generator[SqlAlchemySessionFactory]:
    """A factory on a SQLite file with a table ``t(a)``."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as made:
        with made.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
        yield made


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """A PostgreSQL for all tests of a session that leave it running and clean."""
    with running_or_skipped(PostgresServer()) as server:
        yield server


@pytest.fixture(scope="session")
def own_postgres() -> Generator[PostgresServer]:
    """A PostgreSQL for tests that stop and kill it; each brings it up again."""
    with running_or_skipped(PostgresServer(settings={"max_connections": 42})) as server:
        server.execute("CREATE TABLE kept (value text)")
        server.execute("CREATE TABLE item (id int)")
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Generator[MariaDBServer]:
    """A MariaDB for all tests of a session that leave it running and clean."""
    with running_or_skipped(MariaDBServer()) as server:
        yield server


@pytest.fixture
def databases() -> Generator[Databases]:
    """What opens connections, all of which are closed at the end."""
    made = Databases()
    yield made
    made.close()
