"""Where in the user's code something happens."""

from __future__ import annotations

from sessionfactory.engine import places


def place() -> str | None:
    """Return the file, line and function of the user's code that leads here, if it is known."""
    frame = places.user_frame()
    return None if frame is None else places.describe(frame.f_code, frame.f_lasti)
