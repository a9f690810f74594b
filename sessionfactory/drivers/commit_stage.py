"""Where in the commit of a session an error arose.

That is read from the code that the error came through, which costs nothing where there is no error:
listeners to events would cost each transaction more than its own bookkeeping does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

Stage: TypeAlias = Literal["before", "commit", "after"]

_SESSION: Final = "sqlalchemy.orm.session"
_BOOKKEEPING: Final = frozenset(
    {_SESSION, "sqlalchemy.orm.state_changes", "sessionfactory.sessions.guarded_session"}
)
# The last flush and the listeners to "before_commit" run in this method of ``SessionTransaction``,
# which has no public name: tests/transactions/test_retrying.py notices if it moves.
_PREPARING: Final = "_prepare_impl"


def stage_of(error: BaseException) -> Stage | None:
    """Say where in the commit of a session an error arose; ``None`` if it was in none.

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
        return "before"  # said by the session itself: it is in no state to commit
    if not (module.startswith("sqlalchemy.engine") and name == "commit"):
        return "after"  # by a listener of the session, or while it closed
    return "commit" if is_of_commit(frames) else "before"


def is_of_commit(error: BaseException | Iterator[tuple[str, str]]) -> bool:
    """Say whether an error came through the COMMIT of any connection, or through its PREPARE."""
    frames = traceback_of(error) if isinstance(error, BaseException) else error
    return any(name.startswith(("do_commit", "do_prepare")) for _, name in frames)


def traceback_of(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of all code that an error came through, outermost first."""
    link: TracebackType | None = error.__traceback__
    while link is not None:
        yield link.tb_frame.f_globals.get("__name__", ""), link.tb_frame.f_code.co_name
        link = link.tb_next
