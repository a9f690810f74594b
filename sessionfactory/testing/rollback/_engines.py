"""Where a rollback fake takes its connection from, and what it cannot take one from."""

from __future__ import annotations

from inspect import iscoroutine

from sqlalchemy import Engine
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session

_FAKES = {False: "RollbackSessionFactory", True: "AsyncRollbackSessionFactory"}


def engine_behind(given: object, *, is_async: bool) -> Engine:
    """Return the engine of a factory's sessions, or of the engine that was given in its place.

    Args:
        given: what the user gave to a fake.
        is_async: which half the fake is of.

    Raises:
        TypeError: it is neither, it is of the other half, or it is bound to no single engine.
    """
    engine = getattr(given, "engine", given)
    engine = getattr(engine, "sync_engine", engine)  # of an ``AsyncEngine``
    if not isinstance(engine, Engine):
        engine = _bind_of(given, is_async=is_async)
    if engine.dialect.is_async != is_async:
        raise TypeError(f"the driver {engine.dialect.driver!r} is for {_FAKES[not is_async]}")
    return engine


def _bind_of(given: object, *, is_async: bool) -> Engine:
    """Open a session, and ask it."""
    session = _open(given, is_async=is_async)
    try:
        bind = session.get_bind()
    except UnboundExecutionError as error:
        raise TypeError(
            "these sessions are bound to no engine, or to several by their classes, and a rollback"
            " fake has one connection: give it sessionmaker(engine), or the engine"
        ) from error
    finally:
        session.close()
    if not isinstance(bind, Engine):
        raise TypeError(
            "a rollback fake takes its connection from an engine, but these sessions are bound to"
            " a connection already, as those of another rollback fake are"
        )
    return bind


def _open(given: object, *, is_async: bool) -> Session:
    fake = _FAKES[is_async]
    if not callable(given):
        how = "; of a URL, make an engine" if isinstance(given, str) else ""
        raise TypeError(
            f"{fake} takes a factory of sessions or an engine, not {type(given).__name__}{how}"
        )
    if hasattr(given, "session_factory") and hasattr(given, "remove"):
        raise TypeError(
            f"{type(given).__name__} gives one session again and again, which would stay with the"
            f" fake: give its own factory, {fake}(….session_factory)"
        )
    session = given()
    if iscoroutine(session):
        session.close()  # else a warning that nobody awaited it
    kind = type(session).__name__
    sync_session = getattr(session, "sync_session", session)
    if not isinstance(sync_session, Session):
        raise TypeError(f"expected a factory of sessions, not of {kind}")
    if (sync_session is session) == is_async:
        raise TypeError(f"sessions of the class {kind} are for {_FAKES[not is_async]}")
    return sync_session
