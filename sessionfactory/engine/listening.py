"""Listeners that a shared object gets once, however many views of it ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

_LISTENING: Final = "sessionfactory_listening"


def listen_once(engine: Engine, name: str, listener: Callable[..., object], **how: Any) -> None:
    """Have a function listen to an event of an engine, unless it does so already. Thread-safe.

    Not by ``event.contains``: that knows an engine by its ``id``, and takes it for another one,
    which is gone, as long as the dialect or the pool of that one is not.

    Args:
        engine: which remembers it.
        name: the event's.
        listener: the function.
        how: what ``event.listen`` takes.
    """
    listening: dict[object, object] = vars(engine).setdefault(_LISTENING, {})
    me = object()
    if listening.setdefault((name, listener), me) is me:
        event.listen(engine, name, listener, **how)
