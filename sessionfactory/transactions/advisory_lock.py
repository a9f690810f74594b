"""A named lock that one transaction at a time holds, in all processes that use the database."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

import attrs
from sqlalchemy.orm import Session

from sessionfactory.config.values import kind_of
from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.errors import Fault, LockUnavailableError, SettingsError
from sessionfactory.interfaces import makes_sessions
from sessionfactory.transactions.named_locks import lock_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from types import TracebackType

    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
    from sessionfactory.transactions.named_locks import NamedLock

S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=AsyncSession)
T = TypeVar("T")


@overload
def advisory_lock(
    sessions: SessionFactory[S], name: str, *, wait: float | None = 10.0
) -> AbstractContextManager[S]: ...


@overload
def advisory_lock(
    sessions: AsyncSessionFactory[A], name: str, *, wait: float | None = 10.0
) -> AbstractAsyncContextManager[A]: ...


def advisory_lock(
    sessions: SessionFactory[Any] | AsyncSessionFactory[Any],
    name: str,
    *,
    wait: float | None = 10.0,
) -> Any:
    """Run one transaction that holds a named lock, for work that one process at a time does.

    ``with advisory_lock(sessions, "nightly import") as session: ...``

    The block is given the
    session of the transaction, as ``sessions.begin()`` gives it. The lock is held until the
    transaction has ended, whether it commits or rolls back, and until its connection is gone if
    its process dies. It locks nothing but its name: other sessions read and write as they like.

    - PostgreSQL: ``pg_advisory_xact_lock``, which is right behind a pooler in transaction mode.
      ``statement_timeout`` does not shorten the wait, and ``idle_in_transaction_session_timeout``
      does not end the transaction while its block works elsewhere. Within one database.
    - MySQL and MariaDB: ``GET_LOCK``, released when the connection is checked in. It is held by
      one server: on Galera, all processes have to use the same node. Within one database.
    - SQLite: a file beside the database's. A database in memory has one connection, which the
      transaction has for itself: there the lock is the transaction.

    Each lock takes one connection of the pool for as long as it waits or is held. Thread-safe.

    Args:
        sessions: a session factory of either half, ``sessionmaker`` included.
        name: of the lock.
        wait: seconds to wait for it; 0 does not wait, ``None`` waits without a limit.

    Raises:
        LockUnavailableError: from the scope's beginning: another transaction held the lock all the
            time. Nothing was done.
        SettingsError: ``name`` or ``wait`` cannot be used, or the database has no such locks.
        TypeError: ``sessions`` is no session factory.
    """
    given: object = sessions
    if not makes_sessions(given) or hasattr(given, "session_factory"):  # of a ``scoped_session``
        raise TypeError(f"advisory_lock takes a session factory, not {type(given).__name__}")
    faults = [*_faults_of_name(name), *_faults_of_wait(wait)]
    if faults:
        raise SettingsError(faults)
    return LockedScope[Any](sessions.begin(), name, wait)


def _faults_of_name(name: object) -> list[Fault]:
    if isinstance(name, str) and name:
        return []
    given = "empty text" if name == "" else kind_of(name)
    return [Fault("advisory_lock.name", f"expected the name of a lock, got {given}")]


def _faults_of_wait(wait: object) -> list[Fault]:
    if wait is None:
        return []
    if isinstance(wait, bool) or not isinstance(wait, int | float):
        problem = f"expected seconds or None, got {kind_of(wait)}"
    elif not 0 <= wait < math.inf:
        problem = f"expected 0 seconds or more, or None for no limit, got {wait:g}"
    else:
        return []
    return [Fault("advisory_lock.wait", problem)]


@attrs.define(eq=False)
class LockedScope(Generic[T]):
    """A factory's ``begin()``, of either half, that acquires a lock first and releases it last."""

    _scope: Any
    _name: str
    _wait: float | None
    _lock: NamedLock | None = None

    def _acquire(self, session: Session) -> None:
        self._lock = lock_of(session, self._name)
        if not self._lock.acquire(session, self._wait):
            within = f" within {self._wait:g} s" if self._wait else ""
            raise LockUnavailableError(
                f"The lock {self._name!r} was not acquired{within}: another transaction holds it."
                " Try again later, or raise wait"
            )

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> T:
        session = self._scope.__enter__()
        try:
            self._acquire(session)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return cast("T", session)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._scope.__exit__(kind, error, traceback)
        finally:
            self._release()

    async def __aenter__(self) -> T:
        session = await self._scope.__aenter__()
        try:
            await session.run_sync(self._acquire)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return cast("T", session)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, traceback)
        finally:
            self._release()
