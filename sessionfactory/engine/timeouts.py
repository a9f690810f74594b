"""Time limits: what the driver is told when it connects, and what the server is told then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import event

from sessionfactory.config.values import milliseconds, whole_seconds
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings


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
    if settings.connect_timeout is not None and driver == "asyncpg":
        arguments["timeout"] = settings.connect_timeout
    elif settings.connect_timeout is not None and driver in _CONNECT_TIMEOUTS:
        keyword, least = _CONNECT_TIMEOUTS[driver]
        arguments[keyword] = max(least, whole_seconds(settings.connect_timeout))
    if limits and backend == "postgresql":
        options = _postgresql_options(limits, url)
        arguments |= (
            {"server_settings": {"options": options}}  # which win over those of the URL
            if driver == "asyncpg"
            else {"options": options}
        )
    return arguments


# Whole seconds; libpq takes 1 as 2, and 0 as "for ever".
_CONNECT_TIMEOUTS: Final = {
    "psycopg": ("connect_timeout", 2),
    "psycopg2": ("connect_timeout", 2),
    "pymysql": ("connect_timeout", 1),
    "aiomysql": ("connect_timeout", 1),
    "asyncmy": ("connect_timeout", 1),
    "mysqldb": ("connect_timeout", 1),
    "mysqlconnector": ("connection_timeout", 1),
}
_ALL_LIMITS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_timeout")
_KNOWN_LIMITS: Final = {"postgresql": _ALL_LIMITS, "mysql": _ALL_LIMITS, "mariadb": _ALL_LIMITS}


def _time_limits(settings: DatabaseSettings) -> dict[str, float]:
    limits = ((name, getattr(settings, name)) for name in _ALL_LIMITS)
    return {name: limit for name, limit in limits if limit is not None}


def _postgresql_settings(limits: dict[str, float]) -> dict[str, str]:
    names = {"idle_in_transaction_timeout": "idle_in_transaction_session_timeout"}
    return {names.get(name, name): str(milliseconds(limit)) for name, limit in limits.items()}


def _postgresql_options(limits: dict[str, float], url: URL) -> str:
    # Start-up options, so that no round trip sets them and RESET does not unset them.
    ours = [f"-c {name}={value}" for name, value in _postgresql_settings(limits).items()]
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
        is_mariadb = getattr(engine.dialect, "is_mariadb", False)
        variables = mysql_variables(limits, mariadb=is_mariadb)
        statement = ", ".join(f"SESSION {name} = {value}" for name, value in variables.items())
        cursor = connection.cursor()
        cursor.execute(f"SET {statement}")
        cursor.close()


def mysql_variables(limits: dict[str, float], *, mariadb: bool) -> dict[str, float]:
    """Return the variables of MySQL, or of MariaDB, that stand for time limits.

    Args:
        limits: seconds, by the name of the setting.
        mariadb: which of the two it is.

    Raises:
        SettingsError: MySQL does not know one of the limits.
    """
    variables: dict[str, float] = {}
    if "statement_timeout" in limits:
        seconds = limits["statement_timeout"]
        variables |= (
            {"max_statement_time": seconds}
            if mariadb
            else {"max_execution_time": milliseconds(seconds)}
        )
    if "lock_timeout" in limits:
        seconds = whole_seconds(limits["lock_timeout"])
        variables |= {"innodb_lock_wait_timeout": seconds, "lock_wait_timeout": seconds}
    if "idle_in_transaction_timeout" in limits:
        if not mariadb:
            fault = Fault("idle_in_transaction_timeout", "MySQL has no such limit")
            raise SettingsError([fault])
        variables["idle_transaction_timeout"] = whole_seconds(limits["idle_in_transaction_timeout"])
    return variables
