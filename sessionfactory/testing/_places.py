"""Where in the user's code something happens, and who does it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy

from sessionfactory.engine.ledger import current_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Frames of these are between what the user wrote and what happens.
_BETWEEN: Final = (
    str(Path(sqlalchemy.__file__).parent) + os.sep,
    str(Path(__file__).parents[1]) + os.sep,
    contextlib.__file__,
    "<",  # generated code
)
# Above these frames is who runs the event loop, and not who wrote the task.
_LOOP: Final = str(Path(asyncio.__file__).parent) + os.sep

Actor = asyncio.Task[object] | threading.Thread


def actor() -> Actor:
    """Return who runs now: the asyncio task if there is one, else the thread."""
    return current_task() or threading.current_thread()


def name_of(who: Actor) -> str:
    """Return what messages call a thread or task."""
    if isinstance(who, threading.Thread):
        return f"thread {who.name!r}"
    return f"task {who.get_name()!r}"


def place() -> str | None:
    """Return the file, line and function of the user's code that leads here, if it is known."""
    outside = (f for f in _frames() if not f.f_code.co_filename.startswith(_BETWEEN))
    frame = next(outside, None)
    if frame is None or frame.f_code.co_filename.startswith(_LOOP):
        return None
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _frames() -> Iterator[FrameType]:
    """Yield the frames that lead here, innermost first, across SQLAlchemy's greenlets."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as ``inspect`` does, much faster
    greenlet: Any = sys.modules.get("greenlet")  # absent where nothing is async
    inside = greenlet and greenlet.getcurrent()
    while frame is not None:
        yield frame
        frame = frame.f_back
        if frame is None and inside:
            inside = inside.parent
            frame = inside and inside.gr_frame
