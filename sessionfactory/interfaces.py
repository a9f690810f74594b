"""What a service depends on: the interface of a session factory, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from typing_extensions import TypeVar

from sessionfactory._lazy import publish

if TYPE_CHECKING:
    from abc import ABCMeta
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    # Only for type checkers: a service that knows the interface need not load SQLAlchemy for it.
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

S_co = TypeVar("S_co", covariant=True, default="Session")
A_co = TypeVar("A_co", covariant=True, default="AsyncSession")
Half: TypeAlias = Literal["sync", "async"]

if TYPE_CHECKING:
    _ProtocolMeta = ABCMeta
else:
    _ProtocolMeta = type(Protocol)


class _Interface(_ProtocolMeta):
    """Makes ``isinstance`` distinguish the two halves, which have members of the same names.

    Containers and validators (Litestar, FastStream, pydantic, msgspec, beartype) check what they
    inject against the annotation. A factory whose half is unknown is an instance of both.
    """

    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805 - of a metaclass
        if not getattr(cls, "_is_protocol", False):  # an implementation, which is not structural
            return type.__instancecheck__(cls, instance)
        wanted = "async" if AsyncSessionFactory in cls.__mro__ else "sync"
        return makes_sessions(instance) and half_of(instance) in {wanted, None}


@runtime_checkable
class SessionFactory(Protocol[S_co], metaclass=_Interface):
    """Opens sessions and transactions; the only thing that a service depends on.

    It has the shape of SQLAlchemy's ``sessionmaker``, so that a plain ``sessionmaker`` is one.
    ``SessionFactory`` alone means ``SessionFactory[Session]``. A second database, in a container
    that resolves by type, is a sub-protocol: ``class Analytics(SessionFactory, Protocol): ...``.

    For implementers: both methods may be called from several threads at once, and each call
    returns a session of its own. ``sessionfactory.testing.check_session_factory`` checks the rest.
    ``isinstance`` looks for the two methods, and refuses the async half where that is known.
    """

    def __call__(self) -> S_co:
        """Return a new session; the caller closes it: ``with sessions() as session:``."""
        ...

    def begin(self) -> AbstractContextManager[S_co]:
        """Run one transaction: ``with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.
        """
        ...


@runtime_checkable
class AsyncSessionFactory(Protocol[A_co], metaclass=_Interface):
    """Async twin of ``SessionFactory``; SQLAlchemy's ``async_sessionmaker`` is one.

    ``AsyncSessionFactory`` alone means ``AsyncSessionFactory[AsyncSession]``.

    For implementers: each call returns a session of its own, for one task.
    """

    def __call__(self) -> A_co:
        """Return a new session; the caller closes it: ``async with sessions() as session:``."""
        ...

    def begin(self) -> AbstractAsyncContextManager[A_co]:
        """Run one transaction: ``async with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.
        """
        ...


def makes_sessions(given: object) -> bool:
    """Return whether something has the members of a session factory; a session has not."""
    if hasattr(given, "session_factory") and hasattr(given, "remove"):  # a ``scoped_session``
        return False
    return callable(given) and callable(getattr(given, "begin", None))


def half_of(factory: object) -> Half | None:
    """Return which half a session factory belongs to, or nothing where that is unknown.

    Nothing is called: what ``begin`` is, and what its annotation promises, has to be enough.
    """
    import inspect  # noqa: PLC0415 - not for those who only name the interface

    begin = inspect.unwrap(getattr(factory, "begin", half_of))
    if inspect.isasyncgenfunction(begin) or inspect.iscoroutinefunction(begin):
        return "async"
    if inspect.isgeneratorfunction(begin):
        return "sync"
    promised = str(getattr(begin, "__annotations__", {}).get("return", ""))
    if "ContextManager" in promised:
        return "async" if "Async" in promised else "sync"
    enters, waits = hasattr(factory, "__enter__"), hasattr(factory, "__aenter__")
    if enters == waits:
        return None
    return "async" if waits else "sync"


publish(SessionFactory, AsyncSessionFactory)
