"""Whether the server accepts as many connections as the program's processes may open together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionfactory.drivers import families

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from sessionfactory.config.settings import DatabaseSettings


def server_limit(connection: Connection) -> int | None:
    """Read from the server how many connections it accepts; ``None`` if it has no such limit."""
    query = families.of_dialect(connection.dialect).connection_limit
    return int(connection.exec_driver_sql(query).scalar_one()) if query else None


def shortage(settings: DatabaseSettings, limit: int | None) -> str | None:
    """Return a sentence if the processes together may want more connections than there are.

    Args:
        settings: the database; ``pool.server_connections`` wins if it is less.
        limit: the server's, from ``server_limit``.
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
