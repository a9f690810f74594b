"""A factory of the async half as SQLAlchemy's ``async_sessionmaker``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from sessionfactory.drivers.asyncio_ext import AsyncEngine, AsyncSession, async_sessionmaker
from sessionfactory.pool.call_sites import note_opening
from sessionfactory.sessions.session_maker import keywords_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sessionfactory.config.settings import SessionSettings
    from sessionfactory.engine.managed import ManagedEngine

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)


class AsyncFactorySessionmaker(async_sessionmaker[A]):
    """Async twin of ``FactorySessionmaker``.

    SQLAlchemy's events are of its ``class_.sync_session_class``, as for any ``async_sessionmaker``.

    Args:
        managed: the engine of the factory.
        session_class: the class of the sessions.
        settings: the settings of the sessions.
        scope: runs a transaction in a session that a function opens.
    """

    def __init__(
        self,
        managed: ManagedEngine,
        session_class: type[A],
        settings: SessionSettings,
        scope: Callable[[Callable[[], A]], AbstractAsyncContextManager[A]],
    ) -> None:
        self._managed = managed
        self._scope = scope
        self._bind: AsyncEngine = AsyncEngine(managed.reading)
        super().__init__(self._bind, class_=session_class, **keywords_of(settings))

    def __call__(self, **local_kw: Any) -> A:
        """Return a new session; keywords win over those of the maker."""
        self._managed.ledger.refuse_if_closed()
        session = super().__call__(**local_kw)
        note_opening(session.sync_session)
        return session

    # SQLAlchemy names a private class there, which promises no more.
    def begin(self) -> AbstractAsyncContextManager[A]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run one transaction, as ``begin()`` of the factory does."""
        return self._scope(self._open_to_write)

    def _open_to_write(self) -> A:
        is_own = self.kw["bind"] is self._bind
        return self(bind=AsyncEngine(self._managed.engine)) if is_own else self()
