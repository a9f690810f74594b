"""What a registry hands out: factories that only their owner can close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory

S = TypeVar("S")
A = TypeVar("A")
_BLOCKS: Final = ("__enter__", "__exit__", "__aenter__", "__aexit__")
_OF_THE_OWNER: Final = frozenset({"close", "aclose", "start_close", *_BLOCKS})
_OF_A_MAKER: Final = frozenset({"class_", "configure", "kw"})
"""What tools look for that take a ``sessionmaker`` by its members: SQLAdmin, for instance."""


class _Borrowed:
    """A session factory that cannot be closed by its user, and is no context manager.

    Containers such as svcs enter whatever they can enter, and close it at the end of a request.
    Every other member of the factory is there. Equal to the factory that it stands for.
    """

    __slots__ = ("_lent",)

    def __init__(self, lent: Any) -> None:
        self._lent: Any = lent

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_OWNER:
            raise AttributeError(
                f"{name!r} is for the owner of this session factory: close the registry instead",
                name=name,
                obj=self,
            )
        if name == "_lent" or name.startswith("__"):  # as copies without content look for
            raise AttributeError(name, name=name, obj=self)
        if name in _OF_A_MAKER and hasattr(self._lent, "sessionmaker"):
            return getattr(self._lent.sessionmaker, name)
        return getattr(self._lent, name)

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._lent) if name not in _OF_THE_OWNER]

    def __eq__(self, other: object) -> bool:
        return bool(self._lent == (other._lent if isinstance(other, _Borrowed) else other))

    def __hash__(self) -> int:
        return hash(self._lent)

    def __repr__(self) -> str:
        return repr(self._lent)


class BorrowedSessionFactory(_Borrowed, Generic[S]):
    """A ``SessionFactory`` that cannot be closed by its user; see ``registry.get``."""

    __slots__ = ()

    def __call__(self, **keywords: Any) -> S:
        """Return a new session; the caller closes it. Keywords are as a ``sessionmaker``'s."""
        session: S = self._lent.sessionmaker(**keywords) if keywords else self._lent()
        return session

    def begin(self) -> AbstractContextManager[S]:
        """Run one transaction."""
        scope: AbstractContextManager[S] = self._lent.begin()
        return scope


class AsyncBorrowedSessionFactory(_Borrowed, Generic[A]):
    """Async twin of ``BorrowedSessionFactory``."""

    __slots__ = ()

    def __call__(self, **keywords: Any) -> A:
        """Return a new session; the caller closes it. Keywords are as a ``sessionmaker``'s."""
        session: A = self._lent.sessionmaker(**keywords) if keywords else self._lent()
        return session

    def begin(self) -> AbstractAsyncContextManager[A]:
        """Run one transaction."""
        scope: AbstractAsyncContextManager[A] = self._lent.begin()
        return scope


def lend(factory: SessionFactory[S]) -> SessionFactory[S]:
    """Return a factory without what only its owner may do; one without such members as it is."""
    return BorrowedSessionFactory(factory) if _can_be_closed(factory) else factory


def lend_async(factory: AsyncSessionFactory[A]) -> AsyncSessionFactory[A]:
    """Async twin of ``lend``."""
    return AsyncBorrowedSessionFactory(factory) if _can_be_closed(factory) else factory


def owned(factory: object) -> object:
    """Return the factory that its owner has, for what a registry hands out in its place."""
    return factory._lent if isinstance(factory, _Borrowed) else factory  # noqa: SLF001 - our own


def _can_be_closed(factory: object) -> bool:
    return any(hasattr(factory, name) for name in _OF_THE_OWNER)
