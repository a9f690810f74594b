"""Where drivers differ: which one a URL means, how it takes its limits, how it is cancelled."""

from __future__ import annotations

import math
import os
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol, cast

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect

from sessionfactory.errors import Fault, SettingsError
from sessionfactory.settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection
    from sqlalchemy.pool.base import _ConnectionFairy

    from sessionfactory.settings import DatabaseSettings

# What a URL without a driver means. SQLAlchemy 2.0 and 2.1 differ for PostgreSQL, and its choice
# for MySQL must be compiled; the first one that is installed is taken.
_DEFAULT_DRIVERS: Final = {
    "postgresql": ("psycopg",),
    "mysql": ("mysqldb", "pymysql"),
    "mariadb": ("mysqldb", "pymysql"),
}
_MODULES: Final = {"mysqldb": "MySQLdb"}
_HOW_TO_INSTALL: Final = {
    "psycopg": 'pip install "sessionfactory[postgres]"',
    "pymysql": 'pip install "sessionfactory[mysql]"',
    "mysqldb": 'pip install "sessionfactory[mysql]"',
}


def with_driver(url: URL) -> URL:
    """Return the URL with its driver spelled out, where we choose another than SQLAlchemy."""
    drivers = _DEFAULT_DRIVERS.get(url.drivername)
    if drivers is None:
        return url
    installed = (driver for driver in drivers if find_spec(_MODULES.get(driver, driver)))
    return url.set(drivername=f"{url.drivername}+{next(installed, drivers[-1])}")


def load_dialect(url: URL) -> type[Dialect]:
    """Return the dialect of a URL, its driver imported.

    Raises:
        SettingsError: there is no such dialect, its driver is not installed, or it is asynchronous.
    """
    try:
        dialect = url.get_dialect()
    except Exception:  # noqa: BLE001 - also what importing a module that is no dialect raises
        dialect = None
    if not (isinstance(dialect, type) and issubclass(dialect, DefaultDialect)):
        raise _fault(
            f"there is no driver {url.drivername!r}; expected a dialect of SQLAlchemy, such as"
            " postgresql+psycopg, mysql+pymysql or sqlite"
        )
    if dialect.is_async:
        raise _fault(
            f"{url.drivername!r} is an asynchronous driver; for SqlAlchemySessionFactory"
            f" write {url.get_backend_name()}://"
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        driver = url.get_driver_name()
        how = _HOW_TO_INSTALL.get(driver, f"pip install {error.name or driver}")
        raise _fault(f"the driver {driver!r} cannot be imported; {how}") from error
    return dialect


def refuse_unsupported(settings: DatabaseSettings) -> None:
    """Refuse what this release would otherwise accept in silence and not do.

    Raises:
        SettingsError: each setting whose value has no effect yet.
    """
    asked = {
        "tls": settings.tls != "driver",
        "pipeline": settings.pipeline,
        "replicas": bool(settings.replicas),
        "pool.ping_timeout": settings.pool.ping_timeout != PoolSettings().ping_timeout,
        "pool.reset": settings.pool.reset != "rollback",
        "pool.hold_warning": settings.pool.hold_warning is not None,
        "session.owner": settings.session.owner != "concurrent",
    }
    faults = [
        Fault(path, "this release does not support this value yet; leave the default")
        for path, is_asked in asked.items()
        if is_asked
    ]
    if faults:
        raise SettingsError(faults)


def _fault(problem: str, path: str = "url") -> SettingsError:
    return SettingsError([Fault(path, problem)])


def connect_arguments(settings: DatabaseSettings, url: URL) -> dict[str, object]:
    """Return what the driver is told about time limits when it connects.

    Raises:
        SettingsError: this database does not know one of the limits.
    """
    backend, driver = url.get_backend_name(), url.get_driver_name()
    limits = _time_limits(settings)
    unknown = [name for name in limits if name not in _KNOWN_LIMITS.get(backend, ())]
    if unknown:
        hint = "; say sqlite.busy_timeout" if backend == "sqlite" else ""
        raise SettingsError([Fault(name, f"{backend} has no such limit{hint}") for name in unknown])
    arguments: dict[str, object] = {}
    if settings.connect_timeout is not None and driver in _CONNECT_TIMEOUTS:
        keyword, least = _CONNECT_TIMEOUTS[driver]
        arguments[keyword] = max(least, math.ceil(settings.connect_timeout))
    if backend == "sqlite":
        arguments["check_same_thread"] = False  # the pool hands a connection to one at a time
    if limits and backend == "postgresql":
        arguments["options"] = _postgresql_options(limits, url)
    return arguments


# Whole seconds; libpq takes 1 as 2, and 0 as "for ever".
_CONNECT_TIMEOUTS: Final = {
    "psycopg": ("connect_timeout", 2),
    "psycopg2": ("connect_timeout", 2),
    "pymysql": ("connect_timeout", 1),
    "mysqldb": ("connect_timeout", 1),
    "mysqlconnector": ("connection_timeout", 1),
}
_ALL_LIMITS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_timeout")
_KNOWN_LIMITS: Final = {"postgresql": _ALL_LIMITS, "mysql": _ALL_LIMITS, "mariadb": _ALL_LIMITS}


def _time_limits(settings: DatabaseSettings) -> dict[str, float]:
    limits = ((name, getattr(settings, name)) for name in _ALL_LIMITS)
    return {name: limit for name, limit in limits if limit is not None}


def _postgresql_options(limits: dict[str, float], url: URL) -> str:
    # Start-up options, so that no round trip sets them and RESET does not unset them.
    names = {"idle_in_transaction_timeout": "idle_in_transaction_session_timeout"}
    ours = [
        f"-c {names.get(name, name)}={math.ceil(limit * 1000)}" for name, limit in limits.items()
    ]
    theirs = url.query.get("options", ())
    given = [theirs] if isinstance(theirs, str) else list(theirs)
    return " ".join([*ours, *given])  # the URL's own come last, and win


def limit_mysql(engine: Engine, settings: DatabaseSettings) -> None:
    """Have every new connection of a MySQL or MariaDB engine obey the time limits."""
    limits = _time_limits(settings)
    if not limits or engine.dialect.name not in {"mysql", "mariadb"}:
        return

    @event.listens_for(engine, "connect")
    def set_limits(connection: DBAPIConnection, _record: object) -> None:
        # Which of the two it is shows only once connected.
        statement = _mysql_limits(limits, mariadb=getattr(engine.dialect, "is_mariadb", False))
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()


def _mysql_limits(limits: dict[str, float], *, mariadb: bool) -> str:
    variables: dict[str, float] = {}
    if "statement_timeout" in limits:
        seconds = limits["statement_timeout"]
        variables |= (
            {"max_statement_time": seconds}
            if mariadb
            else {"max_execution_time": math.ceil(seconds * 1000)}
        )
    if "lock_timeout" in limits:
        seconds = math.ceil(limits["lock_timeout"])
        variables |= {"innodb_lock_wait_timeout": seconds, "lock_wait_timeout": seconds}
    if "idle_in_transaction_timeout" in limits:
        if not mariadb:
            raise _fault("MySQL has no such limit", "idle_in_transaction_timeout")
        variables["idle_transaction_timeout"] = math.ceil(limits["idle_in_transaction_timeout"])
    return f"SET {', '.join(f'SESSION {name} = {value}' for name, value in variables.items())}"


class _SafelyCancellable(Protocol):
    def cancel_safe(self, *, timeout: float) -> None: ...


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class _Interruptible(Protocol):
    def interrupt(self) -> None: ...


def cancel(connection: DBAPIConnection | None, timeout: float) -> None:
    """Ask the database to give up the statement that runs on a connection of another thread.

    What cannot be asked is left to the caller, who closes the connection next.

    Args:
        connection: the driver's connection.
        timeout: seconds to try.
    """
    with suppress(Exception):  # whatever it says, the connection is on its way out
        if hasattr(connection, "cancel_safe") and _cancels_safely():  # psycopg
            cast("_SafelyCancellable", connection).cancel_safe(timeout=timeout)
        elif hasattr(connection, "fileno"):  # psycopg2, and psycopg on libpq before 17
            # Their cancel() connects anew with the interpreter's lock held: on a silent network, no
            # thread of this process would run again. The server notices when it next writes.
            descriptor = os.dup(cast("_HasDescriptor", connection).fileno())
            with socket.socket(fileno=descriptor) as line:
                line.shutdown(socket.SHUT_RDWR)
        elif hasattr(connection, "interrupt"):  # sqlite3
            cast("_Interruptible", connection).interrupt()


def _cancels_safely() -> bool:
    capabilities = sys.modules["psycopg"].capabilities
    return bool(capabilities.has_cancel_safe())


def put_in_place(proxy: PoolProxiedConnection | None, stand_in: object) -> None:
    """Have whoever holds ``proxy``, if anybody still does, talk to ``stand_in`` from now on.

    The attribute is documented for reading only. Writing it is the one way to end a connection that
    another thread has, and have its holder told so by an error of ours: ``tests/engine/test_close``
    notices if that changes.
    """
    if proxy is not None:
        cast("_ConnectionFairy", proxy).dbapi_connection = cast("DBAPIConnection", stand_in)


def connect_through(dialect: Dialect, connect: Callable[..., DBAPIConnection]) -> None:
    """Have a dialect open its connections by ``connect``.

    ``Dialect.connect`` comes after all listeners to ``do_connect``. A listener of ours would come
    among the user's, and as it returns a connection, end the round before theirs were asked.
    """
    dialect.connect = connect  # type: ignore[method-assign]  # of this one dialect


def forget_connection(error: BaseException) -> None:
    """Take from psycopg's error the connection that failed, which holds the password.

    The public ``pgconn`` has no setter. ``tests/test_canary_connect.py`` says if it moves.
    """
    if getattr(error, "_pgconn", None) is not None:
        vars(error)["_pgconn"] = None
