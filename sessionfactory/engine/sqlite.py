"""SQLite made safe: transactions that begin when we say so, WAL, foreign keys, a pool that fits.

The standard library's driver begins no transaction before a SELECT, so that two read-modify-writes
lose an update without an error. Here every transaction begins with a BEGIN of ours.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qs, quote, unquote

from sqlalchemy import event
from sqlalchemy.util.concurrency import await_only

from sessionfactory.config.values import milliseconds
from sessionfactory.drivers.sqlalchemy_private import listen_once
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.status import Health

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from sessionfactory.config.settings import SqliteSettings

_QUERY_ONLY: Final = "sessionfactory_query_only"


def is_memory(url: URL) -> bool:
    """Say whether a SQLite URL means a database in memory, which lives in its connection."""
    database = url.database or ""
    mode = parse_qs(database.partition("?")[2]).get("mode", [url.query.get("mode", "")])
    return database.partition("?")[0] in {"", ":memory:", "file::memory:"} or "memory" in mode


def file_of(url: URL) -> Path | None:
    """Return the file that a SQLite URL means; ``None`` if it is in memory."""
    if is_memory(url):
        return None
    database = (url.database or "").partition("?")[0] if _is_uri(url) else (url.database or "")
    return Path(unquote(database.removeprefix("file:"))) if _is_uri(url) else Path(database)


def _is_uri(url: URL) -> bool:
    return (url.database or "").startswith("file:") and "uri" in url.query


def _is_read_only(url: URL) -> bool:
    options = {**parse_qs((url.database or "").partition("?")[2]), **url.query}
    return _is_uri(url) and ("ro" in options.get("mode", ()) or "immutable" in options)


def pragmas(settings: SqliteSettings, file: Path | None) -> tuple[str, ...]:
    """Return what makes a connection to a file, or to a database in memory, as the settings say."""
    statements = (
        f"PRAGMA busy_timeout = {milliseconds(settings.busy_timeout)}",
        f"PRAGMA foreign_keys = {'ON' if settings.foreign_keys else 'OFF'}",
        f"PRAGMA synchronous = {settings.synchronous}",
    )
    if file is None or settings.journal == "keep":
        return statements
    return (*statements, f"PRAGMA journal_mode = {settings.journal}")


def prepare(engine: Engine, settings: SqliteSettings, name: str) -> None:
    """Give the connections and transactions of a SQLite engine what the settings say."""
    file = file_of(engine.url)
    changes = None if _is_read_only(engine.url) else file  # a journal is a change to the file
    statements = pragmas(settings, changes)

    @event.listens_for(engine, "do_connect")
    def check_directory(*_: object) -> None:
        if file is not None and not file.parent.is_dir():
            problem = f"the directory {str(file.parent)!r} of the SQLite file does not exist"
            raise SettingsError([Fault(f"{name}.url", problem)])

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _record: object) -> None:
        try:
            _run(connection, *statements)
        except sqlite3.Error:
            connection.close()
            raise

    engine.dialect = _beginning(engine.dialect, settings.begin)


def deferred(engine: Engine) -> Engine:
    """Return a view of an engine, on the same pool, whose transactions lock nothing to read."""
    view = engine.execution_options()
    view.dialect = _beginning(engine.dialect, "deferred")
    return view


def read_only(view: Engine, engine: Engine) -> None:
    """Have the transactions of a view of an engine not write."""
    view.dialect = _beginning(view.dialect, "deferred", "PRAGMA query_only = ON")
    listen_once(engine, "reset", _end_read_only)  # once for their pool


def _end_read_only(
    connection: DBAPIConnection, record: ConnectionPoolEntry | None, _: object
) -> None:
    """Let a connection write again, on its return to the pool; one that is detached has none."""
    if record is not None and record.info.pop(_QUERY_ONLY, False):
        _run(connection, "PRAGMA query_only = OFF")


def _run(connection: DBAPIConnection | sqlite3.Connection, *statements: str) -> None:
    driver = getattr(connection, "driver_connection", None)
    if driver is not None:  # aiosqlite: all at once, for each call waits for another thread
        await_only(driver.executescript("; ".join(statements)))
    else:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()


def _beginning(dialect: Dialect, how: str, *before: str) -> Dialect:
    """Return the same dialect with another BEGIN.

    ``Dialect.do_begin`` is SQLAlchemy's own place for it. A listener to ``begin`` would do, too,
    but makes every connection build its listeners anew: a quarter of a small transaction's time.
    The dialects share their state, which the first connection fills in.
    """

    class Beginning(type(dialect)):  # type: ignore[misc]  # a class is known when it is made
        supports_statement_cache = True

        def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
            raw: Any = dbapi_connection.dbapi_connection
            if before:
                dbapi_connection.info[_QUERY_ONLY] = True
            if raw.isolation_level is not None:  # ``None`` is how SQLAlchemy says AUTOCOMMIT
                _run(raw, *before, f"BEGIN {how}")
            elif before:
                _run(raw, *before)

    twin = cast("Dialect", Beginning.__new__(Beginning))
    twin.__dict__ = dialect.__dict__
    return twin


def ping_file(file: Path) -> Health:
    """Read a SQLite file's first page without ever creating or changing a file.

    Through SQLite itself: were the file opened and closed by other means, this process would lose
    the locks that it holds on it ("How To Corrupt An SQLite Database File", section 2.2). And as
    immutable: a read-only connection to a WAL database leaves ``-wal`` and ``-shm`` files behind.
    """
    began = time.monotonic()
    if not file.exists():
        return Health("unreachable", None, f"there is no file {str(file)!r} yet")
    try:
        uri = f"file:{quote(str(file.absolute()))}?immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        return Health("unreachable", None, str(error))
    except sqlite3.DatabaseError as error:
        return Health("refused", None, str(error))
    return Health("ok", time.monotonic() - began)
