"""What an error of the database means to an HTTP client; the same in every framework."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from sessionfactory.drivers.error_codes import kind_of
from sessionfactory.errors import CommitUncertainError, ReadOnlyError, commit_outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from sessionfactory.status import Health

    Handler = TypeVar("Handler")

_LOG: Final = logging.getLogger(__name__)
NO_STORE: Final[Mapping[str, str]] = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A response whose body is stable, so that clients may rely on it."""

    status: int
    code: str
    """A word for programs."""
    detail: str
    """A sentence for people, without anything of the error's own message."""
    retry_after: int | None = None
    """Seconds until another attempt makes sense."""

    @property
    def body(self) -> dict[str, str]:
        """The JSON object that is sent."""
        return {"code": self.code, "detail": self.detail}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        retry = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**NO_STORE, **retry}

    def log(self, error: Exception) -> None:
        """Log the error that the client is not shown."""
        if self.status >= 500 and self.retry_after is None:  # noqa: PLR2004 - server errors
            _LOG.error("%s: %s", self.code, error, exc_info=error)
        else:
            _LOG.warning("%s: %s", self.code, error)


@dataclass(frozen=True, slots=True)
class Replies:
    """The replies of one application, for errors that the framework hands over."""

    read_only: int | None
    """The status for a write in a read-only transaction; ``None`` leaves it to the framework."""
    retry_after: int
    """Seconds that a client is asked to wait if the database cannot serve it now."""

    @property
    def kinds(self) -> tuple[type[Exception], ...]:
        """The classes to register with the framework."""
        read_only = () if self.read_only is None else (ReadOnlyError,)
        # OSError: asyncpg passes a refused connection through as it is.
        return (SqlAlchemyTimeoutError, CommitUncertainError, *read_only, DBAPIError, OSError)

    def reply_to(self, error: Exception) -> Reply | None:
        """Return the reply to an error; ``None`` if the framework should handle it."""
        if commit_outcome(error) == "uncertain":
            return _UNCERTAIN
        if isinstance(error, ReadOnlyError):
            return None if self.read_only is None else _read_only(self.read_only)
        # PoolExhaustedError, PoolDeadlockError and ConnectTimeoutError are kinds of it; so is what
        # a plain sessionmaker raises.
        if isinstance(error, SqlAlchemyTimeoutError):
            return _unavailable("database_busy", "The service is busy", self.retry_after)
        if _is_unreachable(error):
            detail = "The service cannot reach its database"
            return _unavailable("database_unreachable", detail, self.retry_after)
        return None


_UNCERTAIN: Final = Reply(
    500,
    "commit_uncertain",
    "The request may have been carried out or not; look before you repeat it.",
)


def _read_only(status: int) -> Reply:
    return Reply(status, "read_only", "This request may only read, and tried to write.")


def _unavailable(code: str, detail: str, retry_after: int) -> Reply:
    return Reply(503, code, f"{detail}; try again later.", retry_after)


def _is_unreachable(error: Exception) -> bool:
    """Return whether no connection could be made: nothing was done for the request.

    A server that goes down while a connection is made counts; one that goes down during a statement
    does not, because earlier transactions of the same request may have been committed.
    """
    if commit_outcome(error) is not None:
        return False
    kind = kind_of(error)
    connecting = isinstance(error, DBAPIError) and error.statement is None
    return kind == "away" or (kind == "lost" and connecting)


def next_handler(
    handlers: Mapping[type[Exception], Handler], error: Exception, ours: Handler
) -> Handler | None:
    """Return the application's own handler of an error that has no reply here.

    A handler of ``DBAPIError`` hides those of its base classes, which an application may have.
    """
    bases = (each for each in type(error).__mro__ if issubclass(each, Exception))
    return next((handlers[each] for each in bases if handlers.get(each, ours) is not ours), None)


def health_body(health: Mapping[str, Health], *, details: bool) -> dict[str, object]:
    """Return what a readiness probe sends: one word, and the databases only if asked for."""
    body: dict[str, object] = {"status": "ok" if is_ready(health) else "unavailable"}
    if details:
        body["databases"] = {
            name: {"state": each.state, "latency": each.latency, "detail": each.detail}
            for name, each in health.items()
        }
    return body


def is_ready(health: Mapping[str, Health]) -> bool:
    """Return whether every database can be used."""
    return all(each.ok for each in health.values())
