"""How often a scope waits for the network: counted by the proxy, not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.setups.plain_and_ours import AUTOCOMMIT, OURS, Driver
from benchmarks.setups.servers import socket_only
from benchmarks.tool.figures import Count, Group, Table, Target, Unit
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from sqlalchemy import URL

_DRIVERS: Final = (Driver("psycopg"), Driver("psycopg2"), Driver("asyncpg", is_async=True))
_TARGETS: Final = {
    ("psycopg", OURS): Target("<=", 3),
    ("psycopg", AUTOCOMMIT): Target("<=", 1),
    ("asyncpg", OURS): Target("<=", 3),
    ("asyncpg", AUTOCOMMIT): Target("<=", 1),
}
_WARM: Final = 10
"""Scopes before the count: they connect, and psycopg prepares a statement at its sixth use."""
_NOTES = (
    "A flight of messages from the client, up to where the server begins to answer, is one.",
    "A session of psycopg2 sets read-only and autocommit by statements, and back again.",
    "Counted by FaultProxy over several scopes, after some that connect and prepare.",
)


@frozen(kw_only=True)
class Plan:
    """How many scopes are counted."""

    scopes: int


FULL = Plan(scopes=50)
QUICK = Plan(scopes=5)


def measure(plan: Plan) -> Table:
    """Count for each driver."""
    with socket_only() as url:
        groups = tuple(_group(plan, driver, url) for driver in _DRIVERS)
    title = "round trips of begin() + one statement + commit"
    return Table(name="round_trips_counted", title=title, notes=_NOTES, groups=groups)


def _group(plan: Plan, driver: Driver, url: URL) -> Group:
    counts: list[Count] = []
    with FaultProxy(url) as proxy, driver.rivals(proxy.url) as rivals:
        for name, run in rivals.items():
            run(_WARM)
            with proxy.counting() as count:
                run(plan.scopes)
            target = _TARGETS.get((driver.name, name))
            each = -(-count.round_trips // plan.scopes)  # one too many in one of them counts
            counts.append(Count(name=name, value=each, target=target))
    unit = Unit("round trips of a scope")
    return Group(title=driver.name, unit=unit, rounds=plan.scopes, rows=(), counts=tuple(counts))
