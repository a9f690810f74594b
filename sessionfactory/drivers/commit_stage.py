"""Where in the commit of a session an error arose.

On an engine of this package, the hooks around COMMIT and PREPARE (``engine/dialect_hooks.py``)
record on the checkout that COMMIT was sent and answered, and on an error that it came from one. A
session of this package records on the error of its commit how far that had come (``note_stage``).

Tracebacks are read only where no such record is made: for engines and sessions that the user made.
That costs nothing where there is no error: listeners to events would cost each transaction more
than its own bookkeeping does.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from sessionfactory.drivers.sqlalchemy_private import of_transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import PoolProxiedConnection

RECORDS: Final = "sessionfactory_records_commits"
"""Attribute of a dialect whose hooks record its commits."""
_COMMIT: Final = "sessionfactory_commit"
_OF_COMMIT: Final = "_sessionfactory_of_commit"
_STAGE: Final = "_sessionfactory_stage"
Stage: TypeAlias = Literal["before", "commit", "after"]

_SESSION: Final = "sqlalchemy.orm.session"
_BOOKKEEPING: Final = frozenset(
    {_SESSION, "sqlalchemy.orm.state_changes", "sessionfactory.sessions.guarded_session"}
)
# The last flush and the listeners to "before_commit" run in this method of ``SessionTransaction``,
# which has no public name: tests/transactions/test_retrying.py fails if it moves.
_PREPARING: Final = "_prepare_impl"


def note_sent(connection: PoolProxiedConnection) -> None:
    """Record on a checkout that COMMIT is sent. A checkout has one transaction after another."""
    connection.__dict__[_COMMIT] = "sent"


def note_answered(connection: PoolProxiedConnection) -> None:
    """Record on a checkout that COMMIT has succeeded."""
    connection.__dict__[_COMMIT] = "answered"


def note_ended(connection: PoolProxiedConnection) -> None:
    """Remove the record of a checkout, whose transaction was rolled back."""
    getattr(connection, "__dict__", {}).pop(_COMMIT, None)  # none at the engine's inspection


def note_commit(error: BaseException) -> None:
    """Record on an error that it came from a COMMIT or a PREPARE."""
    with suppress(AttributeError, TypeError):  # an error without attributes: see ``is_of_commit``
        vars(error)[_OF_COMMIT] = True


def note_stage(error: BaseException, transaction: SessionTransaction) -> None:
    """Record on an error how far the commit had come that it ended, if the engines record that.

    Args:
        error: what ``commit`` of the transaction raised.
        transaction: of a session, and not a savepoint; its connections are still out.
    """
    connections = of_transaction(transaction)
    if connections and all(RECORDS in vars(used.dialect) for used in connections):
        with suppress(AttributeError, TypeError):
            vars(error)[_STAGE] = _stage_by_records(error, connections), weakref.ref(transaction)


def _stage_by_records(error: BaseException, connections: list[Connection]) -> Stage:
    records = {
        vars(used.connection).get(_COMMIT)
        for used in connections
        if not (used.closed or used.invalidated)
    }
    # A connection that was lost has no record any more, but the error of its COMMIT has.
    is_lost = any(used.invalidated for used in connections)
    if "sent" in records or (is_lost and _is_recorded_of_commit(error)):
        return "commit"
    if "answered" in records or any(used.closed for used in connections):
        return "after"
    return "before"


def recorded_stage(error: BaseException) -> tuple[Stage, SessionTransaction | None] | None:
    """Return what ``note_stage`` has recorded on an error: the stage, and whose."""
    recorded: tuple[Stage, weakref.ref[SessionTransaction]] | None
    recorded = getattr(error, "__dict__", {}).get(_STAGE)
    return None if recorded is None else (recorded[0], recorded[1]())


def stage_of(error: BaseException) -> Stage | None:
    """Return, by its traceback, where in the commit of a session an error arose.

    Returns:
        ``"before"`` COMMIT was sent, in the ``"commit"`` itself, or ``"after"`` it had succeeded;
        ``None`` if the error arose in no commit.
    """
    frames = traceback_of(error)
    if (_SESSION, "commit") not in frames:  # which leaves those that follow
        return None
    for module, name in frames:
        if name == _PREPARING:
            return "before"
        if module not in _BOOKKEEPING:
            break
    else:
        return "before"  # by the session itself: it is in no state to commit
    if not (module.startswith("sqlalchemy.engine") and name == "commit"):
        return "after"  # by a listener of the session, or while it closed
    return "commit" if is_of_commit(error) else "before"


def is_of_commit(error: BaseException) -> bool:
    """Return whether an error came from the COMMIT of any connection, or from its PREPARE."""
    if _is_recorded_of_commit(error):
        return True
    return any(name.startswith(("do_commit", "do_prepare")) for _, name in traceback_of(error))


def _is_recorded_of_commit(error: BaseException) -> bool:
    driver_error: object = getattr(error, "orig", None)
    return any(_OF_COMMIT in getattr(link, "__dict__", ()) for link in (error, driver_error))


def traceback_of(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of all code that an error came through, outermost first."""
    link: TracebackType | None = error.__traceback__
    while link is not None:
        yield link.tb_frame.f_globals.get("__name__", ""), link.tb_frame.f_code.co_name
        link = link.tb_next
