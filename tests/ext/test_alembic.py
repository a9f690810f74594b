"""Migrations on the databases of a registry: what an ``env.py`` of five lines gets."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from sessionfactory import SettingsError
from sessionfactory.ext.alembic import MigrationKeysError, states, template
from sessionfactory.ext.alembic_locks import MigrationLockError
from tests.ext.alembic_project import ASYNC_ENV, SYNC_ENV, Project
from tests.support.available import running_or_skipped
from tests.support.commands import run
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory.ext.alembic import MigrationState
    from sessionfactory.testing import PostgresServer

FAMILY = """\
op.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY, name VARCHAR(20))")
op.execute(
    "CREATE TABLE children (id INTEGER PRIMARY KEY,"
    " parent INTEGER REFERENCES parents (id) ON DELETE CASCADE)"
)
op.execute("INSERT INTO parents VALUES (1, 'a')")
op.execute("INSERT INTO children VALUES (1, 1), (2, 1)")
"""
REBUILD = """\
import sqlalchemy as sa
with op.batch_alter_table("parents") as batch:
    batch.alter_column("name", type_=sa.String(40))
"""
TWO_ENV = """\
from sessionfactory import SessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations

with SessionFactoryRegistry.from_env() as registry:
    run_migrations(registry, {{"default": None, "analytics": None}}{options})
"""


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query on a SQLite file."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SQLite file that is not there yet; its URL is in DATABASE_URL."""
    path = tmp_path / "app.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    return path


@pytest.mark.parametrize("env", [SYNC_ENV, ASYNC_ENV], ids=["sync", "async"])
def test_a_rebuilt_table_keeps_its_children(file: Path, tmp_path: Path, env: str) -> None:
    """A batch migration on SQLite leaves the rows that refer to the rebuilt table."""
    project = Project.make(tmp_path / "project", env=env)
    project.add("one", FAMILY)
    project.add("two", REBUILD, before="one")

    command.upgrade(project.config, "head")

    assert rows(file, "SELECT count(*) FROM children") == [(2,)]
    assert "VARCHAR(40)" in str(rows(file, "SELECT sql FROM sqlite_master WHERE name='parents'"))


def test_broken_keys_undo_the_migrations(file: Path, tmp_path: Path) -> None:
    """Migrations that leave a row without its parent are rolled back, all of them, and named."""
    project = Project.make(tmp_path / "project")
    project.add("one", FAMILY)
    project.add("two", "op.execute('DELETE FROM parents')", before="one")

    with pytest.raises(MigrationKeysError, match="leave rows of children without the row"):
        command.upgrade(project.config, "head")

    assert rows(file, "SELECT name FROM sqlite_master") == []


def test_keys_that_were_broken_before_do_not_matter(file: Path, tmp_path: Path) -> None:
    """A database whose rows have lost their parents long ago can still be migrated."""
    project = Project.make(tmp_path / "project")
    project.add("one", FAMILY)
    command.upgrade(project.config, "head")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM parents")  # sqlite3 enforces no foreign keys
    project.add("two", REBUILD, before="one")

    command.upgrade(project.config, "head")

    assert rows(file, "SELECT count(*) FROM children") == [(2,)]


def test_a_failed_migration_leaves_nothing(file: Path, tmp_path: Path) -> None:
    """What raises in the second migration undoes the first as well on SQLite."""
    project = Project.make(tmp_path / "project")
    project.add("one", FAMILY)
    project.add("two", "raise LookupError('halt')", before="one")

    with pytest.raises(LookupError, match="halt"):
        command.upgrade(project.config, "head")

    assert rows(file, "SELECT name FROM sqlite_master") == []


def test_several_databases(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each database of the mapping gets its own half of a revision; -x restricts to one."""
    other = tmp_path / "other.db"
    monkeypatch.setenv("ANALYTICS_DATABASE_URL", f"sqlite:///{other}")
    project = Project.make(tmp_path / "project", env=TWO_ENV)
    body = 'op.execute(f"CREATE TABLE of_{engine_name} (a INTEGER)")'
    project.add("one", body, parameters="engine_name")

    one = {"DATABASE_URL": f"sqlite:///{file}", "ANALYTICS_DATABASE_URL": f"sqlite:///{other}"}
    project.run("-x", "database=analytics", "upgrade", "head", **one)
    assert rows(other, "SELECT name FROM sqlite_master WHERE name LIKE 'of_%'") == [
        ("of_analytics",)
    ]
    assert not file.exists()

    command.upgrade(project.config, "head")
    assert rows(file, "SELECT name FROM sqlite_master WHERE name LIKE 'of_%'") == [("of_default",)]
    assert {state.name for state in states(str(project.folder / "alembic.ini"))} == {
        "default",
        "analytics",
    }
    refused = project.start("-x", "database=analytcs", "upgrade", "head", **one)
    assert "expected one of default, analytics" in refused.communicate()[1]


@pytest.mark.parametrize("kind", ["sync", "async", "multidb"])
def test_a_template_makes_a_project_that_works(tmp_path: Path, kind: str) -> None:
    """`alembic init -t` with our template, a revision and an upgrade need no further edit."""
    urls = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}",
        "ANALYTICS_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}",
    }
    folder = subprocess.run(
        [sys.executable, "-m", "sessionfactory.ext.alembic", kind],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    project = Project(tmp_path)

    project.run("init", "-t", folder, "migrations")
    project.run("revision", "-m", "first", **urls)
    output = project.run("upgrade", "head", **urls)

    assert "Running upgrade  -> " in output  # alembic.ini's logging is set up
    assert all(state.is_current for state in _states_of(project, urls))


def _states_of(project: Project, urls: dict[str, str]) -> tuple[MigrationState, ...]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in urls.items():
            patch.setenv(name, value)
        return states(str(project.folder / "alembic.ini"))


def test_a_template_that_is_not_there() -> None:
    """The error lists the templates, and so does the command."""
    arguments = [sys.executable, "-m", "sessionfactory.ext.alembic", "flask"]
    process = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr == "expected one of async, multidb, sync\n"
    with pytest.raises(ValueError, match="expected one of async, multidb, sync"):
        template("flask")


def test_the_url_passes_no_configuration_parser(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """A password with % and @, which breaks alembic.ini, is just a password here."""
    password = "a%b@c%(d)s"
    engine = create_engine(postgres_server.url, poolclass=NullPool)
    with engine.begin() as connection:
        role = f"CREATE ROLE percent LOGIN SUPERUSER PASSWORD '{password}'"
        connection.exec_driver_sql(role.replace("%", "%%"))
    url = make_url(postgres_server.url).set(username="percent", password=password)
    project = Project.make(tmp_path)
    project.add("one", "op.execute('SELECT 1')")

    text = url.render_as_string(hide_password=False)
    output = project.run("upgrade", "head", DATABASE_URL=text)

    assert "a%b" not in output
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql("DROP ROLE percent")


def test_a_concurrent_index_and_the_lock_go_together(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """PostgreSQL's autocommit_block works under the lock, and the lock is given back."""
    project = Project.make(tmp_path)
    project.add(
        "one",
        "op.execute('CREATE TABLE indexed (a int)')\n"
        "with op.get_context().autocommit_block():\n"
        "    op.execute('CREATE INDEX CONCURRENTLY indexed_a ON indexed (a)')",
    )
    # In a database of its own: the index waits for each transaction that is open in its database.
    postgres_server.execute("CREATE DATABASE indexed_apart")
    url = postgres_server.url_for("psycopg", "indexed_apart")

    project.run("upgrade", "head", DATABASE_URL=url)

    with create_engine(url, poolclass=NullPool).begin() as connection:
        locks = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert connection.exec_driver_sql(locks).scalar() == 0
    postgres_server.execute("DROP DATABASE indexed_apart WITH (FORCE)")


def test_a_transaction_pooler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    """Behind PgBouncer, where the lock would not hold, migrations are refused, with the remedy."""
    with running_or_skipped(PgBouncer(postgres_server)) as pooler:
        monkeypatch.setenv("DATABASE_URL", pooler.url_for())
        project = Project.make(tmp_path)
        project.add("one", "pass")
        with pytest.raises(MigrationLockError, match="a URL that leads to the server itself"):
            command.upgrade(project.config, "head")


@pytest.mark.parametrize("env", [SYNC_ENV, ASYNC_ENV], ids=["sync", "async"])
def test_sql_can_be_printed(file: Path, tmp_path: Path, env: str) -> None:
    """`upgrade --sql` prints the statements, and touches no database."""
    project = Project.make(tmp_path / "project", env=env)
    project.add("one", FAMILY)

    output = project.run("upgrade", "head", "--sql", DATABASE_URL=f"sqlite:///{file}")

    assert "CREATE TABLE parents" in output
    assert not file.exists()


def test_a_given_connection_is_used_as_it_is(file: Path, tmp_path: Path) -> None:
    """A test's own connection is migrated inside its own transaction, which it rolls back."""
    project = Project.make(tmp_path / "project")
    project.add("one", FAMILY)
    config = project.config
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.rollback()

    assert rows(tmp_path / "own.db", "SELECT name FROM sqlite_master") == []
    assert not file.exists()


@pytest.mark.parametrize("fixture", ["postgres_server", "mariadb_server"])
def test_a_failed_migration_gives_the_lock_back(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error in a migration, the next process can migrate at once."""
    server = request.getfixturevalue(fixture)
    monkeypatch.setenv("DATABASE_URL", server.url)
    project = Project.make(tmp_path, options=", lock_timeout=0.1")
    project.add("one", "raise LookupError('halt')")
    with pytest.raises(LookupError, match="halt"):
        command.upgrade(project.config, "head")
    project.add("one", "pass")

    project.run("upgrade", "head", DATABASE_URL=server.url)

    with create_engine(server.url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")


def test_a_file_that_cannot_be_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not another process' lock is raised, and not waited for."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER)")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///file:{file}?mode=ro&uri=true")
    project = Project.make(tmp_path / "project")
    project.add("one", "pass")

    with pytest.raises(OperationalError, match="readonly database"):
        command.upgrade(project.config, "head")


def test_a_given_connection_of_the_async_half(file: Path, tmp_path: Path) -> None:
    """The async env.py uses a given connection as well."""
    project = Project.make(tmp_path / "project", env=ASYNC_ENV)
    project.add("one", "op.execute('CREATE TABLE given (a INTEGER)')")
    config = project.config
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}", poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    assert rows(tmp_path / "own.db", "SELECT name FROM sqlite_master WHERE name = 'given'")
    assert not file.exists()


def test_states_show_what_is_missing(file: Path, tmp_path: Path) -> None:
    """A database is behind until it is upgraded; looking changes nothing."""
    project = Project.make(tmp_path / "project")
    project.add("one", FAMILY)
    ini = str(project.folder / "alembic.ini")

    (behind,) = states(ini)
    assert rows(file, "SELECT name FROM sqlite_master") == []
    command.upgrade(project.config, "head")
    (current,) = states(ini)

    assert str(behind) == "at no revision, the scripts end at one; run `alembic upgrade head`"
    assert (current.name, current.is_current) == ("default", True)
    assert str(current) == "up to date at one"
    with pytest.raises(SettingsError, match="the file does not exist"):
        states(str(tmp_path / "nowhere.ini"))


def test_the_command_compares_heads(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sessionfactory check --migrations` ends with 1 before an upgrade, with 0 after it."""
    project = Project.make(tmp_path / "project")
    project.add("one", FAMILY)
    monkeypatch.chdir(project.folder)
    url = f"sqlite:///{file}"

    before = run("check", "--migrations", DATABASE_URL=url)
    command.upgrade(project.config, "head")
    after = run("check", "--migrations", "--json", DATABASE_URL=url)

    assert before.status == 1
    assert "migrations: at no revision, the scripts end at one" in before.out
    assert after.status == 0
    assert '"migrations": "up to date at one"' in after.out


def test_scripts_that_alembic_cannot_use(tmp_path: Path) -> None:
    """The error of Alembic names the file as well."""
    (tmp_path / "alembic.ini").write_text("[alembic]\n")

    with pytest.raises(SettingsError, match=r"alembic\.ini: No 'script_location' key"):
        states(str(tmp_path / "alembic.ini"))


def test_the_command_says_where_alembic_is_missing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without alembic.ini, `check --migrations` ends with 2 and names the file."""
    monkeypatch.chdir(tmp_path)

    result = run("check", "--migrations", DATABASE_URL=f"sqlite:///{file}")

    assert result.status == 2
    assert "alembic.ini" in result.err
