"""SQLite is safe out of the box."""

from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError

from sessionfactory import (
    DatabaseSettings,
    PoolExhaustedError,
    PoolSettings,
    ReadOnlyError,
    SettingsError,
    SqlAlchemySessionFactory,
    SqliteSettings,
)
from sessionfactory.engine import sqlite


def pragma(factory: SqlAlchemySessionFactory, name: str) -> object:
    with factory() as session:
        return session.scalar(text(f"PRAGMA {name}"))


def test_defaults(factory: SqlAlchemySessionFactory) -> None:
    """A file gets WAL, normal synchronous, five seconds of patience and foreign keys."""
    assert pragma(factory, "journal_mode") == "wal"
    assert pragma(factory, "synchronous") == 1
    assert pragma(factory, "busy_timeout") == 5000
    assert pragma(factory, "foreign_keys") == 1


def test_settings(url: str) -> None:
    """Each of them has its setting."""
    own = SqliteSettings(
        journal="delete", synchronous="full", busy_timeout=0.25, foreign_keys=False
    )
    with SqlAlchemySessionFactory(DatabaseSettings(url, sqlite=own)) as factory:
        assert pragma(factory, "journal_mode") == "delete"
        assert pragma(factory, "synchronous") == 2
        assert pragma(factory, "busy_timeout") == 250
        assert pragma(factory, "foreign_keys") == 0


def test_journal_can_be_kept(url: str) -> None:
    """With journal="keep", the file's own journal stays what it is."""
    own = SqliteSettings(journal="keep")
    with SqlAlchemySessionFactory(DatabaseSettings(url, sqlite=own)) as factory:
        assert pragma(factory, "journal_mode") == "delete"


def test_foreign_keys_are_enforced(factory: SqlAlchemySessionFactory) -> None:
    """A row that refers to nothing is refused."""
    with factory.begin() as session:
        session.execute(text("CREATE TABLE p (id INTEGER PRIMARY KEY)"))
        session.execute(text("CREATE TABLE c (p INTEGER REFERENCES p (id))"))
    with pytest.raises(IntegrityError), factory.begin() as session:
        session.execute(text("INSERT INTO c VALUES (1)"))


def test_no_update_is_lost(factory: SqlAlchemySessionFactory) -> None:
    """Read-modify-writes from eight threads are all there, and none fails."""
    with factory.begin() as session:
        session.execute(text("INSERT INTO t VALUES (0)"))

    def increment(_: int) -> None:
        with factory.begin() as session:
            value = session.scalar(text("SELECT a FROM t")) or 0
            session.execute(text("UPDATE t SET a = :a"), {"a": value + 1})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(increment, range(200)))
    with factory() as session:
        assert session.scalar(text("SELECT a FROM t")) == 200


def test_begin_takes_the_write_lock_and_call_does_not(factory: SqlAlchemySessionFactory) -> None:
    """Under a transaction of begin(), readers read on; a second one has to wait."""
    with factory.begin() as writer:
        writer.execute(text("INSERT INTO t VALUES (1)"))
        with factory() as one, factory() as two, factory.reader.begin() as three:
            for session in (one, two, three):
                assert session.scalar(text("SELECT count(*) FROM t")) == 0
        with factory() as session:
            session.execute(text("PRAGMA busy_timeout = 0"))
            with pytest.raises(OperationalError, match="locked"):
                session.execute(text("INSERT INTO t VALUES (2)"))


def test_begin_can_be_deferred(url: str) -> None:
    """With begin="deferred", two transactions that only read are open side by side."""
    own = SqliteSettings(begin="deferred")
    with SqlAlchemySessionFactory(DatabaseSettings(url, sqlite=own)) as factory:
        with factory.begin() as session:
            session.execute(text("CREATE TABLE t (a INTEGER)"))
        with factory.begin() as one, factory.begin() as two:
            assert one.scalar(text("SELECT count(*) FROM t")) == 0
            assert two.scalar(text("SELECT count(*) FROM t")) == 0


def test_stale_snapshot_is_an_error_and_no_loss(factory: SqlAlchemySessionFactory) -> None:
    """A deferred transaction that writes after an outdated read fails instead of overwriting."""
    with factory.begin() as session:
        session.execute(text("INSERT INTO t VALUES (0)"))
    with factory() as stale:
        assert stale.scalar(text("SELECT a FROM t")) == 0
        with factory.begin() as session:
            session.execute(text("UPDATE t SET a = 1"))
        with pytest.raises(OperationalError, match="locked") as caught:
            stale.execute(text("UPDATE t SET a = 2"))
    assert isinstance(caught.value.orig, sqlite3.OperationalError)
    assert caught.value.orig.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"


def test_rollback_covers_ddl_and_savepoints(factory: SqlAlchemySessionFactory) -> None:
    """A rolled-back transaction leaves nothing, tables and released savepoints included."""
    with pytest.raises(KeyError), factory.begin() as session:
        session.execute(text("CREATE TABLE u (a INTEGER)"))
        with session.begin_nested():
            session.execute(text("INSERT INTO t VALUES (1)"))
        raise KeyError
    with factory() as session:
        assert session.scalar(text("SELECT count(*) FROM t")) == 0
        assert session.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'u'")) == 0


def test_autocommit_and_back(factory: SqlAlchemySessionFactory) -> None:
    """A connection that was used in AUTOCOMMIT begins its next transaction as any other."""
    with factory.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    with pytest.raises(KeyError), factory.begin() as session:
        session.execute(text("DELETE FROM t"))
        raise KeyError
    with factory() as session:
        assert session.scalar(text("SELECT count(*) FROM t")) == 1


def test_reader_cannot_write(factory: SqlAlchemySessionFactory) -> None:
    """The reader reads; a write through it is refused, and the connection writes again later."""
    with factory.reader.begin() as session:
        assert session.scalar(text("SELECT count(*) FROM t")) == 0
        with pytest.raises(ReadOnlyError, match=r"read-only.*Write in sessions\.begin\(\)"):
            session.execute(text("INSERT INTO t VALUES (1)"))
    with factory.reader() as session, pytest.raises(ReadOnlyError):
        session.execute(text("INSERT INTO t VALUES (1)"))
    for _ in range(factory.status().size):
        with factory.begin() as session:
            session.execute(text("INSERT INTO t VALUES (1)"))


def test_reader_passes_other_errors(factory: SqlAlchemySessionFactory) -> None:
    """An error of the reader that is no refused write stays SQLAlchemy's own."""
    with factory.reader.begin() as session, pytest.raises(OperationalError, match="no such table"):
        session.execute(text("SELECT * FROM nowhere"))


@pytest.mark.parametrize("memory", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_shared_safely(memory: str) -> None:
    """Threads take turns on the one connection of a database in memory, and lose nothing."""
    settings = DatabaseSettings(memory, pool=PoolSettings(recycle=0.001))
    with SqlAlchemySessionFactory(settings) as factory:
        with factory.begin() as session:
            session.execute(text("CREATE TABLE t (a INTEGER)"))
            session.execute(text("INSERT INTO t VALUES (0)"))

        def increment(_: int) -> None:
            with factory.begin() as session:
                value = session.scalar(text("SELECT a FROM t")) or 0
                session.execute(text("UPDATE t SET a = :a"), {"a": value + 1})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(increment, range(200)))
        with factory.reader() as session:
            assert session.scalar(text("SELECT a FROM t")) == 200
        assert factory.status().limit == 1
        assert factory.ping().ok


def test_nested_sessions_in_memory_name_the_holder() -> None:
    """A second session beside an open one cannot have the only connection, and is told who has."""
    with (
        SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory,
        factory.begin() as outer,
        factory.begin() as inner,
    ):
        outer.execute(text("SELECT 1"))
        message = r"the last of them.*\n  - .*test_sqlite\.py:\d+ in test_nested"
        with pytest.raises(PoolExhaustedError, match=message):
            inner.execute(text("SELECT 1"))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_ping_makes_no_file(tmp_path: Path) -> None:
    """A ping of a file that is not there says so, and makes none."""
    settings = DatabaseSettings(f"sqlite:///{tmp_path / 'none.db'}")
    with SqlAlchemySessionFactory(settings) as factory:
        health = factory.ping()
    assert (health.state, health.ok) == ("unreachable", False)
    assert "there is no file" in health.detail
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_ping_changes_no_file(tmp_path: Path, journal: str) -> None:
    """A ping reads the file and leaves it, and what is beside it, as it was."""
    file = tmp_path / "app #1?.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE t (a)")
    before = snapshot(tmp_path)
    url = URL.create("sqlite", database=str(file))
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        health = factory.ping()
    assert health.ok
    assert health.latency is not None
    assert snapshot(tmp_path) == before


def test_ping_tells_no_database(tmp_path: Path) -> None:
    """A file that is no database is refused, a directory unreachable."""
    (tmp_path / "text.db").write_text("no database " * 1000)
    for name, state in (("text.db", "refused"), ("", "unreachable")):
        settings = DatabaseSettings(f"sqlite:///{tmp_path / name}")
        with SqlAlchemySessionFactory(settings) as factory:
            assert factory.ping().state == state


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_ping_of_what_cannot_be_written(what: str) -> None:
    """A ping of a file that can be read and not written succeeds, and its detail is the reason."""
    with TemporaryDirectory() as name, ExitStack() as undo:
        folder, file = Path(name), Path(name, "app.db")
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE t (a)")
        file.chmod(0o444 if what == "file" else 0o666)
        folder.chmod(0o777 if what == "file" else 0o555)
        undo.callback(folder.chmod, 0o777)
        sessions = undo.enter_context(
            SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{file}"))
        )
        if os.geteuid() == 0:  # root may write anything
            undo.callback(os.seteuid, 0)
            os.seteuid(65534)
        health = sessions.ping()
    assert health.ok
    assert health.detail.startswith("read-only: this process may not")
    assert what in health.detail


def test_ping_of_an_encrypted_file(tmp_path: Path) -> None:
    """A ping by plain SQLite of what may be an encrypted file mentions that."""
    (tmp_path / "shop.db").write_bytes(bytes(range(1, 256)) * 33)
    with SqlAlchemySessionFactory(
        DatabaseSettings(f"sqlite:///{tmp_path / 'shop.db'}")
    ) as sessions:
        health = sessions.ping()
    assert health.state == "refused"
    assert "encrypted" in health.detail


def test_ping_keeps_the_locks_of_this_process(factory: SqlAlchemySessionFactory) -> None:
    """A ping amid a transaction takes no lock away: another process still cannot write."""
    file = factory.engine.url.database
    assert file
    with factory.begin() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        assert factory.ping().ok
        child = os.fork()
        if child == 0:  # pragma: no cover - the child only tries to lock
            with closing(sqlite3.connect(file, timeout=0)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_missing_directory(tmp_path: Path) -> None:
    """A directory that is not there is named, and once it is there the factory works."""
    folder = tmp_path / "no" / "dir"
    settings = DatabaseSettings(f"sqlite:///{folder / 'app.db'}")
    with SqlAlchemySessionFactory(settings, name="main") as factory:
        message = r"main\.url: the directory '.*dir' of the SQLite file does not exist"
        with pytest.raises(SettingsError, match=message), factory.begin() as session:
            session.execute(text("SELECT 1"))
        assert factory.status().size == 0
        folder.mkdir(parents=True)
        with factory.begin() as session:
            assert session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file::memory:?cache=shared&uri=true", None),
        ("sqlite:///file:shared?mode=memory&cache=shared&uri=true", None),
        ("sqlite:///app.db", Path("app.db")),
        ("sqlite:///file:/var/app%201.db?mode=ro&uri=true", Path("/var/app 1.db")),
    ],
)
def test_file_of(given: str, file: Path | None) -> None:
    """The file that a URL means is found in every spelling; memory has none."""
    assert sqlite.file_of(make_url(given)) == file


def test_many_threads_make_the_file(url: str) -> None:
    """Eight threads that use a new file at once all get through its change to WAL."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        start = threading.Barrier(8)

        def read(_: int) -> object:
            start.wait()
            with factory() as session:
                return session.scalar(text("SELECT 1"))

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(read, range(8))) == [1] * 8


def test_read_only_file(tmp_path: Path) -> None:
    """A file that is opened read-only keeps its journal, and can be read."""
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a)")
    url = f"sqlite:///file:{file}?mode=ro&uri=true"
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory, factory() as session:
        assert session.scalar(text("SELECT count(*) FROM t")) == 0


@pytest.mark.parametrize("url", ["sqlite:///app.db?timeout=60", "sqlite:///app.db"])
def test_what_our_settings_decide_is_not_said_twice(url: str) -> None:
    """The driver's own patience and transactions would win silently, or lose."""
    arguments = {} if "?" in url else {"isolation_level": None}
    options = {"connect_args": arguments}
    with pytest.raises(SettingsError, match=r"may not name what a setting covers: (timeout|isol)"):
        SqlAlchemySessionFactory(DatabaseSettings(url, engine_options=options))


def test_ping_of_memory_that_is_shared() -> None:
    """A database of the memdb file system is in memory, and no file is missed."""
    url = "sqlite:///file:/pinged?vfs=memdb&uri=true"
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        health = factory.ping()
    assert (health.state, health.detail) == ("ok", "in memory")
