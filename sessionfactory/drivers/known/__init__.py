"""The drivers that are known, a module each; everything that is specific to one is in it.

A new driver is a module with a ``DRIVER``, and its names in the two tables here. Modules are
imported on first use, and none of them imports its driver.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers.driver import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.drivers.driver import Driver

_BY_NAME: Final = {
    "psycopg": "psycopg",
    "psycopg_async": "psycopg",
    "psycopg2": "psycopg2",
    "pg8000": "pg8000",
    "asyncpg": "asyncpg",
    "mysqldb": "mysqlclient",
    "pymysql": "pymysql",
    "mysqlconnector": "mysqlconnector",
    "aiomysql": "aiomysql",
    "asyncmy": "asyncmy",
    "pysqlite": "sqlite3",
    "pysqlite_numeric": "sqlite3",
    "pysqlcipher": "sqlcipher",
    "aiosqlite": "aiosqlite",
    "aiosqlite_numeric": "aiosqlite",
    "oracledb": "oracledb",
    "oracledb_async": "oracledb",
    "pyodbc": "pyodbc",
}
"""Module here, by what SQLAlchemy calls the driver."""
_BY_PACKAGE: Final = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "pg8000": "pg8000",
    "asyncpg": "asyncpg",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "mysql.connector": "mysqlconnector",
    "aiomysql": "aiomysql",
    "asyncmy": "asyncmy",
    "sqlite3": "sqlite3",
    "aiosqlite": "aiosqlite",
    "sqlcipher3": "sqlcipher",
    "pysqlcipher3": "sqlcipher",
    "oracledb": "oracledb",
    "pyodbc": "pyodbc",
}
"""Module here, by a part of the module's name in which the driver's classes are defined."""


def named(name: str) -> Driver:
    """Return the driver that SQLAlchemy calls by a name; ``UNKNOWN`` for any other."""
    return _load(_BY_NAME.get(name))


def _find(kind: type) -> Driver:
    """Return the driver that defines a class of connections or errors, or a base of it.

    Users may have classes of their own below a driver's, and SQLAlchemy has, whose modules are
    called after the driver. Cached by the class itself, since each COMMIT comes here.
    """
    for base in kind.__mro__:
        module = f".{base.__module__}."
        for package, here in _BY_PACKAGE.items():
            if f".{package}." in module:
                return _load(here)
    return UNKNOWN


of_class: Final[Callable[[type], Driver]] = lru_cache(maxsize=256)(_find)
"""Returns the driver that defines a class; see ``_find``."""


def names(has: Callable[[Driver], bool]) -> list[str]:
    """Return the names of the known drivers that have something."""
    return [driver.name for driver in map(_load, sorted(modules())) if has(driver)]


def modules() -> frozenset[str]:
    """Return the names of the modules here that the tables mention."""
    return frozenset(_BY_NAME.values()) | frozenset(_BY_PACKAGE.values())


def _load(module: str | None) -> Driver:
    if module is None:
        return UNKNOWN
    loaded: Any = import_module(f"{__name__}.{module}")
    driver: Driver = loaded.DRIVER
    return driver
