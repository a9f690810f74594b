"""Which driver a URL means, in either half, and how its words become that driver's."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from sqlalchemy.engine.default import DefaultDialect

from sessionfactory.config.values import near
from sessionfactory.drivers import sqlalchemy_private
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings

# What a URL without a driver means. SQLAlchemy 2.0 and 2.1 differ for PostgreSQL, and its choice
# for MySQL must be compiled; the first one that is installed is taken.
_DEFAULT_DRIVERS: Final = {
    "postgresql": ("psycopg",),
    "mysql": ("mysqldb", "pymysql"),
    "mariadb": ("mysqldb", "pymysql"),
}
_DEFAULT_ASYNC_DRIVERS: Final = {
    "postgresql": ("psycopg",),
    "mysql": ("asyncmy", "aiomysql"),
    "mariadb": ("asyncmy", "aiomysql"),
    "sqlite": ("aiosqlite",),
}
_MODULES: Final = {"mysqldb": "MySQLdb"}
_KNOWN_DRIVERS: Final = {
    name: name
    for name in (
        *("postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"),
        *("mysql", "mysql+pymysql", "mysql+aiomysql", "mysql+asyncmy", "mysql+mysqlconnector"),
        *("mariadb", "sqlite", "sqlite+aiosqlite", "oracle", "mssql"),
    )
}
_HOW_TO_INSTALL: Final = {
    "psycopg": 'pip install "sessionfactory[postgres]"',
    "pymysql": 'pip install "sessionfactory[mysql]"',
    "mysqldb": 'pip install "sessionfactory[mysql]"',
}


def with_driver(url: URL, *, is_async: bool = False) -> URL:
    """Return the URL with its driver spelled out, where we choose another than SQLAlchemy."""
    drivers = (_DEFAULT_ASYNC_DRIVERS if is_async else _DEFAULT_DRIVERS).get(url.drivername)
    if drivers is None:
        return url
    installed = (driver for driver in drivers if find_spec(_MODULES.get(driver, driver)))
    return url.set(drivername=f"{url.drivername}+{next(installed, drivers[-1])}")


def is_asynchronous(url: URL) -> bool:
    """Say whether a URL names a driver of the async half only."""
    try:
        dialect = url.get_dialect()
    except Exception:  # noqa: BLE001 - there is none; whoever loads it will tell
        return False
    return bool(dialect.is_async)


def load_dialect(url: URL, *, is_async: bool = False) -> type[Dialect]:
    """Return the dialect of a URL for one of the halves, its driver imported.

    Raises:
        SettingsError: there is no such dialect, its driver is not installed, or it is the other
            half's; or greenlet, which the async half needs, is not installed.
    """
    if is_async and find_spec("greenlet") is None:
        problem = 'an async session factory needs greenlet; pip install "sessionfactory[asyncio]"'
        raise SettingsError([Fault("", problem)])
    try:
        dialect = url.get_dialect()
    except Exception:  # noqa: BLE001 - also what importing a module that is no dialect raises
        dialect = None
    if not (isinstance(dialect, type) and issubclass(dialect, DefaultDialect)):
        raise _fault(
            f"there is no driver {url.drivername!r}; expected a dialect of SQLAlchemy, such as"
            f" postgresql+psycopg, mysql+pymysql or sqlite{near(url.drivername, _KNOWN_DRIVERS)}"
        )
    found = dialect.get_async_dialect_cls(url) if is_async else dialect
    if found.is_async is not is_async:
        kind, half = ("n asynchronous", "") if found.is_async else (" synchronous", "Async")
        raise _fault(
            f"{url.drivername!r} is a{kind} driver; for {half}SqlAlchemySessionFactory"
            f" write {url.get_backend_name()}://"
        )
    try:
        driver_module = found.import_dbapi()
    except ImportError as error:
        driver = url.get_driver_name()
        how = _HOW_TO_INSTALL.get(driver, f"pip install {error.name or driver}")
        raise _fault(f"the driver {driver!r} cannot be imported; {how}") from error
    if url.get_driver_name() == "asyncpg":
        _refuse_unknown_to_asyncpg(url, driver_module)
    return found


def refuse_unsupported(settings: DatabaseSettings) -> None:
    """Refuse what this release would otherwise accept in silence and not do.

    Raises:
        SettingsError: each setting whose value has no effect yet.
    """
    asked = {
        "replicas": bool(settings.replicas),
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


# What libpq's drivers take in a URL, and asyncpg in its ``dsn`` only.
_DSN_KEYS: Final = frozenset(
    {"application_name", "options", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation"}
    | {"sslpassword", "sslrootcert", "ssl_max_protocol_version", "ssl_min_protocol_version"}
)
# What SQLAlchemy takes out of the URL itself, and a libpq key that has a keyword of ours.
_NOT_ASYNCPGS: Final = frozenset(
    {"prepared_statement_cache_size", "prepared_statement_name_func", "connect_timeout"}
)
_CHANNEL_BINDING: Final = "channel_binding"


def _refuse_unknown_to_asyncpg(url: URL, adapted: Any) -> None:
    """Refuse query keys that would be a ``TypeError`` at the first connection, or not be obeyed."""
    known = {*inspect.signature(adapted.asyncpg.connect).parameters, *_DSN_KEYS, *_NOT_ASYNCPGS}
    faults = [
        Fault("url", f"asyncpg knows no query key {key!r}; take it away, or write postgresql://")
        for key in url.query
        if key not in known | {_CHANNEL_BINDING}
    ]
    if url.query.get(_CHANNEL_BINDING) == "require":
        problem = "asyncpg has no channel binding; take channel_binding away, or use psycopg"
        faults.append(Fault("url", problem))
    if faults:
        raise SettingsError(faults)


def speak_asyncpg(engine: Engine) -> None:
    """Have an engine on asyncpg understand the query keys of libpq's drivers, such as sslmode."""
    dialect = engine.dialect
    if dialect.driver != "asyncpg":
        return
    opened = dialect.connect

    def connect(*arguments: object, **keywords: object) -> DBAPIConnection:
        return opened(*arguments, **_for_asyncpg(keywords))

    sqlalchemy_private.connect_through(dialect, connect)


def close_quietly(engine: Engine) -> None:
    """Have a connection closed in silence, and wholly, that its server ended first.

    An asynchronous driver's ``close()`` raises then, which SQLAlchemy logs as an error, and
    aiomysql's leaves the socket open. The way in which SQLAlchemy closes a connection that is
    broken says farewell, too, and lets go of it whatever comes of that. Many a connection that is
    out when a factory closes is such a one: see ``drain``.
    """
    dialect = engine.dialect
    if dialect.has_terminate and dialect.name != "sqlite":  # there is no server
        sqlalchemy_private.close_through(dialect, dialect.do_terminate)


def _for_asyncpg(keywords: dict[str, object]) -> dict[str, object]:
    dropped = {_CHANNEL_BINDING, "connect_timeout"}
    said = {key: value for key, value in keywords.items() if key not in _DSN_KEYS | dropped}
    libpq = {key: value for key, value in keywords.items() if key in _DSN_KEYS}
    if libpq:
        said["dsn"] = f"postgresql://?{urlencode(libpq, quote_via=quote)}"
    return said
