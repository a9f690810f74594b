"""The values that say how a database and its pool are doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sessionfactory._lazy import publish

HealthState = Literal["ok", "saturated", "slow", "unreachable", "refused", "closed", "unconfigured"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who has a connection out of the pool."""

    where: str
    """The line of the user's code that took it: ``app/service.py:42 in register``.

    Where a session took it, the line that opened the session comes first:
    ``app/deps.py:10 in get_session, first used at app/service.py:42 in register``.
    """
    owner: str
    """The thread, or the asyncio task, that took it."""
    held: float
    """For how long, in seconds."""

    def __str__(self) -> str:
        return f"{self.where}, {self.owner}, for {self.held:.1f} s"


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What a pool holds at this moment; counted by us, so that it is true for every pool class."""

    limit: int | None
    """How many connections may be out at once; ``None`` where nothing limits them."""
    size: int
    """Connections that are open, in use or idle."""
    in_use: int
    """Connections that are out."""
    idle: int
    """Open connections that wait to be used."""
    overflow: int
    """Open connections beyond ``pool.size``; they close when they come back."""
    waiting: int
    """Callers that asked for a connection and have not got one yet."""
    holders: tuple[Holder, ...] = ()
    """Who has the connections that are out, longest first."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a ping found out."""

    state: HealthState
    """``ok``, or what is the matter.

    ``saturated``: every connection is in use. ``slow``: connected, but no answer in time.
    ``unreachable``: no connection. ``refused``: the server answered, and turned us away (a wrong
    password, an unknown database, too many clients). ``closed`` and ``unconfigured`` speak of the
    factory.
    """
    latency: float | None = None
    """Seconds until the answer came; ``None`` where none came."""
    detail: str = ""
    """A sentence for people."""

    @property
    def ok(self) -> bool:
        """Whether the database can be used."""
        return self.state == "ok"


publish(Holder, PoolStatus, Health)
