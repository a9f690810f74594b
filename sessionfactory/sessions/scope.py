"""The scopes of transactions, and the reader's sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Never

import attrs
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sqlalchemy.orm import SessionTransaction

S = TypeVar("S", bound=Session, default=Session)


def _entered() -> Never:
    raise RuntimeError("a transaction scope is entered once; call begin() for another")


class TransactionScope(Generic[S]):
    """``with sessions.begin() as session:``: commit at the end, roll back on an error, close.

    One small class instead of the two nested generators of ``sessionmaker.begin``: faster, and
    typed exactly. It is used once.
    """

    __slots__ = ("_open", "_session", "_transaction")

    _session: S
    _transaction: SessionTransaction

    def __init__(self, open_session: Callable[[], S]) -> None:
        self._open = open_session

    def __enter__(self) -> S:
        open_session, self._open = self._open, _entered
        session = self._session = open_session()
        try:
            self._transaction = session.begin()
            self._transaction.__enter__()
        except BaseException:
            session.close()
            raise
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._transaction.__exit__(kind, error, traceback)
        finally:
            self._session.__exit__(kind, error, traceback)


@attrs.define(eq=False)
class ReadOnlySessions(Generic[S]):
    """A ``SessionFactory`` whose transactions cannot write: a factory's ``reader``."""

    _open: Callable[[], S] = attrs.field(repr=False)

    def __call__(self) -> S:
        """Return a new session; the caller closes it."""
        return self._open()

    def begin(self) -> AbstractContextManager[S]:
        """Run one read-only transaction."""
        return TransactionScope(self._open)
