"""Finds out the outcome of a COMMIT whose reply was lost, on another connection.

The check is prepared as the last thing before COMMIT, on its connection. If the reply is lost, the
check is made from within the COMMIT, so that a successful one looks like any other: the session
still has its objects, and the callbacks of ``on_commit`` run.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from sessionfactory.clock import monotonic
from sessionfactory.drivers import sqlalchemy_private
from sessionfactory.drivers.error_codes import is_answer, kind_of
from sessionfactory.engine import dialect_hooks
from sessionfactory.engine.views.views import without_options
from sessionfactory.errors import CommitUncertainError, note_outcome
from sessionfactory.pool.waiting import pause
from sessionfactory.transactions.verification import marker, postgres_status

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session, SessionTransaction

    from sessionfactory.transactions.verification.outcome import Outcome, OutcomeCheck

Verification: TypeAlias = Literal["off", "status", "marker"]
VERIFICATIONS: Final[tuple[str, ...]] = get_args(Verification)

_LEAST_WAIT: Final = 5.0
"""Seconds for which the outcome is looked for at least: the server may have to start again."""
_PAUSES: Final = (0.005, 0.5)


class Watch:
    """Watches the commits of one session, until it is closed.

    Args:
        session: whose transaction is in progress.
        verification: how to find out what became of a COMMIT.
        timeout: seconds for which to look for an outcome; ``None`` for no limit.
    """

    __slots__ = ("_connections", "_deadline", "_open", "_prepare", "_session", "rolled_back")

    def __init__(self, session: Session, verification: Verification, timeout: float | None) -> None:
        self.rolled_back: bool = False
        """Whether a COMMIT was found to have failed."""
        self._prepare = marker.prepare if verification == "marker" else postgres_status.prepare
        seconds = math.inf if timeout is None else max(timeout, _LEAST_WAIT)
        self._deadline = monotonic() + min(seconds, marker.RETENTION / 2)
        self._connections: dict[Connection, OutcomeCheck | None] = {}
        self._session = session
        self._open = True
        event.listen(session, "after_begin", self._began)

    def close(self) -> None:
        """Stop watching."""
        self._open = False
        event.remove(self._session, "after_begin", self._began)
        for connection in self._connections:
            event.remove(connection, "commit", self._before_commit)

    def _began(self, _: Session, _transaction: SessionTransaction, connection: Connection) -> None:
        # The event is sent for savepoints, too.
        if connection not in self._connections and not sqlalchemy_private.is_autocommit(connection):
            self._connections[connection] = None
            event.listen(connection, "commit", self._before_commit)

    def _before_commit(self, connection: Connection) -> None:
        self._connections[connection] = self._prepare(connection)
        dialect_hooks.watch_commits(connection.dialect)
        dialect_hooks.settle_next_commit(connection.connection, partial(self.settle, connection))

    def settle(self, connection: Connection, error: Exception) -> None:
        """Find out the outcome of a COMMIT that ended in an error; return if it succeeded.

        Raises:
            DBAPIError: the transaction was rolled back.
            CommitUncertainError: the outcome could not be found out.
        """
        check = self._connections[connection]
        if not self._open or check is None or is_answer(error):
            raise error
        engine, dialect = without_options(connection.engine), connection.dialect
        connection.invalidate(error)  # first, because the pool may allow only one connection
        outcome, reason = _find(check, engine, self._deadline)
        wrapped = DBAPIError.instance(
            None,
            None,
            error,
            dialect.loaded_dbapi.Error,
            connection_invalidated=True,
            dialect=dialect,
        )
        if outcome == "uncertain":
            raise CommitUncertainError(
                f"The reply to COMMIT was lost, and {reason}: the transaction may have been"
                " committed, or not. Look for what it wrote before you repeat it"
            ) from wrapped
        if outcome == "rolled back":
            self.rolled_back = True
            note_outcome(wrapped, "rolled back")
            raise wrapped from error


def _find(check: OutcomeCheck, engine: Engine, deadline: float) -> tuple[Outcome, str]:
    """Query until the outcome is known or the time is over. The server may have to start again."""
    seconds, longest = _PAUSES
    while True:
        try:
            outcome, reason = check.find(engine)
        except Exception as error:  # noqa: BLE001 - any error: nothing was found out
            outcome, reason = None, f"the database could not be queried ({type(error).__name__})"
            if kind_of(error) is None:
                return "uncertain", reason
        if outcome is not None:
            return outcome, reason
        if monotonic() >= deadline:
            return "uncertain", reason
        pause(seconds)
        seconds = min(2 * seconds, longest)
