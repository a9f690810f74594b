"""A factory as SQLAlchemy's ``sessionmaker``, for tools that insist on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session, sessionmaker
from typing_extensions import TypeVar

from sessionfactory.pool.call_sites import note_opening

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine

    from sessionfactory.config.settings import SessionSettings
    from sessionfactory.engine.managed import ManagedEngine

S = TypeVar("S", bound=Session, default=Session)


def keywords_of(settings: SessionSettings) -> dict[str, Any]:
    """Return what a session class gets, besides the engine."""
    return {
        "autoflush": settings.autoflush,
        "expire_on_commit": settings.expire_on_commit,
        "close_resets_only": settings.close_resets_only,
        **settings.options,
    }


class FactorySessionmaker(sessionmaker[S]):
    """The ``sessionmaker`` of a session factory: its sessions are the factory's.

    They are of the factory's guarded class, on its engine and its pool, and are refused when it is
    closed. ``configure`` changes what the maker makes, and not what the factory makes. A listener
    to the maker hears the factory's sessions, too.

    Args:
        managed: the engine of the factory.
        session_class: the class of the sessions.
        settings: the settings of the sessions.
        scope: runs a transaction in a session that a function opens.
    """

    def __init__(
        self,
        managed: ManagedEngine,
        session_class: type[S],
        settings: SessionSettings,
        scope: Callable[[Callable[[], S]], AbstractContextManager[S]],
    ) -> None:
        self._managed = managed
        self._scope = scope
        self._bind: Engine = managed.reading
        super().__init__(self._bind, class_=session_class, **keywords_of(settings))

    def __call__(self, **local_kw: Any) -> S:
        """Return a new session; keywords win over those of the maker."""
        self._managed.ledger.refuse_if_closed()
        session = super().__call__(**local_kw)
        note_opening(session)
        return session

    def begin(self) -> AbstractContextManager[S]:
        """Run one transaction, as ``begin()`` of the factory does."""
        return self._scope(self._open_to_write)

    def _open_to_write(self) -> S:
        is_own = self.kw["bind"] is self._bind
        return self(bind=self._managed.engine) if is_own else self()
