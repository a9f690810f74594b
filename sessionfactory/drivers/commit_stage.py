"""Where in the commit of a session an error arose.

On an engine of ours, the hook around ``do_commit`` records on an error that it came from a COMMIT
(``note_commit``). On a user's own engine, which has no such hook, and for the PREPARE of two-phase
transactions, that is read from the code that the error came through, and so is what a session did
around its COMMIT. That costs nothing where there is no error: listeners to events would cost each
transaction more than its own bookkeeping does.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_OF_COMMIT: Final = "_sessionfactory_of_commit"
Stage: TypeAlias = Literal["before", "commit", "after"]

_SESSION: Final = "sqlalchemy.orm.session"
_BOOKKEEPING: Final = frozenset(
    {_SESSION, "sqlalchemy.orm.state_changes", "sessionfactory.sessions.guarded_session"}
)
# The last flush and the listeners to "before_commit" run in this method of ``SessionTransaction``,
# which has no public name: tests/transactions/test_retrying.py notices if it moves.
_PREPARING: Final = "_prepare_impl"


def stage_of(error: BaseException) -> Stage | None:
    """Return where in the commit of a session an error arose; ``None`` if it was in none.

    Returns:
        ``"before"`` COMMIT was sent, in the ``"commit"`` itself, or ``"after"`` it had succeeded.
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
    driver_error: object = getattr(error, "orig", None)
    if any(_OF_COMMIT in getattr(link, "__dict__", ()) for link in (error, driver_error)):
        return True
    return any(name.startswith(("do_commit", "do_prepare")) for _, name in traceback_of(error))


def note_commit(error: BaseException) -> None:
    """Record on an error that it came from a COMMIT: the hook around it knows."""
    with suppress(AttributeError, TypeError):  # an error without attributes: see ``is_of_commit``
        vars(error)[_OF_COMMIT] = True


def traceback_of(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of all code that an error came through, outermost first."""
    link: TracebackType | None = error.__traceback__
    while link is not None:
        yield link.tb_frame.f_globals.get("__name__", ""), link.tb_frame.f_code.co_name
        link = link.tb_next
