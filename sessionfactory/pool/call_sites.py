"""Call sites: where in the user's code something happens.

Frames of libraries between the user's code and a checkout are skipped: SQLAlchemy's, contextlib's,
this package's, and those of known wrappers. Other wrappers add themselves in the way that pytest
knows: ``__tracebackhide__ = True``, in a function for its frames, or in a module for all of them.
"""

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

CallSite = tuple["CodeType", int]
"""An instruction. To record one costs little: its line is found when it is shown."""

_getframe = sys._getframe  # noqa: SLF001 - what ``inspect`` wraps, 50 times faster
_LIBRARIES: Final = (
    str(Path(sqlalchemy.__file__).parent) + os.sep,
    str(Path(__file__).parents[1]) + os.sep,
    contextlib.__file__,
    "<",  # generated code: SQLAlchemy's and attrs' wrappers
)
_WRAPPERS: Final = frozenset({"flask_sqlalchemy", "flask_sqlalchemy_lite", "sqlmodel"})
"""Packages whose sessions and functions only pass calls on."""
_HIDDEN: Final = "__tracebackhide__"
_USER: Final = 0
_LIBRARY: Final = 1
_RUNS_A_LOOP: Final = -1
# Above these frames is what runs the event loop, and not what made the task.
_LOOP: Final = str(Path(asyncio.__file__).parent) + os.sep


def note_opening(session: Any) -> None:
    """Record where a session is opened.

    Called by the function that makes it, which a method of the factory calls, which the user calls.
    """
    frame = _outside(_getframe(3))
    if frame is not None:
        # An attribute: access to ``__dict__`` would make one, which takes longer than the rest.
        session.sessionfactory_opened = (frame.f_code, frame.f_lasti)


def opening_of(session: Session) -> CallSite | None:
    """Return where a session was opened, if its factory recorded it."""
    site: CallSite | None = getattr(session, "sessionfactory_opened", None)
    return site


def caller_of_pool(*, is_awaited: bool) -> FrameType | None:
    """Return the frame of the user's code that leads to a checkout, if there is one.

    Args:
        is_awaited: whether this runs in a greenlet of SQLAlchemy's.
    """
    if is_awaited:
        return user_frame()
    frame = _outside(_getframe(5))  # the nearest five are this package's
    if frame is None or _kinds.get(frame.f_code.co_filename) == _RUNS_A_LOOP:
        return None
    return frame


def here() -> str | None:
    """Return the file, line and function of the user's code that leads here, if it is known."""
    frame = user_frame()
    return None if frame is None else describe((frame.f_code, frame.f_lasti))


def user_frame() -> FrameType | None:
    """Return the innermost frame of the user's code that leads here, if there is one.

    If that code runs within an awaited call, as a listener does, it is the frame that awaits.
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

    It looks at these few frames only, and not at the many of the call itself.

    Args:
        spawning: the frame of ``greenlet_spawn``, which waits for the greenlet that runs.
    """
    method = spawning.f_back
    if method is None or method.f_code.co_name == "run_sync":  # it runs the user's own code
        return None
    frame = _outside(method)
    return None if frame is None or frame is method or _runs_a_loop(frame) else frame


def _runs_a_loop(frame: FrameType) -> bool:
    return _kind_of(frame) == _RUNS_A_LOOP


def _outside(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is no library's, from a frame on."""
    kinds = _kinds  # written out: each checkout passes some ten frames
    while frame is not None:
        code = frame.f_code
        kind = kinds.get(code.co_filename)
        if kind is None:
            kind = _kind_of(frame)
        if kind != _LIBRARY and (kind == _RUNS_A_LOOP or _HIDDEN not in code.co_varnames):
            return frame
        frame = frame.f_back
    return None


def describe(site: CallSite) -> str:
    """Return the file, line and function of an instruction, as people read it."""
    code, instruction = site
    spans = code.co_lines()
    line = next((line for start, end, line in spans if start <= instruction < end), None)
    return f"{code.co_filename}:{line or code.co_firstlineno} in {code.co_qualname}"


def is_library(frame: FrameType) -> bool:
    """Return whether a frame is SQLAlchemy's, this package's, or a wrapper's."""
    return _kind_of(frame) == _LIBRARY


_kinds: Final[dict[str, int]] = {}
"""What a file is, by its name: a cache, as it is needed for each frame of each checkout."""


def _kind_of(frame: FrameType) -> int:
    file = frame.f_code.co_filename
    kind = _kinds.get(file)
    if kind is None:
        kind = _kinds[file] = _judge(file, frame.f_globals)
    return kind


def _judge(file: str, names: dict[str, Any]) -> int:
    if file.startswith(_LOOP):
        return _RUNS_A_LOOP
    package = str(names.get("__name__", "")).partition(".")[0]
    wraps = package in _WRAPPERS or names.get(_HIDDEN)
    return _LIBRARY if wraps or file.startswith(_LIBRARIES) else _USER


def _waiting_greenlet() -> Any:
    module: Any = sys.modules.get("greenlet")  # absent where nothing is async
    return module and module.getcurrent().parent
