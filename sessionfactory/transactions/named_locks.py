"""How each database family locks a name."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sessionfactory.config.values import milliseconds
from sessionfactory.drivers import families, sqlalchemy_private
from sessionfactory.drivers.error_codes import classify
from sessionfactory.engine import sqlite
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.pool.waiting import pause

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry

_KEY_BYTES: Final = 8
_LONGEST_NAME: Final = 64
"""Characters of a lock's name on MySQL, by its documentation of ``GET_LOCK``."""
_NO_LIMIT: Final = 31_536_000
"""Seconds: a year. MariaDB takes no negative number for "no limit"."""
_HELD: Final = "sessionfactory_named_locks"
_STEP, _LONGEST_STEP = 0.01, 0.2
"""Seconds between two attempts at a file's lock: the first, doubled each time, and the longest."""


class NamedLock(Protocol):
    """A lock that one transaction acquires, and releases at its end."""

    def acquire(self, session: Session, wait: float | None) -> bool:
        """Acquire the lock within ``wait`` seconds, and return whether that succeeded."""
        ...

    def release(self) -> None:
        """Release what the end of the transaction has not released."""
        ...


def lock_of(session: Session, name: str) -> NamedLock:
    """Return the lock of a name in a session's database.

    Raises:
        SettingsError: the database has none.
    """
    bind = session.get_bind()
    engine = bind.engine if isinstance(bind, Connection) else bind
    family = families.of_dialect(engine.dialect)
    if family.is_postgresql:
        return PostgresLock(name)
    if family.speaks_mysql:
        return MysqlLock(name)
    if family.is_sqlite:
        return FileLock(sqlite.file_of(engine.url), name)
    problem = f"{engine.dialect.name} has no advisory locks; use PostgreSQL, MySQL or MariaDB"
    raise SettingsError([Fault("advisory_lock", problem)])


def _digest(name: str, size: int) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=size).digest()


class PostgresLock:
    """A lock of a transaction on PostgreSQL."""

    def __init__(self, name: str) -> None:
        self._key = int.from_bytes(_digest(name, _KEY_BYTES), "big", signed=True)

    def acquire(self, session: Session, wait: float | None) -> bool:
        """Acquire the lock; a failed wait has aborted the transaction."""
        before = session.execute(text(_SETTINGS)).one()
        limit = str(milliseconds(wait)) if wait else "0"
        session.execute(text(_SET), {"statement": "0", "lock": limit})
        if wait == 0:
            if not session.scalar(text(f"SELECT pg_try_{_LOCK}"), {"key": self._key}):
                return False
        else:
            try:
                session.execute(text(f"SELECT pg_{_LOCK}"), {"key": self._key})
            except DBAPIError as error:
                if "lock timeout" not in classify(error).meanings:
                    raise
                return False
        session.execute(text(_SET), {"statement": before.statement, "lock": before.lock})
        return True

    def release(self) -> None:
        """Do nothing: the transaction's end released it."""


_LOCK: Final = "advisory_xact_lock(:key)"
_SETTINGS: Final = """
SELECT current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock,
       set_config('idle_in_transaction_session_timeout', '0', true)
"""
_SET: Final = """
SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true)
"""


class MysqlLock:
    """A lock of a connection to MySQL or MariaDB, released when that is checked in."""

    def __init__(self, name: str) -> None:
        self._name = name

    def acquire(self, session: Session, wait: float | None) -> bool:
        """Acquire the lock on the session's connection."""
        connection = session.connection()
        database = connection.scalar(text("SELECT DATABASE()"))
        found = _digest(f"{database}\0{self._name}", 2 * _KEY_BYTES).hex()
        readable = self._name[: _LONGEST_NAME - len(found) - 1].encode("ascii", "replace").decode()
        name = f"{readable}:{found}"
        _release_at_check_in(connection.engine)
        held: set[str] = connection.connection.info.setdefault(_HELD, set())
        held.add(name)  # noted first: an interrupted wait may have acquired it
        limit = _NO_LIMIT if wait is None else wait
        attempt = text("SELECT GET_LOCK(:name, :wait)")
        acquired: int | None = connection.scalar(attempt, {"name": name, "wait": limit})
        return acquired == 1  # NULL: the server ended the wait

    def release(self) -> None:
        """Do nothing: the connection's check-in released it."""


def _release_at_check_in(engine: Engine) -> None:
    sqlalchemy_private.listen_once(engine, "reset", _release)


def _release(
    connection: DBAPIConnection, entry: ConnectionPoolEntry | None, _state: object
) -> None:
    held: set[str] = entry.info.pop(_HELD, set()) if entry is not None else set()
    for name in held:
        cursor = connection.cursor()
        cursor.execute("DO RELEASE_LOCK(%s)", (name,))
        cursor.close()


class FileLock:
    """A lock on a file beside a SQLite database, which is a database of SQLite itself.

    So that it works wherever SQLite does, and ends with the process that holds it.
    """

    def __init__(self, database: Path | None, name: str) -> None:
        self._connection: sqlite3.Connection | None = None
        suffix = f"-lock-{_digest(name, _KEY_BYTES).hex()}"
        self._file = database and database.with_name(database.name + suffix)

    def acquire(self, session: Session, wait: float | None) -> bool:
        """Acquire the lock, with attempts that follow one another more and more slowly."""
        del session  # the lock is not on its connection
        if self._file is None:
            return True
        deadline = None if wait is None else monotonic() + wait
        step = _STEP
        while not self._try():
            left = _LONGEST_STEP if deadline is None else deadline - monotonic()
            if left <= 0:
                return False
            pause(min(step, left))
            step = min(2 * step, _LONGEST_STEP)
        return True

    def _try(self) -> bool:
        connection = sqlite3.connect(
            str(self._file), timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            connection.close()
            if "conflict" not in classify(error).meanings:
                raise
            return False
        self._connection = connection
        return True

    def release(self) -> None:
        """Release the lock; the file stays, for others may be waiting for it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.rollback()
            connection.close()
