"""What an error of the database means to an HTTP client; the same in every framework."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from sessionfactory.errors import CommitUncertainError, ReadOnlyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessionfactory.status import Health

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


def replies(*, read_only: int | None, retry_after: int) -> dict[type[Exception], Reply]:
    """Return the reply to each kind of error.

    Args:
        read_only: the status for a write in a read-only transaction; ``None`` leaves that error to
            the framework.
        retry_after: seconds that a client is asked to wait if no connection came in time.
    """
    table: dict[type[Exception], Reply] = {
        # PoolExhaustedError, PoolDeadlockError and ConnectTimeoutError are kinds of it; so is what
        # a plain sessionmaker raises.
        SqlAlchemyTimeoutError: Reply(
            503,
            "database_busy",
            "The service is busy; try again later.",
            retry_after,
        ),
        CommitUncertainError: Reply(
            500,
            "commit_uncertain",
            "The request may have been carried out or not; look before you repeat it.",
        ),
    }
    if read_only is not None:
        table[ReadOnlyError] = Reply(
            read_only, "read_only", "This request may only read, and tried to write."
        )
    return table


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
