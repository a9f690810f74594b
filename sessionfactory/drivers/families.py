"""What a family of databases can do: one value for each, found by a dialect or by a URL.

A database that speaks another's protocol has a dialect below the other's: CockroachDB, YugabyteDB,
Aurora DSQL, Redshift and others below PostgreSQL's. It has what all of these have, and is not
refused it for its name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect

_LIMITS: Final = frozenset({"statement_timeout", "lock_timeout", "idle_in_transaction_timeout"})
_IN_ONE_TRANSACTION: Final = frozenset({"read_only", "statement_timeout", "lock_timeout"})


@frozen(kw_only=True)
class Family:
    """What the databases of a family can do. The defaults are those of one that is not known."""

    name: str
    has_server: bool = True
    """Whether there is a network to it, and another end of a connection."""
    speaks_postgresql: bool = False
    """Whether it has PostgreSQL's protocol and SQL: start-up options, ``set_config``."""
    speaks_mysql: bool = False
    is_sqlite: bool = False
    is_postgresql: bool = False
    """Whether it is PostgreSQL itself, or a fork that keeps its functions and system views."""
    time_limits: frozenset[str] = frozenset()
    """Which settings that limit times it knows."""
    transaction_options: frozenset[str] = frozenset()
    """What it can enforce for one transaction, beside isolation levels and translated schemas."""
    connection_limit: str = ""
    """Asks for the number of connections that it accepts; empty if it cannot be asked."""


# What an ordinary role can have: less than the server's own limit, and than the role's and the
# database's, of which -1 is none. ``reserved_connections`` is there since PostgreSQL 16.
_CONNECTION_LIMIT: Final = """
    SELECT least(
        current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
    )
"""

LIKE_POSTGRESQL: Final = Family(
    name="like postgresql",
    speaks_postgresql=True,
    time_limits=_LIMITS,
    transaction_options=_IN_ONE_TRANSACTION | {"deferrable", "local"},
)
POSTGRESQL: Final = evolve(
    LIKE_POSTGRESQL,
    name="postgresql",
    is_postgresql=True,
    connection_limit=_CONNECTION_LIMIT,
)
MYSQL: Final = Family(
    name="mysql",
    speaks_mysql=True,
    time_limits=_LIMITS,
    transaction_options=_IN_ONE_TRANSACTION,
    connection_limit="SELECT @@max_connections",
)
SQLITE: Final = Family(
    name="sqlite",
    has_server=False,
    is_sqlite=True,
    transaction_options=frozenset({"read_only"}),
)
OTHER: Final = Family(name="other")

_BY_DIALECT: Final = {
    "postgresql": POSTGRESQL,
    "yugabytedb": POSTGRESQL,  # runs PostgreSQL's own code above its storage
    "cockroachdb": LIKE_POSTGRESQL,
    "auroradsql": LIKE_POSTGRESQL,
    "mysql": MYSQL,
    "mariadb": MYSQL,
    "sqlite": SQLITE,
}
_BY_MODULE: Final = {
    "sqlalchemy.dialects.postgresql.base": LIKE_POSTGRESQL,
    "sqlalchemy.dialects.mysql.base": MYSQL,
    "sqlalchemy.dialects.sqlite.base": SQLITE,
}
"""By the module of a class below which a dialect is."""


def of_dialect(dialect: Dialect) -> Family:
    """Return the family of an engine's database."""
    return _of(dialect.name, tuple(base.__module__ for base in type(dialect).__mro__))


def of_url(url: URL) -> Family:
    """Return the family of the database that a URL means."""
    name = url.get_backend_name()
    if name in _BY_DIALECT:
        return _BY_DIALECT[name]
    try:
        dialect = url.get_dialect()
    except Exception:  # noqa: BLE001 - there is none: ``load_dialect`` reports it
        return OTHER
    return _of(dialect.name, tuple(base.__module__ for base in dialect.__mro__))


@lru_cache(maxsize=64)
def _of(name: str, defining: tuple[str, ...]) -> Family:
    if name in _BY_DIALECT:
        return _BY_DIALECT[name]
    return next((_BY_MODULE[module] for module in defining if module in _BY_MODULE), OTHER)
