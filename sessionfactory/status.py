"""The state of a database and of its pool, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sessionfactory._lazy import publish

HealthState = Literal["ok", "saturated", "slow", "unreachable", "refused", "closed", "unconfigured"]


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a connection that is checked out."""

    where: str
    """The line of the user's code that checked it out: ``app/service.py:42 in register``.

    If a session did, the line that opened the session comes first:
    ``app/deps.py:10 in get_session, first used at app/service.py:42 in register``.
    """
    owner: str
    """The thread, or the asyncio task, that checked it out."""
    held: float
    """Seconds since the checkout."""

    def __str__(self) -> str:
        return f"{self.where}, {self.owner}, for {self.held:.1f} s"


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The connections of a pool, counted by this package and not by the pool."""

    limit: int | None
    """How many connections may be checked out at once; ``None`` if there is no limit."""
    size: int
    """Connections that are open, in use or idle."""
    in_use: int
    """Connections that are checked out."""
    idle: int
    """Open connections that are not in use."""
    overflow: int
    """Open connections beyond ``pool.size``; they are closed at checkin."""
    waiting: int
    """Callers that wait for a connection."""
    holders: tuple[Holder, ...] = ()
    """The holders of connections, longest first."""


@dataclass(frozen=True, slots=True)
class Health:
    """The result of a ping."""

    state: HealthState
    """``ok``, or what is wrong.

    ``saturated``: every connection is in use. ``slow``: connected, but no answer in time.
    ``unreachable``: no connection. ``refused``: the server answered with a refusal (a wrong
    password, an unknown database, too many clients). ``closed`` and ``unconfigured`` are
    states of the factory.
    """
    latency: float | None = None
    """Seconds until the answer; ``None`` without one."""
    detail: str = ""
    """A sentence for a person."""

    @property
    def ok(self) -> bool:
        """Whether the database can be used."""
        return self.state == "ok"


publish(Holder, PoolStatus, Health)
