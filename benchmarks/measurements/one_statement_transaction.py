"""Transactions of one statement: on a socket, where the processor counts, and behind a network."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.setups.plain_and_ours import AUTOCOMMIT, OURS, PLAIN, TENANT, Driver
from benchmarks.setups.servers import LATENCIES, SOCKET, distances, places
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from benchmarks.tool.figures import Group

_DRIVERS: Final = (Driver("psycopg"), Driver("asyncpg", is_async=True))
_TARGETS: Final = {
    ("psycopg", "0.5 ms"): {OURS: Target(">=", 1.2), AUTOCOMMIT: Target(">=", 2.7)},
    ("psycopg", "2 ms"): {AUTOCOMMIT: Target(">=", 3.4)},
    ("asyncpg", "0.5 ms"): {OURS: Target(">=", 1.7), AUTOCOMMIT: Target(">=", 3.3)},
    ("asyncpg", "2 ms"): {AUTOCOMMIT: Target(">=", 4.6)},
}
"""By driver and place, what our ratios to pre-ping are asked to be."""
_UNTIMED: Final = (TENANT,)
"""What only counts: its round trips tell all."""
_NOTES = (
    "One client, one scope after the other: begin(), SELECT 1, commit.",
    "A round takes the fastest of several samples.",
    "Behind a network, a round trip takes as long as said, by a proxy that all candidates share.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of each group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        window: seconds that a sample takes, about.
        latencies: seconds that a round trip takes, each in a group of its own.
    """

    rounds: int
    passes: int = 3
    window: float
    latencies: tuple[float, ...] = LATENCIES


FULL = Plan(rounds=11, passes=6, window=0.02)
QUICK = Plan(rounds=3, passes=1, window=0.01)


def measure(plan: Plan) -> Table:
    """Measure each driver in each place."""
    with places(plan.latencies) as urls:
        notes = (*_NOTES, distances(urls))
        groups = tuple(
            _group(plan, driver, place, url) for driver in _DRIVERS for place, url in urls.items()
        )
    return Table(
        name="one_statement_transaction",
        title="transactions of one statement",
        notes=notes,
        groups=groups,
    )


def _group(plan: Plan, driver: Driver, place: str, url: URL) -> Group:
    question = Question(
        title=f"{driver.name}, {place if place == SOCKET else f'{place} round trip'}",
        unit=Unit("scopes a second", better="more"),
        targets=_TARGETS.get((driver.name, place), {}),
        also=[(OURS, PLAIN)],
    )
    with driver.rivals(url) as rivals:
        candidates = {
            name: partial(timed, run, plan.window)
            for name, run in rivals.items()
            if name not in _UNTIMED
        }
        taken = fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes)
        rates = {name: [1 / seconds for seconds in samples] for name, samples in taken.items()}
        return compare(question, rates)


def timed(run: Callable[[int], None], window: float) -> float:
    """Run scopes for about so many seconds, and return the seconds that each took."""
    began = perf_counter()
    run(2)  # to be warm, and to know how many there is time for
    number = max(2, round(2 * window / (perf_counter() - began)))
    began = perf_counter()
    run(number)
    return (perf_counter() - began) / number
