"""Errors of the pool, which callers may already catch as SQLAlchemy's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from sessionfactory._lazy import publish
from sessionfactory.errors import SessionFactoryError

if TYPE_CHECKING:
    from sqlalchemy import ExceptionContext

    from sessionfactory.status import Holder


class PoolExhaustedError(SessionFactoryError, SqlAlchemyTimeoutError):
    """No connection was returned within ``pool.timeout``; ``holders`` lists who has them."""

    _has_page = True

    def __init__(self, message: str, holders: tuple[Holder, ...] = ()) -> None:
        super().__init__(message)
        self.holders = holders


class PoolDeadlockError(PoolExhaustedError):
    """Every connection is held by a caller that waits for another one: no time would be enough.

    Raised at once, in the last of them; ``holders`` lists them all.
    """


class ConnectTimeoutError(SessionFactoryError, SqlAlchemyTimeoutError):
    """No connection could be opened within ``pool.timeout``: the server or the network is down."""

    _has_page = True


def unwrap(context: ExceptionContext) -> BaseException | None:
    """Raise an error of ours as it is, where SQLAlchemy would wrap it in a ``StatementError``."""
    error = context.original_exception
    return error if isinstance(error, SessionFactoryError) else None


publish(PoolExhaustedError, PoolDeadlockError, ConnectTimeoutError)
