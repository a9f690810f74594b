"""Several threads on one SQLite file: read-modify-writes, readers, and a writer beside readers."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.setups import sqlite_workloads as workloads
from benchmarks.setups.databases import WAL, our_factory, plain_engine, plain_sessions
from benchmarks.tool.figures import Count, Group, Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sessionfactory import SessionFactory

_DEFAULT = "sessionmaker, default engine"
_WAL = "sessionmaker, WAL"
_RECIPE = "sessionmaker, WAL, BEGIN recipe"
_OURS = "SqlAlchemySessionFactory"
_NOTES = (
    "Each candidate has a file of its own, in one temporary directory, and its pool's defaults.",
    "Lost updates count as transactions, which favours who loses them.",
    "WAL is with synchronous=NORMAL, as ours is.",
    f"{_WAL}: the driver sends no BEGIN before a SELECT, so two reads of one session may disagree.",
    f"{_RECIPE}: SQLAlchemy's documented events send BEGIN DEFERRED, as ours does for a session.",
)
_NO_MORE = Target("<=", 0)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        storms: rounds of read-modify-writes: ``updates`` in all, from ``threads`` threads.
        rounds: rounds of reading: ``reads`` by each of ``readers`` threads.
        window: seconds of a round with a writer beside the readers.
    """

    storms: int
    threads: int = 8
    updates: int = 600
    rounds: int
    readers: int = 4
    reads: int
    window: float


FULL = Plan(storms=7, rounds=21, reads=100, window=0.4)
QUICK = Plan(storms=2, updates=80, rounds=3, reads=20, window=0.1)


def measure(plan: Plan) -> Table:
    """Measure read-modify-writes, readers alone, and readers beside a writer."""
    with TemporaryDirectory() as directory, ExitStack() as stack:
        home = Path(directory)
        default = stack.enter_context(plain_engine(home / "default.db"))
        wal = stack.enter_context(plain_engine(home / "wal.db", pragmas=WAL))
        recipe = stack.enter_context(
            plain_engine(home / "recipe.db", pragmas=WAL, begin="BEGIN DEFERRED")
        )
        factory = stack.enter_context(our_factory(home / "ours.db"))
        updating: dict[str, SessionFactory] = {_DEFAULT: plain_sessions(default), _OURS: factory}
        reading: dict[str, SessionFactory] = {
            _WAL: plain_sessions(wal),
            _OURS: factory,
            _RECIPE: plain_sessions(recipe),
        }
        for engine in (default, wal, recipe, factory.engine):
            workloads.Base.metadata.create_all(engine)
        for sessions in (updating | reading).values():
            workloads.fill(sessions)
        groups = (
            *_updates(plan, updating),
            *_readers(plan, reading),
            *_mixed(plan, reading),
        )
    title = "threads on one SQLite file"
    return Table(name="sqlite_concurrency", title=title, notes=_NOTES, groups=groups)


def _updates(plan: Plan, candidates: Mapping[str, SessionFactory]) -> list[Group]:
    groups: list[Group] = []
    for way, increment, targets in (
        ("two statements", workloads.increment_by_statements, {_OURS: Target(">=", 4)}),
        # Through the ORM, most of the time is Python's own work, with one thread as with eight.
        ("the ORM", workloads.increment_by_orm, None),
    ):
        storms = alternate(
            {
                name: partial(workloads.storm, sessions, increment, plan.threads, plan.updates)
                for name, sessions in candidates.items()
            },
            plan.storms,
        )
        question = Question(
            title=f"{plan.updates} read-modify-writes in begin(), {plan.threads} threads, {way}",
            unit=Unit("transactions a second"),
            targets=targets or {},
        )
        rates = {name: [storm.rate for storm in taken] for name, taken in storms.items()}
        groups.append(compare(question, rates, _losses(storms)))
    return groups


def _losses(storms: Mapping[str, Sequence[workloads.Storm]]) -> list[Count]:
    counts: list[Count] = []
    for name, taken in storms.items():
        target = _NO_MORE if name == _OURS else None
        committed = sum(storm.committed for storm in taken)
        failed = sum(storm.failed for storm in taken)
        lost = sum(storm.lost for storm in taken)
        counts += [
            Count(name=f"{name}: lost updates", value=lost, out_of=committed, target=target),
            Count(name=f"{name}: errors", value=failed, out_of=committed + failed, target=target),
        ]
    return counts


def _readers(plan: Plan, candidates: Mapping[str, SessionFactory]) -> list[Group]:
    groups: list[Group] = []
    cases = (
        # A transaction is two calls of SQLite more: where a session reads one row, it shows, with
        # SQLAlchemy's own recipe as with us. What a target asks of is a session with work to do.
        ("one row", workloads.read_one, None),
        ("100 rows", workloads.read_hundred, {_OURS: Target(">=", 0.95)}),
    )
    for rows, read, targets in cases:
        rates = alternate(
            {
                name: partial(workloads.reads, sessions, read, plan.readers, plan.reads)
                for name, sessions in candidates.items()
            },
            plan.rounds,
        )
        question = Question(
            title=f"{plan.readers} concurrent readers, {rows} a session",
            unit=Unit("reads a second"),
            targets=targets or {},
            also=[(_OURS, _RECIPE)],
        )
        groups.append(compare(question, rates))
    return groups


def _mixed(plan: Plan, candidates: Mapping[str, SessionFactory]) -> list[Group]:
    mixed = alternate(
        {
            name: partial(workloads.reads_beside_a_writer, sessions, plan.readers, plan.window)
            for name, sessions in candidates.items()
        },
        plan.rounds,
    )
    beside = f"{plan.readers} readers of 100 rows beside a writer"
    reads = {name: [sample.reads for sample in taken] for name, taken in mixed.items()}
    writes = {name: [sample.writes for sample in taken] for name, taken in mixed.items()}
    errors = [
        Count(
            name=f"{name}: errors",
            value=sum(sample.failed for sample in taken),
            out_of=round(sum(s.reads + s.writes for s in taken) * plan.window),
            target=_NO_MORE if name == _OURS else None,
        )
        for name, taken in mixed.items()
    ]
    also = [(_OURS, _RECIPE)]
    reading = Question(title=f"{beside}: reads", unit=Unit("reads a second"), also=also)
    writing = Question(title=f"{beside}: writes", unit=Unit("writes a second"), also=also)
    return [compare(reading, reads), compare(writing, writes, errors)]
