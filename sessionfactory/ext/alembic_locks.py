"""Locks around migrations: one process migrates a database, the others wait for a bounded time.

Each lock belongs to the connection that migrates, so that it goes with a process that is killed.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from sessionfactory.drivers.connections import backend_of
from sessionfactory.errors import SessionFactoryError

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection

_LOG: Final = logging.getLogger("sessionfactory.ext.alembic")
_PAUSE: Final = 0.2
"""Seconds between two attempts. A blocking wait would hold a snapshot, for which the holder's
CREATE INDEX CONCURRENTLY would wait in turn."""


class MigrationLockError(SessionFactoryError):
    """Another process runs migrations of the same database, and did not finish in time."""


class MigrationLock(ABC):
    """A lock that a connection holds while it migrates.

    Args:
        connection: the connection that migrates. It is in no transaction.
    """

    in_transaction: ClassVar[bool] = False
    """Whether the lock ends with the transaction, so that all migrations run in that one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @abstractmethod
    def acquire(self) -> bool:
        """Try to take the lock, without waiting; return whether it is taken."""

    @abstractmethod
    def holder(self) -> str:
        """Return who holds the lock, for a message; an empty text if that cannot be found out."""

    @abstractmethod
    def release(self, *, failed: bool) -> None:
        """Give the lock back; ``failed`` if the migrations raised an error."""

    @contextmanager
    def held(self, name: str, timeout: float) -> Generator[None]:
        """Hold the lock for the length of a block.

        Args:
            name: the database, for messages.
            timeout: seconds to wait for another holder.

        Raises:
            MigrationLockError: another process still holds it after ``timeout`` seconds.
        """
        self._wait(name, timeout)
        try:
            yield
        except BaseException:
            with suppress(DBAPIError):  # the connection may be what failed
                self.release(failed=True)
            raise
        self.release(failed=False)

    def _wait(self, name: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        logged = None
        while not self.acquire():
            holder = self.holder() or "another process"
            if time.monotonic() >= deadline:
                raise MigrationLockError(
                    f"Migrations of database {name!r} are still run by {holder}, after"
                    f" {timeout:g} s; wait for it and start again, or pass a longer lock_timeout"
                )
            if holder != logged:
                _LOG.warning("Waiting for migrations of database %r, run by %s", name, holder)
                logged = holder
            time.sleep(_PAUSE)


class PostgresLock(MigrationLock):
    """A session-level advisory lock of the database; its holder has an ``application_name``."""

    _KEY: ClassVar = {
        "group": int.from_bytes(b"sess"),
        "key": int.from_bytes(b"migr"),
    }
    _HOLDER: ClassVar = text(
        "SELECT activity.pid, activity.application_name, activity.backend_start"
        " FROM pg_catalog.pg_locks AS locks"
        " JOIN pg_catalog.pg_stat_activity AS activity USING (pid)"
        " WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2"
        " AND locks.classid = :group AND locks.objid = :key"
        " AND locks.database = (SELECT oid FROM pg_catalog.pg_database"
        "                       WHERE datname = pg_catalog.current_database())"
    )

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._refuse_pooler()
        label = f"migrations, process {os.getpid()} on {platform.node()}"
        rename = text("SELECT pg_catalog.set_config('application_name', :label, false)")
        connection.execute(rename, {"label": label[:63]})  # PostgreSQL's longest name
        connection.commit()

    def _refuse_pooler(self) -> None:
        """Raise if a pooler stands between: the lock would belong to one of its connections."""
        announced = backend_of(_driver(self._connection))
        actual = self._connection.scalar(text("SELECT pg_catalog.pg_backend_pid()"))
        self._connection.rollback()
        if announced is not None and announced != actual:
            raise MigrationLockError(
                "A pooler in transaction mode, such as PgBouncer, cannot hold the lock of"
                " migrations; give them a URL that leads to the server itself, or pass"
                " lock_timeout=None and start one process only"
            )

    def acquire(self) -> bool:
        """Try to take the lock."""
        attempt = text("SELECT pg_catalog.pg_try_advisory_lock(:group, :key)")
        taken = self._connection.scalar(attempt, self._KEY)
        self._connection.commit()
        return bool(taken)

    def holder(self) -> str:
        """Return the holder's application name, its server process and when that began."""
        row = self._connection.execute(self._HOLDER, self._KEY).first()
        self._connection.rollback()
        if row is None:
            return ""
        pid, label, since = row
        named = label or "a client without application_name"
        return f"{named} (server process {pid}, connected at {since:%H:%M:%S})"

    def release(self, *, failed: bool) -> None:
        """Give the lock back, and the connection its own name."""
        if failed:
            self._connection.rollback()
        unlock = text("SELECT pg_catalog.pg_advisory_unlock(:group, :key)")
        self._connection.execute(unlock, self._KEY)
        self._connection.exec_driver_sql("RESET application_name")
        self._connection.commit()


class MysqlLock(MigrationLock):
    """``GET_LOCK`` of MySQL and MariaDB, which survives the commits that their DDL implies."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        # A name belongs to the whole server, and has at most 64 characters.
        database = str(connection.scalar(text("SELECT DATABASE()")))
        self._name = {"name": f"sessionfactory.migrations.{database}"[:64]}
        connection.rollback()

    def acquire(self) -> bool:
        """Try to take the lock."""
        taken = self._connection.scalar(text("SELECT GET_LOCK(:name, 0)"), self._name)
        self._connection.commit()
        return bool(taken)

    def holder(self) -> str:
        """Return the holder's connection number, user and address."""
        query = text(
            "SELECT id, user, host FROM information_schema.processlist"
            " WHERE id = IS_USED_LOCK(:name)"
        )
        row = self._connection.execute(query, self._name).first()
        self._connection.rollback()
        return "" if row is None else f"connection {row[0]} ({row[1]}@{row[2]})"

    def release(self, *, failed: bool) -> None:
        """Give the lock back."""
        if failed:
            self._connection.rollback()
        self._connection.execute(text("SELECT RELEASE_LOCK(:name)"), self._name)
        self._connection.commit()


class SqliteLock(MigrationLock):
    """SQLite's write lock, held by one transaction around all migrations, without foreign keys.

    A batch migration drops a table and makes it again. With foreign keys on, dropping it deletes
    the rows that refer to it, or fails. ``PRAGMA foreign_keys`` has no effect within a transaction,
    so it is sent on the driver's connection, before BEGIN; at the end, all keys are checked.
    """

    in_transaction = True
    # A write that changes nothing: it takes the write lock after any kind of BEGIN.
    _TAKE: ClassVar = (
        "CREATE TABLE sessionfactory_migrating (x INTEGER)",
        "DROP TABLE sessionfactory_migrating",
    )

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._restored = {
            pragma: _pragma(connection, pragma) for pragma in ("busy_timeout", "foreign_keys")
        }
        self._broken = frozenset[tuple[object, ...]]()

    def acquire(self) -> bool:
        """Try to begin a transaction that holds the write lock."""
        _pragma(self._connection, "busy_timeout = 0")
        _pragma(self._connection, "foreign_keys = OFF")
        try:
            self._connection.begin()
            for statement in self._TAKE:
                self._connection.exec_driver_sql(statement)
        except OperationalError as error:
            self._connection.rollback()
            if "locked" in str(error.orig) or "busy" in str(error.orig):
                return False
            raise
        _pragma(self._connection, f"busy_timeout = {self._restored['busy_timeout']}")
        self._broken = self._broken_keys()
        return True

    def holder(self) -> str:
        """Return the process that holds the write lock, where the operating system shows it."""
        file = _pragma(self._connection, "database_list", column=2)
        process = _process_that_writes(Path(str(file))) if file else None
        return "" if process is None else f"process {process}"

    def release(self, *, failed: bool) -> None:
        """Commit if all keys that were sound still are, else roll back; put the settings back."""
        broken = frozenset[tuple[object, ...]]() if failed else self._broken_keys() - self._broken
        if failed or broken:
            self._connection.rollback()
        else:
            self._connection.commit()
        for pragma, value in self._restored.items():
            _pragma(self._connection, f"{pragma} = {value}")
        if broken:
            tables = ", ".join(sorted({str(table) for table, *_ in broken}))
            raise MigrationKeysError(
                f"Migrations were rolled back: they leave rows of {tables} without the row that"
                " their foreign key refers to; delete or repair these rows in the migration"
            )

    def _broken_keys(self) -> frozenset[tuple[object, ...]]:
        rows = self._connection.exec_driver_sql("PRAGMA foreign_key_check")
        return frozenset(tuple(row) for row in rows)


class MigrationKeysError(SessionFactoryError):
    """Migrations of a SQLite database broke foreign keys; all of them were rolled back."""


LOCKS: Final[dict[str, type[MigrationLock]]] = {
    "postgresql": PostgresLock,
    "mysql": MysqlLock,
    "mariadb": MysqlLock,
    "sqlite": SqliteLock,
}
"""By SQLAlchemy's name of the dialect; others have no lock."""


def _driver(connection: Connection) -> DBAPIConnection | None:
    return connection.connection.dbapi_connection


def _pragma(connection: Connection, pragma: str, *, column: int = 0) -> object:
    """Send a PRAGMA past SQLAlchemy, which would begin a transaction first.

    Returns:
        a column of its first row; ``None`` if it has no row.
    """
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {pragma}")
        row = cursor.fetchone()
    finally:
        cursor.close()
    return None if row is None else row[column]


def _process_that_writes(file: Path) -> int | None:
    """Return the process with the write lock of a SQLite file, from Linux's list of locks.

    The file is not opened for it: to close it again would end this process' own locks on it ("How
    To Corrupt An SQLite Database File", section 2.2).
    """
    wanted: set[tuple[int, int]] = set()
    # Byte 120 of the shared memory is WAL_WRITE_LOCK; without WAL it is RESERVED, in the file.
    for path, byte in ((Path(f"{file}-shm"), 120), (file, 0x40000001)):
        with suppress(OSError):
            wanted.add((path.stat().st_ino, byte))
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "->" in fields or "WRITE" not in fields:
                continue
            process, place, first, last = fields[-4:]
            end = float("inf") if last == "EOF" else int(last)
            inode = int(place.rpartition(":")[2])
            if any(inode == each and int(first) <= byte <= end for each, byte in wanted):
                return int(process)
    return None
