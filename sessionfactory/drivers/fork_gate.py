"""The gate between forks and threads that connect: neither begins while the other is under way.

A thread that opens a connection goes through OpenSSL, for TLS or to prove that it knows the
password, and once more as it ends. A fork at that moment leaves the child with a lock that none of
its threads has, so that its own attempts to connect wait for ever.

There is no lock: a signal handler may fork, connect or raise between any two instructions. Each
side enters its own dictionary first, and looks at the other one afterwards.
"""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread, current_thread, get_ident
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from sessionfactory.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE: Final = 1.0
"""Seconds that a fork waits for threads that connect. One that takes longer waits for its server,
and most likely holds no lock."""
_STEP: Final = 0.001
"""Seconds between two looks."""
_OURS: Final = "sessionfactory-"
"""How the names of threads of this package begin; a thread that connects ends soon after."""

_forking: Final[dict[int, None]] = {}
"""The numbers of the threads that fork."""
_opening: dict[object, int] = {}
"""The attempts to connect that are under way, and the numbers of their threads."""
_ending: Final[dict[Thread, None]] = {}
"""Threads of this package that connect, from their start until they have ended."""


def connect(call: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Make a call that opens a connection, at no moment at which another thread forks."""
    thread = current_thread()
    if thread in _ending:  # forks wait for it already, so that it must not wait for them
        return call(*arguments, **keywords)
    attempt = object()
    try:
        _enter(attempt)
        return call(*arguments, **keywords)
    finally:
        if thread.name.startswith(_OURS):
            _ending[thread] = None  # first: a fork finds it here or there
        _opening.pop(attempt, None)  # a forked child may have forgotten it


def start(thread: Thread) -> None:
    """Start a thread that connects; forks wait from now on until it has ended.

    Raises:
        RuntimeError: no thread can be started.
    """
    attempt = object()
    try:
        _enter(attempt)
        _ending[thread] = None
        thread.start()
    finally:
        if thread.ident is None:  # it was not started; or it will be, and then enters by itself
            _ending.pop(thread, None)
        _opening.pop(attempt, None)


def _enter(attempt: object) -> None:
    """Enter an attempt; wait until no other thread forks, but not for ever."""
    me = get_ident()
    end = monotonic() + 2 * PATIENCE
    while True:
        _opening[attempt] = me
        if all(thread == me for thread in tuple(_forking)) or monotonic() > end:
            return
        _opening.pop(attempt, None)
        time.sleep(_STEP)


def close() -> None:
    """Let no other thread connect until ``reopen``; wait for those that do, but not for ever."""
    _forking[get_ident()] = None
    end = monotonic() + PATIENCE
    while _others_connect() and monotonic() < end:
        time.sleep(_STEP)


def reopen() -> None:
    """Let other threads connect: the fork of this thread is done."""
    _forking.pop(get_ident(), None)


def clear() -> None:
    """Forget all, in a forked child, which has one thread."""
    _forking.clear()
    _opening.clear()
    _ending.clear()


def _others_connect() -> bool:
    me = get_ident()
    if any(thread != me for thread in tuple(_opening.values())):
        return True
    for thread in tuple(_ending):
        if _has_ended(thread):
            _ending.pop(thread, None)
        elif thread.ident != me:
            return True
    return False


def _has_ended(thread: Thread) -> bool:
    """Return whether a thread has ended for the operating system, too, where that can be seen."""
    if thread.ident is None or thread.is_alive():
        return False
    return not Path(f"/proc/self/task/{thread.native_id}").exists()
