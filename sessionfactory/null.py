"""The null objects: legal session factories for a database that is not configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionfactory._lazy import publish
from sessionfactory.errors import NotConfiguredError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import Never


class NullSessionFactory:
    """A legal ``SessionFactory`` that raises ``NotConfiguredError`` whenever it is used.

    The registry returns it for a name without settings. It is also the guard of a unit test that
    must not touch a database: ``Signup(NullSessionFactory("no database in this test"))``.
    Thread-safe.

    Args:
        reason: the message of the error, a sentence for the person who can repair it.
    """

    __slots__ = ("reason",)

    reason: str

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"NullSessionFactory({self.reason!r})"

    def __call__(self) -> Never:
        """Raise ``NotConfiguredError``."""
        raise NotConfiguredError(self.reason)

    # ``Any`` is the one argument that fits ``SessionFactory[S]`` for every ``S``: with ``Never``,
    # type checkers would call everything after ``with factory.begin():`` unreachable.
    def begin(self) -> AbstractContextManager[Any]:
        """Raise ``NotConfiguredError``."""
        raise NotConfiguredError(self.reason)


class AsyncNullSessionFactory:
    """Async twin of ``NullSessionFactory``: it raises before anything is awaited.

    Args:
        reason: the message of the error, a sentence for the person who can repair it.
    """

    __slots__ = ("reason",)

    reason: str

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"AsyncNullSessionFactory({self.reason!r})"

    def __call__(self) -> Never:
        """Raise ``NotConfiguredError``."""
        raise NotConfiguredError(self.reason)

    # ``Any``: as in the sync twin.
    def begin(self) -> AbstractAsyncContextManager[Any]:
        """Raise ``NotConfiguredError``."""
        raise NotConfiguredError(self.reason)


publish(NullSessionFactory, AsyncNullSessionFactory)
