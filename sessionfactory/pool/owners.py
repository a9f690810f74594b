"""Who runs: the asyncio task if there is one, else the thread."""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop

Actor = asyncio.Task[object] | threading.Thread


def current_task() -> asyncio.Task[object] | None:
    """Return the asyncio task that runs in this thread, if one does."""
    loop = _get_running_loop()  # which raises nothing where none runs
    return None if loop is None else asyncio.current_task(loop)


def actor() -> Actor:
    """Return who runs now: the asyncio task if there is one, else the thread."""
    return current_task() or threading.current_thread()


def kind_of(who: Actor) -> str:
    """Return the word for a thread or task."""
    return "thread" if isinstance(who, threading.Thread) else "task"


def name_of(who: Actor) -> str:
    """Return what messages call a thread or task."""
    return f"{kind_of(who)} {who.name if isinstance(who, threading.Thread) else who.get_name()!r}"
