"""SQLite: files and databases in memory, what a connection is set up with, WAL, a ping.

When its transactions begin is in ``sqlite_begin``.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote

from sqlalchemy import event

from sessionfactory.clock import monotonic
from sessionfactory.config.values import milliseconds
from sessionfactory.drivers.error_codes import original
from sessionfactory.engine import sqlite_begin
from sessionfactory.errors import Fault, SettingsError, SettingsWarning
from sessionfactory.status import Health

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import SqliteSettings


def is_memory(url: URL) -> bool:
    """Return whether a SQLite URL means a database in memory, which lives in its connection."""
    database = url.database or ""
    mode = parse_qs(database.partition("?")[2]).get("mode", [url.query.get("mode", "")])
    return database.partition("?")[0] in {"", ":memory:", "file::memory:"} or "memory" in mode


def is_shared_memory(url: URL) -> bool:
    """Return whether a URL means a database in memory that connections share: ``vfs=memdb``."""
    database = url.database or ""
    return "memdb" in parse_qs(database.partition("?")[2]).get("vfs", [url.query.get("vfs", "")])


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


def pragmas(settings: SqliteSettings) -> tuple[str, ...]:
    """Return what sets up a connection as the settings want it."""
    return (
        f"PRAGMA busy_timeout = {milliseconds(settings.busy_timeout)}",
        f"PRAGMA foreign_keys = {'ON' if settings.foreign_keys else 'OFF'}",
        f"PRAGMA synchronous = {settings.synchronous}",
    )


def prepare(engine: Engine, settings: SqliteSettings, name: str) -> None:
    """Give the connections and transactions of a SQLite engine what the settings say."""
    file = file_of(engine.url)
    changes = None if _is_read_only(engine.url) else file  # a journal is a change to the file
    statements = pragmas(settings)

    @event.listens_for(engine, "do_connect")
    def check_directory(*_: object) -> None:
        if file is not None and not file.parent.is_dir():
            problem = f"the directory {str(file.parent)!r} of the SQLite file does not exist"
            raise SettingsError([Fault(f"{name}.url", problem)])

    switches = changes is not None and settings.journal != "keep"

    @event.listens_for(engine, "connect")
    def set_up(connection: DBAPIConnection, _record: object) -> None:
        nonlocal switches
        try:
            sqlite_begin.run(connection, *statements)
            if switches and file is not None:
                switches = _switch_journal(connection, settings.journal, name, file)
        except BaseException:
            connection.close()
            raise

    sqlite_begin.begin_by_need(engine, settings.begin, statements)


def deferred(engine: Engine) -> Engine:
    """Return a view of an engine, on the same pool, whose transactions lock nothing to read."""
    view = engine.execution_options()
    sqlite_begin.defer(view)
    return view


def _switch_journal(connection: DBAPIConnection, journal: str, name: str, file: Path) -> bool:
    """Switch the journal of a file, and return whether to try that on the next connection, too.

    It is a change to the file, which has to be there alone for it. Where another process reads it
    in the old mode, or it is on a read-only mount, all else works without.
    """
    try:
        sqlite_begin.run(connection, f"PRAGMA journal_mode = {journal}")
    except Exception as error:
        if not isinstance(original(error), sqlite3.OperationalError):
            raise
        reason = original(error)
    else:
        return True
    warnings.warn(
        f"{name}: the journal of the SQLite file {str(file)!r} stays as it is, because it cannot be"
        f" switched to {journal!r} now ({reason}). Close what else uses the file, or set"
        ' sqlite.journal="keep"',
        SettingsWarning,
        stacklevel=2,
    )
    return False


def ping_file(file: Path) -> Health:
    """Read a SQLite file's first page without ever creating or changing a file.

    Through SQLite itself: were the file opened and closed by other means, this process would lose
    the locks that it holds on it ("How To Corrupt An SQLite Database File", section 2.2). And as
    immutable: a read-only connection to a WAL database leaves ``-wal`` and ``-shm`` files behind.
    """
    began = monotonic()
    if not file.exists():
        return Health("unreachable", None, f"there is no file {str(file)!r} yet")
    try:
        uri = f"file:{quote(str(file.absolute()))}?immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return diagnose(error)
    return Health("ok", monotonic() - began, _obstacle_to_writing(file))


def read_first_page(connection: DBAPIConnection) -> None:
    """Read the first page of a file, on a connection of the engine."""
    sqlite_begin.run(connection, "PRAGMA schema_version")


def diagnose(error: Exception) -> Health:
    """Return what an error of a ping means."""
    text = " ".join(str(original(error)).split())
    if "not a database" in text:
        return Health("refused", None, f"{text}: it is damaged, or encrypted with another key")
    return Health("unreachable", None, text)


def _obstacle_to_writing(file: Path) -> str:
    """Return why this process can read a file and not write it; empty if it can write."""
    effective = os.access in os.supports_effective_ids
    if not os.access(file, os.W_OK, effective_ids=effective):
        return f"read-only: this process may not write the file {str(file)!r}"
    folder = file.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        return f"read-only: this process may not make a journal in the directory {str(folder)!r}"
    return ""
