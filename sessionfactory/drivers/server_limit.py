"""Whether the server takes as many connections as the program's processes may open together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from sessionfactory.config.settings import DatabaseSettings

# What an ordinary role can have: less than the server's own limit, and than the role's and the
# database's, of which -1 is none. ``reserved_connections`` is there since PostgreSQL 16.
_POSTGRESQL: Final = text("""
    SELECT least(
        current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
    )
""")
_LIMITS: Final = {
    "postgresql": _POSTGRESQL,
    "mysql": text("SELECT @@max_connections"),
    "mariadb": text("SELECT @@max_connections"),
}


def server_limit(connection: Connection) -> int | None:
    """Ask the server how many connections it takes; ``None`` if it has no such limit."""
    question = _LIMITS.get(connection.dialect.name)
    return None if question is None else int(connection.execute(question).scalar_one())


def shortage(settings: DatabaseSettings, limit: int | None) -> str | None:
    """Return a sentence if the processes together may want more connections than there are.

    Args:
        settings: the database; ``pool.server_connections`` wins if it is less.
        limit: what the server said.
    """
    pool = settings.pool
    limits = [known for known in (limit, pool.server_connections) if known is not None]
    wanted = pool.processes * (pool.size + pool.max_overflow)
    if not limits or pool.kind == "none" or wanted <= min(limits):
        return None
    processes = "1 process" if pool.processes == 1 else f"{pool.processes} processes"
    return (
        f"{processes} with up to {pool.size} + {pool.max_overflow} connections may want {wanted},"
        f" and the server gives {min(limits)}: lower pool.size or pool.max_overflow"
    )
