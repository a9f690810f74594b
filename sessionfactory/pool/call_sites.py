"""Where in the user's code something happens, and in which session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from sqlalchemy.orm import Session

Place = tuple["CodeType", int]
"""An instruction. To note it costs little: its line is looked up when it is shown."""

_getframe = sys._getframe  # noqa: SLF001 - what ``inspect`` wraps, 50 times faster
# Frames of these are between what the user wrote and what happens.
_LIBRARIES: Final = (
    str(Path(sqlalchemy.__file__).parent) + os.sep,
    str(Path(__file__).parents[1]) + os.sep,
    contextlib.__file__,
    "<",  # generated code: SQLAlchemy's and attrs' wrappers
)
_LIBRARY: Final = 1
_GUARDED: Final = 2
_RUNS_A_LOOP: Final = -1
# In its frames, the local variable ``session``, or else ``self``, is the session that is guarded.
_GUARD: Final = str(Path(__file__).parents[1] / "sessions" / "guarded_session.py")
# Above these frames is who runs the event loop, and not who wrote the task.
_LOOP: Final = str(Path(asyncio.__file__).parent) + os.sep


def note_opening(session: Any) -> None:
    """Note where a session is opened.

    Called by the function that makes it, which a method of the factory calls, which the user does.
    """
    frame = _outside(_getframe(3))
    if frame is not None:
        # An attribute: to touch ``__dict__`` would make one, which takes longer than all else here.
        session.sessionfactory_opened = (frame.f_code, frame.f_lasti)


def opening_of(session: Session) -> Place | None:
    """Return where a session was opened, if its factory noted it."""
    place: Place | None = getattr(session, "sessionfactory_opened", None)
    return place


def caller(*, is_awaited: bool) -> tuple[FrameType | None, Session | None]:
    """Return the frame of the user's code that leads here, and the session whose call it is in.

    Both at once, because each checkout asks: the stack is walked a single time.

    Args:
        is_awaited: whether this runs in a greenlet of SQLAlchemy's.
    """
    session: Session | None = None
    frame: FrameType | None = _getframe(4)  # whoever asked the pool, which asks the ledger
    kind = _LIBRARY
    while frame is not None and (kind := _kind_of(frame.f_code.co_filename)) > 0:
        if kind == _GUARDED and session is None:
            found = frame.f_locals
            session = found.get("session", found.get("self"))
            if is_awaited:  # the user's frame is not on this stack
                break
        frame = frame.f_back  # the guard stands between SQLAlchemy and what is the user's
    if is_awaited:
        return user_frame(), session
    return (None if kind == _RUNS_A_LOOP else frame), session


def here() -> str | None:
    """Return the file, line and function of the user's code that leads here, if it is known."""
    frame = user_frame()
    return None if frame is None else describe((frame.f_code, frame.f_lasti))


def user_frame() -> FrameType | None:
    """Return the innermost frame of the user's code that leads here, if there is one.

    Of the user's code in a call that he awaits, such as a listener's, it is the one that awaits.
    """
    waiting = _waiting_greenlet()
    found = waiting and _awaiting(waiting.gr_frame)
    if found:
        return found
    frame: FrameType | None = _getframe(1)
    greenlet: Any = None
    while True:
        frame = _outside(frame)
        if frame is not None:
            return None if _runs_a_loop(frame) else frame
        # The stack ends where SQLAlchemy made a greenlet; it goes on in the one that waits for it.
        greenlet = greenlet.parent if greenlet else _waiting_greenlet()
        frame = greenlet and greenlet.gr_frame
        if frame is None:
            return None


def _awaiting(spawning: FrameType) -> FrameType | None:
    """Return the frame of the user's code that awaits a call of SQLAlchemy's, if one does.

    Only these few frames are looked at, then, and not the many of the call itself.

    Args:
        spawning: the frame of ``greenlet_spawn``, which waits for the greenlet that runs.
    """
    method = spawning.f_back
    if method is None or method.f_code.co_name == "run_sync":  # it runs the user's own code
        return None
    frame = _outside(method)
    return None if frame is None or frame is method or _runs_a_loop(frame) else frame


def _runs_a_loop(frame: FrameType) -> bool:
    return _kind_of(frame.f_code.co_filename) == _RUNS_A_LOOP


def _outside(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is not the libraries', from a frame on."""
    while frame is not None and _kind_of(frame.f_code.co_filename) > 0:
        frame = frame.f_back
    return frame


def describe(place: Place) -> str:
    """Return the file, line and function of an instruction, as people read it."""
    code, instruction = place
    spans = code.co_lines()
    line = next((line for start, end, line in spans if start <= instruction < end), None)
    return f"{code.co_filename}:{line or code.co_firstlineno} in {code.co_qualname}"


def is_library(file: str) -> bool:
    """Say whether a file is SQLAlchemy's, this package's, or what is between."""
    return _kind_of(file) > 0


class _Kinds(dict[str, int]):
    """What a file is, by its name: looked up for each frame of each checkout."""

    def __missing__(self, file: str) -> int:
        if file.startswith(_LOOP):
            kind = _RUNS_A_LOOP
        else:
            kind = _GUARDED if file == _GUARD else _LIBRARY * file.startswith(_LIBRARIES)
        self[file] = kind
        return kind


_kind_of: Final = _Kinds().__getitem__


def _waiting_greenlet() -> Any:
    module: Any = sys.modules.get("greenlet")  # absent where nothing is async
    return module and module.getcurrent().parent
