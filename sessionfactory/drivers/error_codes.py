"""What a driver's error means: one table, a row for each driver.

The same refusal has another code, and another place for it, in each driver; some errors have none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import field, frozen
from sqlalchemy.exc import DBAPIError

from sessionfactory.drivers.commit_stage import traceback_of
from sessionfactory.errors import SessionFactoryError
from sessionfactory.pool_errors import ConnectTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

Code: TypeAlias = str | int
Kind: TypeAlias = Literal["conflict", "lock timeout", "lost", "away"]
"""``"conflict"``: with another transaction, as by a deadlock. ``"lock timeout"``: another one held
what was waited for. ``"lost"``: the connection, in the midst of its use. ``"away"``: the server
cannot be reached, or takes nobody in."""


@frozen(kw_only=True)
class Codes:
    """What a database's codes mean."""

    conflict: frozenset[Code]
    lock_timeout: frozenset[Code]
    lost: frozenset[Code] = frozenset()
    away: frozenset[Code] = frozenset()
    in_doubt: frozenset[Code] = frozenset()
    """Beside ``lost`` and ``away``: as the answer to a COMMIT, these do not say how it ended."""


READ_ONLY: Final = "25006"  # read_only_sql_transaction
GOING_DOWN: Final = frozenset({"57P01", "57P02", "57P03"})  # told to end, crashed, not yet up
MYSQL_READ_ONLY: Final = frozenset({1290, 1836})

_POSTGRESQL: Final = Codes(
    conflict=frozenset({"40001", "40P01"}),
    lock_timeout=frozenset({"55P03"}),
    # Idle for too long, in a transaction or without: the server has closed it.
    lost=GOING_DOWN | {"08000", "08003", "08006", "08007", "08P01", "25P03", "57P05"},
    away=frozenset({"08001", "08004"}),
)
_NOT_READY: Final = 1047  # a node of Galera that is not, or not yet, part of the cluster
_MYSQL: Final = Codes(
    # 1020: MariaDB's innodb_snapshot_isolation.
    conflict=frozenset({1020, 1213}),
    lock_timeout=frozenset({1205, 3572}),
    # By client and server; shut down, killed, idle for too long.
    lost=frozenset({2006, 2013, 2055, 1053, 1927, 3169, 4031}),
    away=frozenset({_NOT_READY, 2002, 2003, 2005}),
    # 1180: Galera without a quorum. 1317: interrupted. 0, 2000…: what the client says of the line.
    in_doubt=frozenset({1180, 1317, 0, *range(2000, 2100)}),
)
_SQLITE: Final = Codes(
    conflict=frozenset({5}),  # SQLITE_BUSY, and SQLITE_BUSY_SNAPSHOT with it
    lock_timeout=frozenset(),
)
_ORACLE: Final = Codes(
    conflict=frozenset({"ORA-08177", "ORA-00060"}),
    lock_timeout=frozenset({"ORA-00054", "ORA-30006"}),
    lost=frozenset(
        {"ORA-00028", "ORA-02396", "ORA-03113", "ORA-03114", "ORA-03135"}
        | {"DPY-1001", "DPY-4011", "DPI-1010", "DPI-1080"}
    ),
    away=frozenset(
        {"ORA-01033", "ORA-01034", "ORA-01089", "ORA-12514", "ORA-12541", "ORA-12170", "DPY-6005"}
    ),
)
_ODBC: Final = Codes(
    # SQL Server's own numbers, where the SQLSTATE says less: 3960 is a conflict of snapshots.
    conflict=frozenset({"40001", 1205, 3960}),
    lock_timeout=frozenset({"HYT00", 1222}),
    lost=frozenset({"08S01", "08003", "08007"}),
    away=frozenset({"08001", "08004", "HYT01"}),
    in_doubt=frozenset({"HY000", "HYT00", "HY008"}),
)


def _attribute(name: str) -> Callable[[BaseException], list[Code]]:
    def read(error: BaseException) -> list[Code]:
        code = getattr(error, name, None)
        return [] if code is None else [code]

    return read


def _number(error: BaseException) -> list[Code]:
    return [code for code in error.args[:1] if isinstance(code, int)]


def _sqlite(error: BaseException) -> list[Code]:
    return [code & 0xFF for code in _attribute("sqlite_errorcode")(error) if isinstance(code, int)]


def _oracle(error: BaseException) -> list[Code]:
    told: Any = error.args[0] if error.args else None
    return [code for code in (getattr(told, "full_code", None),) if code]


def _odbc(error: BaseException) -> list[Code]:
    # The message ends in the database's own number, in brackets.
    sqlstates = [code for code in error.args[:1] if isinstance(code, str)]
    return [*sqlstates, *map(int, re.findall(r"\((\d+)\)", " ".join(map(str, error.args[1:]))))]


@frozen
class Driver:
    """Where a driver has its codes, and what they mean."""

    codes: Codes
    read: Callable[[BaseException], list[Code]] = field(repr=False)


DRIVERS: Final = {
    "psycopg": Driver(_POSTGRESQL, _attribute("sqlstate")),
    "psycopg2": Driver(_POSTGRESQL, _attribute("pgcode")),
    "asyncpg": Driver(_POSTGRESQL, _attribute("sqlstate")),
    "pymysql": Driver(_MYSQL, _number),
    "aiomysql": Driver(_MYSQL, _number),
    "asyncmy": Driver(_MYSQL, _number),
    "mysql.connector": Driver(_MYSQL, _attribute("errno")),
    "MySQLdb": Driver(_MYSQL, _number),
    "sqlite3": Driver(_SQLITE, _sqlite),
    "aiosqlite": Driver(_SQLITE, _sqlite),
    "oracledb": Driver(_ORACLE, _oracle),
    "pyodbc": Driver(_ODBC, _odbc),
}
"""By a part of the name of the module in which the driver's errors are defined."""

# libpq has no code for what happens while it connects. The server may be just starting or ending;
# else its FATAL is about who asks, and asking again does not help.
_REFUSED: Final = re.compile("FATAL")
_NOT_NOW: Final = re.compile("starting up|shutting down|recovery|not (yet )?accepting connections")


def codes_of(error: BaseException) -> list[Code]:
    """Return the codes of a driver's error, or of the one that SQLAlchemy's wraps."""
    error = original(error)
    driver = _driver_of(error)
    return [] if driver is None else driver.read(error)


def kind_of(error: BaseException) -> Kind | None:
    """Say why a transaction failed, if it may succeed when it is tried again; otherwise ``None``.

    Args:
        error: SQLAlchemy's error, the driver's, or what the pool raised.
    """
    if isinstance(error, SessionFactoryError):
        return "away" if isinstance(error, ConnectTimeoutError) else None
    cause = original(error)
    driver = _driver_of(cause)
    found = [] if driver is None else driver.read(cause)
    kind = None if driver is None else _meaning(driver.codes, found)
    if kind is not None:
        return kind
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "lost"
    if isinstance(cause, OSError):
        return "away" if _is_of_the_line(cause) else None
    connecting = not found and getattr(error, "statement", None) is None
    codes = None if driver is None else driver.codes
    return "away" if connecting and codes is _POSTGRESQL and _is_unreachable(cause) else None


def is_answer(error: BaseException) -> bool:
    """Say whether a COMMIT's error is the database's answer to it: that it did not happen.

    Otherwise nobody knows: the connection was lost, or the server went down meanwhile.
    """
    if isinstance(error, SessionFactoryError):
        return True  # ours, from before it was sent: the factory was closed, or the process forked
    cause = original(error)
    driver = _driver_of(cause)
    found = [] if driver is None else driver.read(cause)
    if driver is None or not found:
        return False
    codes = driver.codes
    if codes is _MYSQL and _NOT_READY in found:
        return True  # away, but the node said so, and did not look at the COMMIT
    return not (codes.lost | codes.away | codes.in_doubt).intersection(found)


def original(error: BaseException) -> BaseException:
    """Return the driver's error in SQLAlchemy's, or the error itself."""
    orig = error.orig if isinstance(error, DBAPIError) else None
    return error if orig is None else orig


def _meaning(codes: Codes, found: list[Code]) -> Kind | None:
    kinds: dict[Kind, frozenset[Code]] = {
        "conflict": codes.conflict,
        "lock timeout": codes.lock_timeout,
        "lost": codes.lost,
        "away": codes.away,
    }
    return next((kind for kind, known in kinds.items() if known.intersection(found)), None)


def _driver_of(error: BaseException) -> Driver | None:
    for kind in type(error).__mro__:  # users may have errors of their own below a driver's
        module = f".{kind.__module__}."
        for name, driver in DRIVERS.items():
            if f".{name}." in module:
                return driver
    return None


def _is_unreachable(error: BaseException) -> bool:
    if not any(kind.__name__ == "OperationalError" for kind in type(error).__mro__):
        return False
    told = str(error)
    return _REFUSED.search(told) is None or _NOT_NOW.search(told) is not None


def _is_of_the_line(error: BaseException) -> bool:
    """Say whether an error of the system came from connecting, or from a driver's own socket.

    asyncpg lets these through as they are. What a service's own code meets in the network looks the
    same, and is not ours to judge.
    """
    return any(
        module.startswith(("sqlalchemy.pool", "sqlalchemy.dialects"))
        for module, _ in traceback_of(error)
    )
