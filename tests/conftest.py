"""Fixtures that more than one test file uses, and what holds for every test."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.testing import MariaDBServer, PostgresServer
from tests.support.available import MARIADB_LIMITS, POSTGRES_LIMITS, running_or_skipped
from tests.support.sqlite_pools import Databases

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


REPEATABLE: Final = "repeatable"
RANDOM: Final = "random"


def pytest_configure() -> None:
    """Make generated tests repeatable, and SIGINT heard where a shell has switched it off."""
    settings.register_profile(REPEATABLE, derandomize=True, deadline=None)
    settings.register_profile(RANDOM, deadline=None, print_blob=True)
    settings.load_profile(RANDOM if os.environ.get("SESSIONFACTORY_RANDOM") else REPEATABLE)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show in one line how many tests were skipped, and why."""
    skipped: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ").partition(":")[0]
        for report in skipped
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        shown = "; ".join(f"{count} ({reason})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"Skipped: {shown}")


@pytest.fixture(autouse=True)
def _own_leaks() -> Generator[None]:
    """Collect the garbage of each test when it ends, so that a leak is reported by its own test.

    What was there before is frozen meanwhile: both cost next to nothing, and the collection looks
    only at what the test has made.
    """
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


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
    with running_or_skipped(PostgresServer(settings=POSTGRES_LIMITS)) as server:
        yield server


@pytest.fixture(scope="session")
def own_postgres() -> Generator[PostgresServer]:
    """A PostgreSQL for tests that stop and kill it; each brings it up again."""
    server = PostgresServer(settings={"max_connections": 42, **POSTGRES_LIMITS})
    with running_or_skipped(server):
        server.execute("CREATE TABLE kept (value text)")
        server.execute("CREATE TABLE item (id int)")
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Generator[MariaDBServer]:
    """A MariaDB for all tests of a session that leave it running and clean."""
    with running_or_skipped(MariaDBServer(settings=MARIADB_LIMITS)) as server:
        yield server


@pytest.fixture
def databases() -> Generator[Databases]:
    """What opens connections, all of which are closed at the end."""
    made = Databases()
    yield made
    made.close()
