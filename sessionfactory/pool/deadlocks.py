"""Callers that wait for each other's connections: told when the last of them begins to wait.

Whoever opens a session inside another one has a connection and wants a second. If all connections
are held by such callers, none ever comes back. The last one to ask is told so at once, and as his
scopes end, the others go on.

Who waits while he holds is not known by his thread alone: a framework's worker thread serves the
next request while it has, as far as anybody can see, the connection of the former. So a task stands
for itself; a thread's hold counts only if the frame that opened its session is still there, in the
midst of what now waits. Where that is uncertain, the deadline of the checkout decides.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sessionfactory.pool import call_sites
from sessionfactory.pool.wait_queue import TaskWaiter
from sessionfactory.pool_errors import PoolDeadlockError

if TYPE_CHECKING:
    import threading
    from types import FrameType

    from sqlalchemy.orm import Session

    from sessionfactory.pool.ledger import Hold, Ledger, Who
    from sessionfactory.pool.wait_queue import Waiter


def refuse(ledger: Ledger, me: Waiter[Any], who: Who) -> None:
    """Refuse to wait where nobody is left who could give a connection back.

    Args:
        ledger: who has connections, and who waits; ``me`` among them.
        me: what begins to wait.
        who: for whom.

    Raises:
        ClosedError: the factory was closed meanwhile.
        PoolDeadlockError: every connection is held by somebody who waits, and ``me`` came last.
    """
    if not ledger.saturated:
        return  # one is on its way
    by_task = isinstance(me, TaskWaiter)
    if not ledger.has_held(who[by_task]):
        return  # most who wait hold nothing, and need not know who else waits
    holds = ledger.holds
    waiting = {
        task if by_task else thread: waiter
        for waiter, (thread, task) in ledger.waiting
        if waiter.waits
    }
    held_up: set[object] = set()
    for hold in holds:
        owner = hold.task if by_task else hold.thread
        if owner not in waiting or _is_elsewhere(hold) or not (by_task or _is_within_scope(hold)):
            return
        held_up.add(owner)
    # Of several who look at the same time, the last in the order in which all of them came.
    last = [waiter for owner, waiter in waiting.items() if owner in held_up][-1]
    if last is me:
        ledger.refuse_if_closed()
        raise _deadlock(ledger)


def _is_elsewhere(hold: Hold) -> bool:
    """Say whether somebody else is inside a call of the session, or owns it."""
    session = _session(hold)
    visit: tuple[object, str] | None = getattr(session, "sessionfactory_visit", None)
    return visit is not None and visit[0] not in {hold.task, hold.thread, hold.thread.ident}


def _is_within_scope(hold: Hold) -> bool:
    """Say whether a thread that waits does so inside of what opened the session that it holds."""
    session, opened = _session(hold), hold.opened
    if session is None or opened is None:
        return False
    seen = False
    frame = _stack_of(hold.thread)
    while frame is not None:
        file = frame.f_code.co_filename
        is_library = call_sites.is_library(file) and file != __file__  # for these look at it here
        if is_library or frame.f_code is opened[0]:
            # Of two calls of one function, it is the one that has the session.
            seen = seen or any(value is session for value in frame.f_locals.values())
        if seen and frame.f_code is opened[0]:
            return True
        seen = seen and is_library
        frame = frame.f_back
    return False


def _session(hold: Hold) -> Session | None:
    return hold.session() if hold.session is not None else None


def _stack_of(thread: threading.Thread) -> FrameType | None:
    # What debuggers use, and documented: the frame in which each thread is.
    return sys._current_frames().get(thread.ident or 0)  # noqa: SLF001


def _deadlock(ledger: Ledger) -> PoolDeadlockError:
    holders = ledger.holders
    more = "use a file: a database in memory has one connection" if ledger.in_memory else ""
    message = (
        f"Every connection of the database {ledger.name!r} ({ledger.limit}) is held by somebody who"
        " waits for another one, and this call is the last of them. Use one session for a unit of"
        " work, and pass it on to what is called inside; or"
        f" {more or 'raise pool.size'}. In use by:"
    )
    return PoolDeadlockError("\n  - ".join([message, *map(str, holders)]), holders)
