"""A server that became read-only, or goes down, is left: its connection counts as lost.

After a failover, the connections to the former primary still answer, and every write on them fails
for ever, whatever pings them. Counted as lost, a connection is replaced after its first such error,
and its successor finds the new primary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event

from sessionfactory.drivers.error_codes import classify
from sessionfactory.engine.views import read_only

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, ExceptionContext


def leave_read_only_servers(engine: Engine) -> None:
    """Make an engine discard connections to servers that no longer write, or are going down."""
    event.listen(engine, "handle_error", _judge)


def _judge(context: ExceptionContext) -> None:
    meanings = classify(context.original_exception).meanings
    if "going down" in meanings or "not ready" in meanings:
        context.is_disconnect = True
    elif "read-only server" in meanings and not _is_read_only(context.connection):
        context.is_disconnect = True
        # Others may lead to a server that writes; and a SET TRANSACTION READ ONLY by hand, which
        # looks the same, costs one connection and not all.
        context.invalidate_pool_on_disconnect = False


def _is_read_only(connection: Connection | None) -> bool:
    return connection is not None and read_only.is_read_only(connection)
