"""Owners: the asyncio task that runs if there is one, else the thread."""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from typing import TypeAlias

Owner: TypeAlias = asyncio.Task[object] | threading.Thread


def running_task() -> asyncio.Task[object] | None:
    """Return the asyncio task that runs in this thread, if one does."""
    loop = _get_running_loop()  # which raises nothing where no loop runs
    return None if loop is None else asyncio.current_task(loop)


def current_task() -> asyncio.Task[object] | None:
    """Return the asyncio task that runs in this thread, or for which it runs, if one does.

    A task of this package that ends a transaction names the task that waits for it.
    """
    loop = _get_running_loop()  # written out: each checkout comes here
    task = None if loop is None else asyncio.current_task(loop)
    return None if task is None else getattr(task, "sessionfactory_caller", None) or task


def current_owner() -> Owner:
    """Return the owner that runs: the asyncio task if there is one, else the thread."""
    return current_task() or threading.current_thread()


def kind_of(owner: Owner) -> str:
    """Return ``"thread"`` or ``"task"``."""
    # Not the other way round: gevent replaces ``threading.Thread``, and not the threads.
    return "task" if asyncio.isfuture(owner) else "thread"


def name_of(owner: Owner) -> str:
    """Return the name of a thread or task in messages."""
    name = owner.get_name() if isinstance(owner, asyncio.Task) else owner.name
    return f"{kind_of(owner)} {name!r}"
