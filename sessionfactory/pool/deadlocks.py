"""Pool deadlocks: all connections are held by callers that wait for another one.

A caller that opens a session inside another one has a connection and waits for a second. If all
connections are held by such callers, none is ever returned. The last of them gets an error at once,
and as its scopes end, the others go on.

Only what is certain is reported; else the deadline of the checkout decides. A holder certainly
waits if it entered the scope of its session (``with``) and waits inside that scope, and if no other
thread or task has used the session: a session that was handed over may be closed elsewhere. A
thread's identity is not enough: a worker thread serves the next request while the scope of the
former is still open. So the frame that opened the session has to be on the thread's stack.
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

    from sessionfactory.pool.ledger import Caller, Checkout, Ledger
    from sessionfactory.pool.owners import Owner
    from sessionfactory.pool.wait_queue import Waiter


def refuse(ledger: Ledger, me: Waiter[Any], caller: Caller) -> None:
    """Refuse to wait where no holder is left that could return a connection.

    Args:
        ledger: records who has connections, and who waits; ``me`` among them.
        me: the waiter that begins to wait.
        caller: its thread and task.

    Raises:
        ClosedError: the factory was closed meanwhile.
        PoolDeadlockError: every connection is held by a caller that waits, and ``me`` came last.
    """
    if not ledger.saturated:
        return  # a connection is being opened, or returned
    by_task = isinstance(me, TaskWaiter)
    if not ledger.has_checkout_of(caller[by_task]):
        return  # most callers that wait hold nothing, and need not know who else waits
    waiting: dict[Owner | None, Waiter[Any]] = {
        task if by_task else thread: waiter
        for waiter, (thread, task) in ledger.waiting
        if waiter.waits
    }
    held_up: set[Owner] = set()
    for checkout in ledger.checkouts:
        owner = checkout.task if by_task else checkout.thread
        if owner is None or owner not in waiting or not _is_blocked(checkout, by_task=by_task):
            return
        held_up.add(owner)
    # Of several that look at the same time, the last in the order in which all of them came.
    last = [waiter for owner, waiter in waiting.items() if owner in held_up][-1]
    if last is me:
        ledger.refuse_if_closed()
        raise _deadlock(ledger)


def _is_blocked(checkout: Checkout, *, by_task: bool) -> bool:
    """Return whether the connection certainly stays out while its owner waits."""
    session = checkout.session
    scope: int | None = getattr(session, "sessionfactory_scope", None)
    if by_task:
        return scope == id(checkout.task)
    return scope == checkout.thread.ident and _is_within_scope(checkout)


def _is_within_scope(checkout: Checkout) -> bool:
    """Return whether a thread that waits does so inside the scope that it opened."""
    session, opened = checkout.session, checkout.opened
    if session is None or opened is None:
        return False
    seen = False
    frame = _stack_of(checkout.thread)
    while frame is not None:
        is_library = call_sites.is_library(frame) and frame.f_code.co_filename != __file__
        if is_library or frame.f_code is opened[0]:
            # Of two calls of one function, it is the one whose variables include the session.
            seen = seen or any(value is session for value in frame.f_locals.values())
        if seen and frame.f_code is opened[0]:
            return True
        seen = seen and is_library
        frame = frame.f_back
    return False


def _stack_of(thread: threading.Thread) -> FrameType | None:
    # What debuggers use, and documented: the frame in which each thread is.
    return sys._current_frames().get(thread.ident or 0)  # noqa: SLF001


def _deadlock(ledger: Ledger) -> PoolDeadlockError:
    holders = ledger.holders
    more = "use a file: a database in memory has one connection" if ledger.in_memory else ""
    message = (
        f"Pool deadlock on {ledger.name!r}: all {ledger.limit} connections are held by callers that"
        " wait for another connection, and this call is the last of them. Use one session for a"
        f" unit of work, and pass it on to what is called inside; or {more or 'raise pool.size'}."
        " In use by:"
    )
    return PoolDeadlockError("\n  - ".join([message, *map(str, holders)]), holders)
