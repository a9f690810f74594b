"""What an error of a driver means: one table of all codes, and nothing about codes elsewhere.

The same refusal has another code, and another place for it, in each driver; some errors have none.
Where a driver has its codes is in ``known``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

from attrs import frozen
from sqlalchemy.exc import DBAPIError

from sessionfactory.drivers import known
from sessionfactory.drivers.commit_stage import traceback_of
from sessionfactory.drivers.driver import Kind, Meaning
from sessionfactory.errors import CommitRolledBackError, SessionFactoryError
from sessionfactory.pool_errors import ConnectTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sessionfactory.drivers.driver import Code, CodeTable, Driver

# A code of two characters is a class of SQLSTATEs. An error has every meaning that lists its code;
# the first of them counts as the meaning.
_TABLE: Final[Mapping[Meaning, Mapping[CodeTable, frozenset[Code]]]] = {
    "conflict": {
        "postgresql": frozenset({"40001", "40P01"}),
        # 1020: MariaDB's innodb_snapshot_isolation. 1213: a deadlock, or Galera's at COMMIT.
        "mysql": frozenset({1020, 1213}),
        "sqlite": frozenset({5}),  # SQLITE_BUSY, and SQLITE_BUSY_SNAPSHOT with it
        "oracle": frozenset({"ORA-08177", "ORA-00060"}),
        # SQL Server's own numbers, where the SQLSTATE has less: 3960 is a conflict of snapshots.
        "odbc": frozenset({"40001", 1205, 3960}),
    },
    "lock timeout": {
        "postgresql": frozenset({"55P03"}),
        "mysql": frozenset({1205, 3572}),
        "oracle": frozenset({"ORA-00054", "ORA-30006"}),
        "odbc": frozenset({"HYT00", 1222}),
    },
    "going down": {
        "postgresql": frozenset({"57P01", "57P02"}),  # by an administrator, or by a crash
        "mysql": frozenset({1053}),
    },
    "lost": {
        # 25P03 and 57P05: idle for too long, in a transaction or without one.
        "postgresql": frozenset({"08000", "08003", "08006", "08007", "08P01", "25P03", "57P05"}),
        # By client and server; killed, idle for too long.
        "mysql": frozenset({2006, 2013, 2055, 1927, 3169, 4031}),
        "oracle": frozenset(
            {"ORA-00028", "ORA-02396", "ORA-03113", "ORA-03114", "ORA-03135"}
            | {"DPY-1001", "DPY-4011", "DPI-1010", "DPI-1080"}
        ),
        "odbc": frozenset({"08S01", "08003", "08007"}),
    },
    "not ready": {
        "postgresql": frozenset({"57P03"}),  # it starts up, or shuts down
        "mysql": frozenset({1047}),  # a node of Galera that is not, or not yet, in the cluster
        "oracle": frozenset({"ORA-01033", "ORA-01034", "ORA-01089"}),
    },
    "too many clients": {
        "postgresql": frozenset({"53300"}),
        "mysql": frozenset({1040, 1203}),  # of the server, and of one user
        "oracle": frozenset({"ORA-00018", "ORA-00020", "ORA-12516", "ORA-12519", "ORA-12520"}),
    },
    "unreachable": {
        "postgresql": frozenset({"08001", "08004"}),
        "mysql": frozenset({2002, 2003, 2005}),
        "oracle": frozenset({"ORA-12514", "ORA-12541", "ORA-12170", "DPY-6005"}),
        "odbc": frozenset({"08001", "08004", "HYT01"}),
    },
    "read-only": {
        "postgresql": frozenset({"25006"}),
        "mysql": frozenset({1792}),
        "sqlite": frozenset({8}),
    },
    "read-only server": {
        "postgresql": frozenset({"25006"}),  # the same code: a standby's transactions are read-only
        "mysql": frozenset({1836}),  # and 1290: see _BY_TEXT
        "oracle": frozenset({"ORA-16000"}),
    },
    "wrong login": {
        "postgresql": frozenset({"28"}),
        "mysql": frozenset({1045, 1698}),
        "oracle": frozenset({"ORA-01017"}),
        "odbc": frozenset({"28000", 18456}),
    },
    "refused": {
        "postgresql": frozenset({"3D", "53"}),  # no such database; out of some resource
        "mysql": frozenset({1044, 1049, 1129, 1130, 1226}),  # database, host, limits of a user
    },
    "missing table": {
        "postgresql": frozenset({"42P01"}),
        "mysql": frozenset({1146}),
        "oracle": frozenset({"ORA-00942"}),
        "odbc": frozenset({"42S02", 208}),
    },
    "invalid value": {"postgresql": frozenset({"22023"})},
    # The server has rolled the whole transaction back; the next statement begins another one.
    "rolled back": {
        "mysql": frozenset({1020, 1213}),
        # SQLITE_NOMEM, _INTERRUPT, _IOERR, _FULL, and a constraint with ON CONFLICT ROLLBACK: if
        # no transaction is open afterwards.
        "sqlite": frozenset({7, 9, 10, 13, 19}),
        "odbc": frozenset({"40001", 1205, 3960}),
    },
    "already failed": {"postgresql": frozenset({"25P02"})},  # by an earlier statement
    # As the answer to a COMMIT, these do not show how it ended.
    "unclear": {
        # 1180: Galera without a quorum. 1317: interrupted. 0, 2000…: the client's, about the line.
        "mysql": frozenset({1180, 1317, 0, *range(2000, 2100)}),
        "odbc": frozenset({"HY000", "HYT00", "HY008"}),
    },
}
_KINDS: Final[Mapping[Meaning, Kind]] = {
    "conflict": "conflict",
    "lock timeout": "lock timeout",
    "going down": "lost",
    "lost": "lost",
    "not ready": "away",
    "too many clients": "away",
    "unreachable": "away",
    "stale plan": "stale plan",
}
_REFUSALS: Final = frozenset[Meaning](
    {"going down", "not ready", "too many clients", "wrong login", "refused"}
)
_IN_DOUBT: Final = frozenset[Meaning]({"going down", "lost", "not ready", "unreachable", "unclear"})
_GALERA_NOT_READY: Final = 1047
_BY_TEXT: Final[Mapping[Code, tuple[re.Pattern[str], Meaning]]] = {
    # 0A000: not supported. psycopg forgets its prepared statements at ROLLBACK, asyncpg at this.
    "0A000": (re.compile("cached (statement )?plan"), "stale plan"),
    # PyMySQL's read_timeout and write_timeout: the statement is slow, and would be again.
    2013: (re.compile("timed out"), "client time limit"),
    # "running with the --… option", and "has exceeded the '…' resource".
    1290: (re.compile("read[-_]only"), "read-only server"),
    1226: (re.compile("connections"), "too many clients"),
}
"""Codes that mean something only together with a word of their text."""

# libpq has no code for what happens while it connects; the first text that is found counts. A
# server that starts or stops says FATAL too; any other FATAL is about the client.
_TEXTS: Final[tuple[tuple[re.Pattern[str], Meaning], ...]] = (
    (
        re.compile("starting up|shutting down|recovery|not (yet )?accepting connections"),
        "not ready",
    ),
    (
        re.compile(
            "too many (clients|connections)|connection slots are reserved|no more connections"
        ),
        "too many clients",
    ),
    (re.compile("authentication failed"), "wrong login"),
    (re.compile("FATAL"), "refused"),
)


@frozen
class Classified:
    """What an error means."""

    codes: tuple[Code, ...] = ()
    meanings: tuple[Meaning, ...] = ()
    """In the order of the table."""

    @property
    def kind(self) -> Kind | None:
        """Why the transaction is worth another attempt; ``None`` if it is not."""
        if "client time limit" in self.meanings:
            return None
        return next((_KINDS[found] for found in self.meanings if found in _KINDS), None)

    @property
    def is_refusal(self) -> bool:
        """Whether the server answered, and did not let the client in."""
        return not _REFUSALS.isdisjoint(self.meanings)


def classify(error: BaseException) -> Classified:
    """Return what an error means.

    Args:
        error: SQLAlchemy's error, the driver's, or what the pool raised. An error that is none of
            these means nothing.
    """
    if isinstance(error, SessionFactoryError):
        if isinstance(error, CommitRolledBackError):
            return Classified((), cast("tuple[Meaning, ...]", error.meanings))
        late = isinstance(error, ConnectTimeoutError)
        return Classified((), ("unreachable",) if late else ())
    cause = original(error)
    driver = known.of_class(type(cause))
    codes = tuple(driver.codes(cause))
    meanings = _meanings_of(driver, codes, cause)
    if isinstance(error, DBAPIError) and error.connection_invalidated and "lost" not in meanings:
        meanings = (*meanings, "lost")
    if not meanings and not codes:
        meanings = _without_code(error, cause, driver)
    return Classified(codes, meanings)


def codes_of(error: BaseException) -> list[Code]:
    """Return the codes of a driver's error, or of the one that SQLAlchemy's wraps."""
    error = original(error)
    return known.of_class(type(error)).codes(error)


def kind_of(error: BaseException) -> Kind | None:
    """Return why a transaction that failed is worth another attempt; ``None`` if it is not."""
    return classify(error).kind


def is_transient(error: BaseException) -> bool:
    """Return whether a transaction that failed with this error may succeed on another attempt.

    That is so for a conflict with another transaction (serialization failure, deadlock, SQLite's
    BUSY, Galera's conflict at COMMIT), a lock that was waited for too long, a connection that was
    lost, and a server that cannot be reached, has no connection left, starts, ends, or has failed
    over. Known are the errors of psycopg, psycopg2, pg8000, asyncpg, PyMySQL, aiomysql, asyncmy,
    mysql-connector, mysqlclient, sqlite3, aiosqlite, SQLCipher, oracledb and pyodbc.

    It does not mean that another attempt is safe: a transaction whose COMMIT was under way may
    have happened. ``run_in_transaction`` knows that, and repeats only what did not happen.

    Args:
        error: SQLAlchemy's error, or the driver's own.
    """
    return kind_of(error) is not None


def is_answer(error: BaseException) -> bool:
    """Return whether a COMMIT's error is the database's answer to it: that it did not happen.

    Otherwise that is not known: the connection was lost, or the server went down meanwhile.
    """
    if isinstance(error, SessionFactoryError):
        return True  # ours, from before it was sent: the factory was closed, or the process forked
    cause = original(error)
    driver = known.of_class(type(cause))
    codes = driver.codes(cause)
    if driver.code_table == "mysql" and _GALERA_NOT_READY in codes:
        return True  # the node answered, and did not look at the COMMIT
    return bool(codes) and _IN_DOUBT.isdisjoint(_meanings_of(driver, codes, cause))


def original(error: BaseException) -> BaseException:
    """Return the driver's error in SQLAlchemy's, or the error itself."""
    orig = error.orig if isinstance(error, DBAPIError) else None
    return error if orig is None else orig


def _meanings_of(
    driver: Driver, codes: Iterable[Code], cause: BaseException
) -> tuple[Meaning, ...]:
    table = driver.code_table
    if table is None:
        return ()
    classes = {code[:2] for code in codes if isinstance(code, str)}
    found: list[Meaning] = [
        meaning
        for meaning, by_table in _TABLE.items()
        if not by_table.get(table, frozenset()).isdisjoint({*codes, *classes})
    ]
    for code in codes if table in {"mysql", "postgresql"} else ():
        text, meaning = _BY_TEXT.get(code, (None, None))
        if text is not None and meaning is not None and text.search(str(cause)):
            found.append(meaning)
    return tuple(found)


def _without_code(
    error: BaseException, cause: BaseException, driver: Driver
) -> tuple[Meaning, ...]:
    """Return the meaning of an error without a code that was raised while connecting."""
    if isinstance(cause, OSError):
        return ("unreachable",) if _is_of_the_line(cause) else ()
    if driver.code_table != "postgresql" or getattr(error, "statement", None) is not None:
        return ()
    names = {kind.__name__ for kind in type(cause).__mro__}
    if not names & driver.connect_errors:
        return ()
    message = str(cause)
    for text, meaning in _TEXTS:
        if text.search(message):
            return (meaning,)
    return ("unreachable",)


def _is_of_the_line(error: BaseException) -> bool:
    """Return whether an error of the system came from connecting, or from a driver's own socket.

    asyncpg passes these through as they are. An error of the service's own network calls has the
    same class, and means nothing here. A ``TimeoutError`` of a statement is asyncpg's
    ``command_timeout``: the statement is slow, and would be again.
    """
    places: tuple[str, ...] = ("sqlalchemy.pool",)
    if not isinstance(error, TimeoutError):
        places = ("sqlalchemy.pool", "sqlalchemy.dialects")
    return any(module.startswith(places) for module, _ in traceback_of(error))
