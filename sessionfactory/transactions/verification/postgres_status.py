"""The outcome of a transaction by its status, which PostgreSQL stores under the transaction's id.

The status alone loses transactions: after a crash of the server, ids that were never committed are
assigned again, and an old id is then "committed" by another transaction. So a status counts only
within one incarnation of the server. It is read after the old connection's process has ended,
because its COMMIT may still be on the way.

Every transaction gets an id for this. One without an id has not "written nothing": NOTIFY gets its
id inside COMMIT, and a foreign table is written on another server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory.drivers import families
from sessionfactory.drivers.error_codes import classify
from sessionfactory.transactions.verification.outcome import NothingWritten

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from sessionfactory.transactions.verification.outcome import Outcome, OutcomeCheck

# The start of the server, its timeline, and the last reset of its statistics: a crash resets them,
# even of a single process. Every role may read these.
_INCARNATION: Final = """
    pg_postmaster_start_time()::text || ' ' ||
    CASE WHEN pg_is_in_recovery() THEN 'recovery'
    ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END || ' ' ||
    coalesce((SELECT stats_reset::text FROM pg_stat_bgwriter), '')
"""
# The pid is read in the transaction, because a pooler may have assigned it another process. A
# standby assigns no ids, refuses NOTIFY, and writes no foreign tables.
_PROBE: Final = f"""
    SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_xact_id()::text END,
    pg_backend_pid(), {_INCARNATION}
"""
_FENCE: Final = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = :pid AND backend_xid::text = :short
""")
_STATUS: Final = text(f"SELECT pg_xact_status(CAST(CAST(:xid AS text) AS xid8)), {_INCARNATION}")
_OLDEST: Final = (13,)


def prepare(connection: Connection) -> OutcomeCheck | None:
    """Read what is needed to find out the outcome of a transaction later.

    Returns:
        ``None`` on another database than PostgreSQL 13 or newer, which stores no status.
    """
    version = connection.dialect.server_version_info or ()
    if not families.of_dialect(connection.dialect).is_postgresql or version < _OLDEST:
        return None
    xid, pid, incarnation = connection.exec_driver_sql(_PROBE).one()
    return NothingWritten() if xid is None else Status(xid, pid, incarnation)


@frozen
class Status:
    """Reads the status of a transaction from PostgreSQL."""

    xid: str
    pid: int
    incarnation: str

    def find(self, engine: Engine) -> tuple[Outcome | None, str]:
        """Query the database once; see ``OutcomeCheck``."""
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            end_backend(connection, self.pid, self.xid)
            try:
                status, incarnation = connection.execute(_STATUS, {"xid": self.xid}).one()
            except DBAPIError as error:
                if (
                    "invalid value" not in classify(error).meanings
                ):  # otherwise the id is in the future
                    raise
                return "rolled back", ""
        if status == "aborted":
            return "rolled back", ""
        if status == "in progress":
            return None, "the server still executes it"
        if status == "committed" and incarnation == self.incarnation:
            return "committed", ""
        return "uncertain", "the server has crashed or was replaced since"


def end_backend(connection: Connection, pid: int, xid: str) -> None:
    """Terminate the server's process that executes a transaction, if it still does."""
    short = str(int(xid) % 2**32)  # pg_stat_activity shows the lower half of the id
    connection.execute(_FENCE, {"pid": pid, "short": short})
