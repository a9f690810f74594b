"""Drivers, error codes and database families each have one room: no other module names them."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sessionfactory.drivers import error_codes, known
from sessionfactory.drivers.driver import UNKNOWN, Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(error_codes.__file__).parents[1]
DRIVERS: Final = re.compile(
    r"\b(psycopg2?|pg8000|asyncpg|pymysql|mysqldb|mysqlclient|mysqlconnector|mysql\.connector"
    r"|aiomysql|asyncmy|pysqlite\w*|sqlite3|aiosqlite|pysqlcipher\w*|sqlcipher\w*|oracledb|pyodbc)\b",
    re.IGNORECASE,
)
EXEMPT: Final = {
    "testing/servers/postgres.py": "a server's URLs are for drivers that its users choose",
    "testing/servers/mariadb.py": "the same",
    "testing/proxy/_upstream.py": "an example of a URL in an error message",
}
"""Modules that may name drivers, each with its reason."""
SQLSTATE: Final = re.compile(r"(?=.*\d)(?!\d+MB)[0-9A-Z]{5}|ORA-\d{5}|D[PI][IY]-\d{4}")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the package, by its path, and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def constants(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield every constant that is not a docstring."""
    prose = {id(statement.value) for statement in ast.walk(tree) if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in prose:
            yield node


def test_only_the_drivers_room_names_a_driver() -> None:
    """What is specific to a driver stands in its module, and nowhere else."""
    naming = {
        f"{name}:{node.lineno} {node.value!r}": name
        for name, tree in modules()
        if not name.startswith("drivers/")
        for node in constants(tree)
        if isinstance(node.value, str) and DRIVERS.search(node.value)
    }
    assert [place for place, name in naming.items() if name not in EXEMPT] == []
    assert EXEMPT.keys() <= set(naming.values())


def test_only_the_table_names_a_code() -> None:
    """What an error code means stands in one table.

    The module of a driver may supply the code of an error that its driver leaves without one.
    """
    numbers = {
        code
        for by_table in error_codes._TABLE.values()
        for codes in by_table.values()
        for code in codes
        if isinstance(code, int) and code > 1000 and code != 2000  # else an ordinary number
    }
    naming = [
        f"{name}:{node.lineno} {node.value!r}"
        for name, tree in modules()
        if name != "drivers/error_codes.py"
        and not name.startswith(("testing/proxy/", "drivers/known/"))
        for node in constants(tree)
        if (isinstance(node.value, str) and SQLSTATE.fullmatch(node.value))
        or (type(node.value) is int and node.value in numbers)
    ]
    assert naming == []


def test_only_the_drivers_know_where_a_code_is() -> None:
    """An error's code is read by the module of its driver."""
    places = {"sqlstate", "pgcode", "errno", "sqlite_errorcode", "full_code"}
    naming = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        if not name.startswith("drivers/known/")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in places - {"errno"})
        or (isinstance(node, ast.Constant) and node.value in places)
    ]
    assert naming == []


def test_every_driver_is_in_the_tables() -> None:
    """A module for a driver without a name would never be used."""
    folder = Path(known.__file__).parent
    assert known.modules() == {path.stem for path in folder.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("module", sorted(known.modules()))
def test_every_driver_is_found(module: str) -> None:
    """A driver's value is found by the name that SQLAlchemy has for it."""
    driver: Driver = import_module(f"{known.__name__}.{module}").DRIVER
    assert known.named(driver.name) == driver
    assert driver.name
    assert driver.code_table is not None


@pytest.mark.parametrize(
    ("package", "kind", "name"),
    [
        ("psycopg", "Connection", "psycopg"),
        ("psycopg", "errors.SerializationFailure", "psycopg"),
        ("psycopg2.extensions", "connection", "psycopg2"),
        ("psycopg2.errors", "DeadlockDetected", "psycopg2"),
        ("pg8000.dbapi", "Connection", "pg8000"),
        ("asyncpg", "Connection", "asyncpg"),
        ("sqlalchemy.dialects.postgresql.asyncpg", "AsyncAdapt_asyncpg_dbapi.Error", "asyncpg"),
        ("pymysql.connections", "Connection", "pymysql"),
        ("mysql.connector.connection", "MySQLConnection", "mysqlconnector"),
        ("aiomysql", "Connection", "aiomysql"),
        ("asyncmy.errors", "OperationalError", "asyncmy"),
        ("sqlite3", "Connection", "pysqlite"),
        ("aiosqlite", "Connection", "aiosqlite"),
        ("sqlcipher3.dbapi2", "Connection", "pysqlcipher"),
        ("oracledb", "Connection", "oracledb"),
    ],
)
def test_classes_of_drivers(package: str, kind: str, name: str) -> None:
    """A driver is recognised by the classes of its connections and of its errors."""
    found: object = pytest.importorskip(package)
    for part in kind.split("."):
        found = getattr(found, part)
    assert isinstance(found, type)
    assert known.of_class(found).name == name
    own = {"__module__": "shop.database", "__qualname__": "Own"}
    assert known.of_class(type(found)("Own", (found,), own)) == known.of_class(found)


def test_a_driver_that_is_not_known() -> None:
    """It has the safe defaults: nothing is promised, and a holder may be in its C code."""
    driver = known.named("turbodriver")
    assert driver is UNKNOWN
    assert known.of_class(object) is UNKNOWN
    assert driver.codes(ValueError("no code")) == []
    assert not driver.can_cancel(object())
    assert driver.is_in_c(object())
    assert driver.send is None


NAMES_OF_DIALECTS: Final = frozenset({"postgresql", "mysql", "mariadb", "sqlite", "cockroachdb"})
SPEAKS_PROTOCOLS: Final = {
    "config/masking.py": "reads a URL's text, below the drivers",
    "ext/alembic_locks.py": "a lock has another statement on each database",
    "testing/proxy/_upstream.py": "the proxy's protocols, by the names of URLs",
    "testing/proxy/_engine/relay.py": "the same",
    "testing/servers/mariadb.py": "the name of a kind of server, and a folder",
}
"""Modules that may name a database's dialect, each with its reason."""


def test_only_the_families_name_a_dialect() -> None:
    """What a database can do is a question to its family, and not to its dialect's name."""
    naming = {
        name: f"{name}:{node.lineno}"
        for name, tree in modules()
        if not name.startswith("drivers/")
        for node in constants(tree)
        if isinstance(node.value, str) and node.value in NAMES_OF_DIALECTS
    }
    assert {name: at for name, at in naming.items() if name not in SPEAKS_PROTOCOLS} == {}
    assert SPEAKS_PROTOCOLS.keys() <= naming.keys()
