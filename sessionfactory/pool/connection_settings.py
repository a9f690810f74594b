"""Settings that a connection has for as long as a view has it, where transactions have none.

They are put when the view gets the connection, and taken back before anybody else gets it. A pool
of ours does so at the next checkout by somebody else, so that a view whose scopes follow one
another pays for neither; with any other pool, it happens at the connection's return.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import attrs

from sessionfactory.drivers import connections, known, sqlalchemy_private
from sessionfactory.drivers.sqlalchemy_private import listen_once
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_STANDING: Final = "sessionfactory_standing"


@attrs.frozen
class Standing:
    """What is put on a connection, and taken back, in one round trip each, or in none."""

    put_on: Callable[[DBAPIConnection], None]
    taken_from: Callable[[DBAPIConnection], None]
    still_on: Callable[[DBAPIConnection], bool] | None = None
    """Whether nobody has changed it meanwhile, for what the driver keeps, and not the server."""


def stand(view: Engine, engine: Engine, make: Callable[[Dialect], Standing]) -> None:
    """Have the connections of a view keep to something while the view has them.

    Args:
        view: the view.
        engine: of which it is a view; they share a pool.
        make: called once there is a connection, for only then a dialect knows its server.
    """
    if getattr(engine.pool, "tracking", None) is None:  # it is no factory's
        listen_once(engine, "checkin", _return)
    standing = cache(make)

    def raw_connection() -> PoolProxiedConnection:
        # ``Engine.raw_connection`` is where every ``Connection`` of an engine has its own from.
        pool: Any = view.pool
        tracking = getattr(pool, "tracking", None)
        proxy: PoolProxiedConnection = (
            pool.connect() if tracking is None else tracking.connect_with_settings(pool)
        )
        try:
            _put(proxy, standing(view.dialect))
        except BaseException as error:
            sqlalchemy_private.fail_checkout(proxy, error)
            raise
        return proxy

    vars(view)["raw_connection"] = raw_connection


def is_left_on(info: dict[Any, Any]) -> bool:
    """Say whether something stands on a connection.

    Args:
        info: the dictionary that goes with the connection.
    """
    return _STANDING in info


def take_back(info: dict[Any, Any], connection: DBAPIConnection | None) -> None:
    """Take back what stands on a connection, if anything does.

    Args:
        info: the dictionary that goes with the connection.
        connection: the driver's; ``None`` if it is gone, and what stood on it too.
    """
    standing: Standing | None = info.pop(_STANDING, None)
    if standing is not None and connection is not None:
        standing.taken_from(connection)


def forget(info: dict[Any, Any]) -> None:
    """Know of nothing that the server keeps for a connection, because all was cleared there."""
    standing: Standing | None = info.get(_STANDING)
    if standing is not None and standing.still_on is None:
        del info[_STANDING]


def _put(proxy: PoolProxiedConnection, standing: Standing) -> None:
    connection = proxy.dbapi_connection
    assert connection is not None  # noqa: S101 - it was checked out just now
    if proxy.info.get(_STANDING) is standing:
        if standing.still_on is None or standing.still_on(connection):
            return
    else:
        take_back(proxy.info, connection)
    # Noted first: what was interrupted halfway has to be taken back, too.
    proxy.info[_STANDING] = standing
    standing.put_on(connection)


def _return(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    try:
        take_back(record.info, connection)
    except BaseException as error:
        record.invalidate(error)  # nobody is to get a connection in such a state
        if not isinstance(error, Exception):
            raise


def transactions_read_only(dialect: Dialect) -> Standing:
    """Have a driver of PostgreSQL begin its transactions as read-only.

    As the execution option ``postgresql_readonly`` does, which sets it and takes it back in each
    scope, and has SQLAlchemy look for listeners at each: a fifth of what a short scope costs.
    """
    # Not in what type checkers know of ``Dialect``: only PostgreSQL's have it.
    of_postgresql: Any = dialect

    def put_on(connection: DBAPIConnection) -> None:
        # A listener to "connect" may have left a transaction open, as pgvector's does: what it set
        # is kept. Sends nothing on a connection at rest.
        connection.commit()
        of_postgresql.set_readonly(connection, True)

    return Standing(
        put_on,
        lambda connection: of_postgresql.set_readonly(connection, False),
        lambda connection: of_postgresql.get_readonly(connection) is True,
    )


def reads_only(dialect: Dialect) -> Standing:
    """Have PostgreSQL refuse writes outside of transactions.

    Behind a pooler in transaction mode the setting would fall to whomever the pooler serves next,
    so it is put only where the server's process is the one that greeted us.
    """
    way = known.named(dialect.driver).read_only_autocommit
    if way is None:
        able = ", ".join(sorted(known.names(lambda one: one.read_only_autocommit is not None)))
        problem = f"AUTOCOMMIT cannot be read-only on {dialect.driver}; use {able}"
        raise SettingsError([Fault("read_only", problem)])
    put, take = _READS_ONLY[way]

    def put_on(connection: DBAPIConnection) -> None:
        if not connections.send(connection, put.format(connections.backend_of(connection))):
            problem = (
                "a pooler, such as PgBouncer, stands before this server, where AUTOCOMMIT cannot be"
                " made read-only; leave isolation_level away"
            )
            raise SettingsError([Fault("read_only", problem)])

    def taken_from(connection: DBAPIConnection) -> None:
        if take:
            connections.send(connection, take)

    return Standing(put_on, taken_from)


_IS_DIRECT: Final = " WHERE pg_catalog.pg_backend_pid() = {}"
_BY_SETTING: Final = (
    f"SELECT pg_catalog.set_config('default_transaction_read_only', 'on', false){_IS_DIRECT}",
    "RESET default_transaction_read_only",
)
_READS_ONLY: Final = {
    "setting": _BY_SETTING,
    # The driver's attribute ``readonly`` does it, on connections that commit by themselves.
    "attribute": (f"SELECT 1{_IS_DIRECT}", ""),
}


def variables(values: dict[str, object]) -> Standing:
    """Have a session of MySQL or MariaDB keep to variables, and then to what they were before.

    Args:
        values: by name; numbers, and words of ours.
    """
    before = {name: f"@sessionfactory_{name}" for name in values}
    put = [
        *(f"{kept} = @@SESSION.{name}" for name, kept in before.items()),
        *(f"SESSION {name} = {value!r}" for name, value in values.items()),
    ]
    back = [f"SESSION {name} = {kept}" for name, kept in before.items()]
    return Standing(
        lambda connection: _execute(connection, f"SET {', '.join(put)}"),
        lambda connection: _execute(connection, f"SET {', '.join(back)}"),
    )


def _execute(connection: DBAPIConnection, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
