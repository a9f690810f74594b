"""Which driver a URL means, in either half, and how a URL's words become that driver's."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.default import DefaultDialect

from sessionfactory.config.values import near
from sessionfactory.drivers import known
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.drivers.sqlalchemy_private import Connect

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


def with_driver(url: URL, *, is_async: bool = False) -> URL:
    """Return the URL with its driver spelled out, where we choose another than SQLAlchemy."""
    drivers = (_DEFAULT_ASYNC_DRIVERS if is_async else _DEFAULT_DRIVERS).get(url.drivername)
    if drivers is None:
        return url
    installed = (driver for driver in drivers if find_spec(_MODULES.get(driver, driver)))
    return url.set(drivername=f"{url.drivername}+{next(installed, drivers[-1])}")


def is_asynchronous(url: URL) -> bool:
    """Return whether a URL names a driver of the async half only."""
    try:
        dialect = url.get_dialect()
    except Exception:  # noqa: BLE001 - there is none: ``load_dialect`` reports it
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
        package = known.named(driver).install or error.name or driver
        problem = f"the driver {driver!r} cannot be imported; pip install {package}"
        raise _fault(problem) from error
    _refuse_unknown_keys(url, driver_module)
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


def _refuse_unknown_keys(url: URL, dbapi: Any) -> None:
    """Refuse query keys that would be a ``TypeError`` at the first connection, or not be obeyed."""
    driver = known.named(url.get_driver_name())
    try:
        keys = None if driver.query_keys is None else driver.query_keys(url, dbapi)
    except (AttributeError, TypeError, ValueError):  # a release that does not show its arguments
        keys = None
    understood = {key: key for key in keys or ()}
    faults = [
        Fault("url", f"{driver.name} knows no query key {key!r}{_instead_of(key, understood)}")
        for key in url.query
        if keys is not None and key not in keys
    ]
    hosts = url.query.get("host", "")
    if (not isinstance(hosts, str) or "," in hosts) and not driver.takes_several_hosts:
        able = ", ".join(sorted(known.names(lambda one: one.takes_several_hosts)))
        problem = f"{url.get_driver_name()} connects to one host; {able} try several"
        faults.append(Fault("url", problem))
    faults += [
        Fault("url", problem)
        for (key, value), problem in driver.refusals.items()
        if url.query.get(key) == value
    ]
    if faults:
        raise SettingsError(faults)


def _instead_of(key: str, understood: dict[str, str]) -> str:
    if key.lower().startswith(("ssl", "tls")):
        return "; for encryption, set tls"
    return near(key, understood)


def connecting_as_known(dialect: Dialect, connect: Connect) -> Connect:
    """Return a way to connect that the driver needs.

    It translates arguments that the driver has other words for, limits the time of the whole
    attempt, and reports an argument that the driver does not take as a ``SettingsError``.
    """
    through = known.named(dialect.driver).connect

    def connect_as_known(*arguments: object, **keywords: object) -> DBAPIConnection:
        try:
            if through is None:
                return connect(*arguments, **keywords)
            connection: DBAPIConnection = through(connect, arguments, keywords)
        except TypeError as error:
            if "keyword argument" not in str(error):
                raise
            message = str(error)
        else:
            return connection
        raise _fault(
            f"{dialect.driver} does not take all of the query, or of connect_args: {message}"
        )

    return connect_as_known
