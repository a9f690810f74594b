"""What makes the sync half look awaited, so that a test written for the async half can use it."""

from __future__ import annotations

import inspect
from contextlib import ContextDecorator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Never, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSessionFactoryRegistry,
    AsyncSqlAlchemySessionFactory,
    NullSessionFactory,
    SessionFactoryRegistry,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import (
    AsyncCloningSessionFactory,
    AsyncInMemorySessionFactory,
    AsyncRecordingSessionFactory,
    AsyncRollbackSessionFactory,
    CloningSessionFactory,
    InMemorySessionFactory,
    RecordingSessionFactory,
    RollbackSessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")


class OwnSession(Session):
    """A session class of a user's own."""


class OwnAsyncSession(AsyncSession):
    """Its twin."""

    sync_session_class = OwnSession


TWINS: Final[dict[type[object], type[object]]] = {
    AsyncCloningSessionFactory: CloningSessionFactory,
    AsyncConnection: Connection,
    AsyncEngine: Engine,
    AsyncInMemorySessionFactory: InMemorySessionFactory,
    AsyncNullSessionFactory: NullSessionFactory,
    AsyncRecordingSessionFactory: RecordingSessionFactory,
    AsyncRollbackSessionFactory: RollbackSessionFactory,
    AsyncSession: Session,
    AsyncSessionFactoryRegistry: SessionFactoryRegistry,
    AsyncSessionTransaction: SessionTransaction,
    AsyncSqlAlchemySessionFactory: SqlAlchemySessionFactory,
    async_sessionmaker: sessionmaker,
}
_ASYNC: Final = {sync_kind: async_kind for async_kind, sync_kind in TWINS.items()}


def _unseen(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function's frames pass for generated code: no line of the user's opens a session."""
    function.__code__ = function.__code__.replace(co_filename="<awaited>")
    return function


class Awaited:
    """An object of the sync half that is used like its twin, which says what of it is awaited."""

    def __init__(self, bare: Any) -> None:
        self.bare = bare

    def __getattr__(self, name: str) -> Any:
        if name == "sync_session":
            return self.bare
        if name == "run_sync":
            return _awaited(partial(_run_sync, self.bare))
        value = getattr(self.bare, "close" if name == "aclose" else name)
        if not inspect.isroutine(value):
            return _wrapped(value)
        twin = next((_ASYNC[kind] for kind in type(self.bare).__mro__ if kind in _ASYNC), None)
        is_awaited = inspect.iscoroutinefunction(getattr(twin, name, None))
        return _awaited(value) if is_awaited else plain(value)

    def __call__(self) -> Any:
        return _wrapped(self.bare())

    def begin(self) -> Any:
        return Awaited(self.bare.begin())  # whatever the context manager is

    def __contains__(self, item: object) -> bool:
        return item in self.bare

    def __eq__(self, other: object) -> bool:
        return sync_of(other) is self.bare

    def __hash__(self) -> int:
        return hash(self.bare)

    def __repr__(self) -> str:
        return repr(self.bare)

    def __await__(self) -> Generator[Never, None, Self]:
        yield from ()  # a savepoint, or a connection, that is there already
        return self

    def __enter__(self) -> Any:
        return _wrapped(self.bare.__enter__())  # what is no more awaited in the other half

    def __exit__(self, *error: object) -> Any:
        return self.bare.__exit__(*error)

    @_unseen
    async def __aenter__(self) -> Any:
        return _wrapped(self.bare.__enter__())

    @_unseen
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        return self.bare.__exit__(kind, error, traceback)


def _wrapped(value: Any) -> Any:
    has_twin = isinstance(value, (*_ASYNC, ContextDecorator))  # one of @contextmanager
    return Awaited(value) if has_twin or hasattr(value, "begin") else value  # a reader


def sync_of(value: Any) -> Any:
    """Return what the sync half has in the place of an object or a class."""
    if inspect.isclass(value) and issubclass(value, AsyncSession):
        return value.sync_session_class
    if inspect.isclass(value):
        return TWINS.get(value, value)
    if isinstance(value, partial):
        return partial(sync_of(value.func), *value.args, **value.keywords)
    if inspect.ismethod(value) and inspect.isclass(value.__self__):  # such as from_env
        return getattr(TWINS[value.__self__], value.__name__)
    return value.bare if isinstance(value, Awaited) else value


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is called with, and returns, what looks awaited."""

    @_unseen
    def call(*arguments: Any, **keywords: Any) -> Any:
        theirs = {key: sync_of(value) for key, value in keywords.items()}
        return _wrapped(function(*map(sync_of, arguments), **theirs))

    return call


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    @_unseen
    async def call(*arguments: Any, **keywords: Any) -> Any:
        return plain(function)(*arguments, **keywords)

    return call


def _run_sync(bare: Any, work: Callable[..., Any], *arguments: Any) -> Any:
    return work(bare, *arguments)
