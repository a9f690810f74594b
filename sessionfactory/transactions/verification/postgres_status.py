"""Whether a transaction has happened, by the status that PostgreSQL keeps of it.

The status alone loses transactions: after a crash of the server, ids that were never committed are
given out again, and an old one is then "committed" by another transaction. So it is believed only
within one incarnation of the server. And it is asked for only when the old connection's process is
ended: its COMMIT may still be on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory.drivers import families
from sessionfactory.drivers.error_codes import classify
from sessionfactory.transactions.verification.question import NothingWritten

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from sessionfactory.transactions.verification.question import Outcome, Question

# The start of the server, its timeline, and the reset of its statistics, which a crash does as
# well, even of a single process. All roles may read these. A server in recovery writes nothing.
_INCARNATION: Final = """
    pg_postmaster_start_time()::text || ' ' ||
    CASE WHEN pg_is_in_recovery() THEN 'recovery'
    ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END || ' ' ||
    coalesce((SELECT stats_reset::text FROM pg_stat_bgwriter), '')
"""
# The pid is asked for in the transaction: a pooler may have given it another process.
_PROBE: Final = f"""
    SELECT pg_current_xact_id_if_assigned()::text, pg_backend_pid(), {_INCARNATION}
"""
_FENCE: Final = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = :pid AND backend_xid::text = :short
""")
_STATUS: Final = text(f"SELECT pg_xact_status(CAST(CAST(:xid AS text) AS xid8)), {_INCARNATION}")
_OLDEST: Final = (13,)


def prepare(connection: Connection) -> Question | None:
    """Ask for what is needed to find out later whether a transaction has happened.

    Returns:
        ``None`` on another database than PostgreSQL 13 or newer, where that cannot be found out.
    """
    version = connection.dialect.server_version_info or ()
    if not families.of_dialect(connection.dialect).is_postgresql or version < _OLDEST:
        return None
    xid, pid, incarnation = connection.exec_driver_sql(_PROBE).one()
    return NothingWritten() if xid is None else Status(xid, pid, incarnation)


@frozen
class Status:
    """Asks PostgreSQL for the status of a transaction."""

    xid: str
    pid: int
    incarnation: str

    def ask(self, engine: Engine) -> tuple[Outcome | None, str]:
        """Ask once; see ``Question``."""
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            end_backend(connection, self.pid, self.xid)
            try:
                status, incarnation = connection.execute(_STATUS, {"xid": self.xid}).one()
            except DBAPIError as error:
                if "invalid value" not in classify(error).meanings:  # else no such id exists yet
                    raise
                return "rolled back", ""
        if status == "aborted":
            return "rolled back", ""
        if status == "in progress":
            return None, "the server still works on it"
        if status == "committed" and incarnation == self.incarnation:
            return "committed", ""
        return "uncertain", "the server has crashed or was replaced meanwhile"


def end_backend(connection: Connection, pid: int, xid: str) -> None:
    """End the server's process that has a transaction, if it still has it."""
    short = str(int(xid) % 2**32)  # as the server shows it, and as it may be some other one's
    connection.execute(_FENCE, {"pid": pid, "short": short})
