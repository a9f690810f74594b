"""One process migrates a database at a time; the others wait for it, and know for whom."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from tests.ext.alembic_project import ASYNC_ENV, GATE, LIMIT, Project, finished

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import Engine

WORKERS = 4


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """The URL of a database without tables but ``runs``, one for each kind of lock."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'app.db'}"
        _execute(url, "CREATE TABLE runs (a INTEGER)")
        yield url
        return
    fixture = "postgres_server" if request.param == "postgresql" else "mariadb_server"
    server = request.getfixturevalue(fixture)
    name = f"migrated_{time.monotonic_ns()}"
    with _engine(server.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
        _execute(url, "CREATE TABLE runs (a INTEGER)")
        yield url
        connection.exec_driver_sql(f"DROP DATABASE {name}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose only migration writes a row, and waits for the file ``go``."""
    made = Project.make(tmp_path, options=", lock_timeout=40")
    made.add("one", GATE)
    return made


def _engine(url: str, **options: Any) -> Engine:
    return create_engine(url, poolclass=NullPool, **options)


def _execute(url: str, statement: str) -> None:
    with _engine(url).begin() as connection:
        connection.execute(text(statement))


def _count(url: str) -> object:
    with _engine(url).connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM runs"))


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.01)


def _line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process logs until a line has these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    pytest.fail(f"the process ended without {words!r}")


def test_workers_that_start_at_once_run_a_migration_once(empty_url: str, project: Project) -> None:
    """Of four workers on an empty database one migrates, and all of them end well."""
    (project.folder / "go").touch()
    with ExitStack() as stack:
        workers = [project.start("upgrade", "head", DATABASE_URL=empty_url) for _ in range(WORKERS)]
        for worker in workers:
            stack.callback(worker.kill)
        outputs = [finished(worker) for worker in workers]

    assert len(outputs) == WORKERS
    assert _count(empty_url) == 1


def test_a_waiting_worker_names_the_holder_and_outlives_it(
    empty_url: str, project: Project
) -> None:
    """A worker that waits logs for whom; when that one is killed, it migrates itself."""
    with ExitStack() as stack:
        holder = project.start("upgrade", "head", DATABASE_URL=empty_url)
        stack.callback(holder.communicate)
        stack.callback(holder.kill)
        _wait_for(project.folder / "started")
        waiter = project.start("upgrade", "head", DATABASE_URL=empty_url)
        stack.callback(waiter.kill)
        line = _line_with(waiter, "Waiting for migrations of database 'default', run by ")
        holder.kill()
        holder.wait(LIMIT)
        (project.folder / "go").touch()
        finished(waiter)

    if "mysql" in empty_url:
        assert "connection " in line
    else:
        assert f"process {holder.pid}" in line
    assert _count(empty_url) in {1, 2}  # MariaDB's half of the killed migration may be there


def test_a_worker_does_not_wait_for_ever(empty_url: str, tmp_path: Path) -> None:
    """After lock_timeout, the error names the holder and what to do."""
    project = Project.make(tmp_path / "impatient", options=", lock_timeout=0.1")
    project.add("one", GATE)
    with ExitStack() as stack:
        holder = project.start("upgrade", "head", DATABASE_URL=empty_url)
        stack.callback(holder.communicate)
        stack.callback(holder.kill)
        _wait_for(project.folder / "started")
        waiter = project.start("upgrade", "head", DATABASE_URL=empty_url)
        stack.callback(waiter.kill)
        error = waiter.communicate(timeout=LIMIT)[1]
        (project.folder / "go").touch()
        finished(holder)

    assert waiter.returncode == 1
    assert "MigrationLockError: Migrations of database 'default' are still run by " in error
    assert "wait for it and start again" in error
    assert _count(empty_url) == 1


@pytest.mark.parametrize("driver", ["sqlite", "postgresql"])
def test_the_async_half_takes_the_lock_as_well(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Four async workers run a migration once."""
    if driver == "sqlite":
        url = f"sqlite:///{tmp_path / 'app.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = make_url(server.url).set(drivername="postgresql+psycopg").render_as_string(False)
        _execute(url, "DROP SCHEMA IF EXISTS async_half CASCADE")
        _execute(url, "CREATE SCHEMA async_half")
        url += f"{'&' if '?' in url else '?'}options=-csearch_path%3Dasync_half"
    _execute(url, "CREATE TABLE runs (a INTEGER)")
    project = Project.make(tmp_path / "async", env=ASYNC_ENV)
    project.add("one", GATE)
    (project.folder / "go").touch()

    workers = [project.start("upgrade", "head", DATABASE_URL=url) for _ in range(4)]
    for worker in workers:
        finished(worker)

    assert _count(url) == 1
