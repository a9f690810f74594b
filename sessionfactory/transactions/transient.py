"""Which errors may pass when the same transaction is tried again."""

from __future__ import annotations

from sessionfactory.drivers.error_codes import kind_of


def is_transient(error: BaseException) -> bool:
    """Say whether a transaction that failed with this error may succeed when it is tried again.

    That is so for a conflict with another transaction (serialization failure, deadlock, SQLite's
    BUSY, Galera's conflict at COMMIT), a lock that was waited for too long, a connection that was
    lost, and a server that cannot be reached, starts, ends, or has failed over. Known are the
    errors of psycopg, psycopg2, asyncpg, PyMySQL, aiomysql, asyncmy, mysql-connector, mysqlclient,
    sqlite3, aiosqlite, oracledb and pyodbc.

    It does not say whether it is safe: a transaction whose COMMIT was under way may have happened.
    ``run_in_transaction`` knows that, and tries again only what did not happen.

    Args:
        error: SQLAlchemy's error, or the driver's own.
    """
    return kind_of(error) is not None
