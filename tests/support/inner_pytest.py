"""Runs pytest inside a test, on files of the test's own, with the plugins that the test names."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

# An inner run in this process drops what it imported; these cannot, or need not, be loaded twice.
for _module in (
    "aiosqlite",
    "asyncpg",
    "psycopg",
    "sessionfactory.testing.pytest_support._databases",
    "sessionfactory.testing.pytest_support._databases_async",
    "sessionfactory.testing.pytest_support._module_registry",
    "sqlalchemy.dialects.postgresql",
):
    import_module(_module)

PLUGIN: Final = ("-p", "sessionfactory.pytest_plugin")
ASYNCIO: Final = ("-p", "pytest_asyncio.plugin")
ANYIO: Final = ("-p", "anyio.pytest_plugin")
XDIST: Final = ("-p", "xdist.plugin")
NOT_INHERITED: Final = {"PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"}
CONFTEST: Final = """
import pytest

@pytest.fixture(scope="session")
def session_registry(session_registry):
    for name in session_registry.names:
        with session_registry.engine(name).begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS item (name TEXT)")
    return session_registry
"""
TOOLS: Final = """
import pytest
from sqlalchemy import text

from sessionfactory import NotConfiguredError

def add(sessions):
    with sessions.begin() as session:
        session.execute(text("INSERT INTO item VALUES ('new')"))

def count(sessions):
    with sessions() as session:
        return session.scalar(text("SELECT count(*) FROM item"))
"""


class InnerPytest:
    """One folder of tests, and the means to run them.

    Plugins are named, and never found: whichever are installed here, a run has those of its test.
    """

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.folder: Path = pytester.path
        self._ini = [
            "[pytest]",
            "addopts = --strict-markers",
            "filterwarnings =",
            "  error",
            # Runs in this process find the plugin imported, by the installed entry point.
            "  ignore:Module already imported:pytest.PytestAssertRewriteWarning",
        ]
        self.ini()
        pytester.makeconftest(CONFTEST)

    def ini(self, *lines: str) -> None:
        """Add lines to the ini file."""
        self._ini += lines
        (self.folder / "pytest.ini").write_text("\n".join(self._ini))

    def tests(self, source: str) -> None:
        """Write the test file, on top of ``TOOLS``."""
        self._pytester.makepyfile(test_inner=TOOLS + source)

    def run(self, *args: str) -> pytest.RunResult:
        """Run the tests in this process."""
        return self._pytester.runpytest_inprocess(*PLUGIN, *args)

    def run_apart(self, *args: str) -> pytest.RunResult:
        """Run the tests in a process of their own."""
        return self._pytester.runpytest_subprocess(*PLUGIN, *args, timeout=60)

    def passes(self, *args: str, passed: int) -> None:
        """Run the tests, and require that so many passed and nothing else happened."""
        self.run(*args).assert_outcomes(passed=passed)

    def rows(self, file: str = "app.db") -> int:
        """Return how many rows a database has after the run."""
        with closing(sqlite3.connect(self.folder / file)) as connection:
            ((rows,),) = connection.execute("SELECT count(*) FROM item")
        return int(rows)


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> InnerPytest:
    """Tests of a user, who set ``DATABASE_URL``."""
    for name in set(os.environ) & NOT_INHERITED:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # of run_apart
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///app.db")
    return InnerPytest(pytester)
