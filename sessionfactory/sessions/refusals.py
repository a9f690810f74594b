"""What is refused: calls of a guarded session, and classes of sessions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sessionfactory.pool import call_sites
from sessionfactory.pool.owners import current_owner, kind_of, name_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sessionfactory.pool.owners import Owner


def refuse_class(session_class: object, kind: type[object]) -> None:
    """Refuse a class of sessions that is none; types do so, but for the untyped caller.

    Raises:
        TypeError: it is no subclass of ``kind``, which is ``Session`` or ``AsyncSession``.
    """
    if not (isinstance(session_class, type) and issubclass(session_class, kind)):
        given = session_class if isinstance(session_class, type) else type(session_class)
        raise TypeError(f"session_class is a subclass of {kind.__name__}, not {given.__name__}")


def busy(call: str, inside: tuple[Owner | int, str]) -> str:
    """Return what to raise for a call while another thread or task is inside the session."""
    me = current_owner()
    kind = kind_of(me)
    return (
        f"The {name_of(me)} calls {call}() of a session while the {_name(inside[0])} is inside its"
        f" {inside[1]}(). A session is for one {kind} at a time: inject the factory, open one"
        f" session per {kind}."
    )


def closed(session: Session, call: str) -> str:
    """Return what to raise for a call of a closed session."""
    site = call_sites.opening_of(session)
    where = "" if site is None else f" It was opened at {call_sites.describe(site)}."
    return (
        f"{call}() of a session after its scope: it is closed.{where} Do this inside the scope, or"
        " open another session; with session.close_resets_only=true a closed session opens again."
    )


def _name(owner: Owner | int) -> str:
    if not isinstance(owner, int):
        return name_of(owner)
    thread = next((thread for thread in threading.enumerate() if thread.ident == owner), None)
    return f"thread {owner}" if thread is None else name_of(thread)
