"""A server that became read-only, or goes down, is left: its connection counts as lost.

After a failover, the connections to the former primary still answer, and every write on them fails
for ever, whatever pings them. Counted as lost, a connection is replaced after its first such error,
and its successor finds the new primary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import event

from sessionfactory.drivers import error_codes
from sessionfactory.engine import read_only

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, ExceptionContext

_MYSQL_OPTION: Final = 1290  # "running with the --… option", of which read-only is one


def leave_read_only_servers(engine: Engine) -> None:
    """Have an engine give up connections to servers that do not write any more, or are going."""
    event.listen(engine, "handle_error", _judge)


def _judge(context: ExceptionContext) -> None:
    error = context.original_exception
    found = error_codes.codes_of(error)
    if error_codes.GOING_DOWN.intersection(found):
        context.is_disconnect = True
    elif _refuses_writes(error, found) and not _is_read_only(context.connection):
        context.is_disconnect = True
        # Others may be to a server that writes; and who said SET TRANSACTION READ ONLY by hand,
        # which looks the same, loses one connection and not all.
        context.invalidate_pool_on_disconnect = False


def _is_read_only(connection: Connection | None) -> bool:
    return connection is not None and read_only.is_read_only(connection)


def _refuses_writes(error: BaseException, found: list[error_codes.Code]) -> bool:
    if error_codes.READ_ONLY in found:
        return True
    if not error_codes.MYSQL_READ_ONLY.intersection(found):
        return False
    return _MYSQL_OPTION not in found or "read-only" in str(error) or "read_only" in str(error)
