"""What it costs to have transactions tried again, and what that is worth where they collide."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

from benchmarks.setups.databases import factory_on
from benchmarks.setups.scopes import Operation, scope, select, select_async
from benchmarks.setups.servers import socket_only
from benchmarks.tool.figures import Count, Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest, timed, together
from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    is_transient,
    run_in_transaction,
    run_in_transaction_async,
    run_sync_in_transaction,
    with_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from benchmarks.tool.figures import Group
    from sessionfactory import SessionFactory

_BEGIN: Final = "begin()"
_RUN: Final = "run_in_transaction"
_STATUS: Final = 'run_in_transaction, verify_commit="status"'
_MARKER: Final = 'run_in_transaction, verify_commit="marker"'
_AWAITED: Final = "run_in_transaction_async"
_ONE_GREENLET: Final = "run_sync_in_transaction"
_AT_ONCE: Final = "tried again at once, 50 attempts"
_STATEMENTS: Final = 4
_NOTES: Final = (
    "psycopg on a Unix socket; asyncpg on the loopback interface.",
    f"A scope of the async half has {_STATEMENTS} statements.",
    "The hot row: 8 threads read it and write it back, SERIALIZABLE, until all had their turns.",
    "gave up: transactions whose last attempt failed as well.",
)
_WRITE: Final = text("INSERT INTO written VALUES (1)")
_READ_ROW: Final = text("SELECT value FROM hot")
_WRITE_ROW: Final = text("UPDATE hot SET value = :value")


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: of transactions without a conflict.
        passes: samples of each candidate in a round, of which the fastest is taken.
        number: transactions in a sample.
        storms: rounds on the hot row.
        threads: how many compete for it.
        turns: transactions of each.
    """

    rounds: int
    passes: int = 5
    number: int = 20
    storms: int = 7
    threads: int = 8
    turns: int = 40


FULL = Plan(rounds=41)
QUICK = Plan(rounds=3, passes=2, number=3, storms=2, turns=3)


def measure(plan: Plan) -> Table:
    """Measure transactions that nobody disturbs, and such as disturb each other."""
    with socket_only() as url, factory_on(url) as factory, ExitStack() as stack:
        stack.callback(set_on_retry_hooks, get_on_retry_hooks())
        set_on_retry_hooks(())  # who tries again by himself logs nothing, either
        with factory.engine.begin() as connection:
            connection.execute(text("CREATE TABLE written (value int)"))
            connection.execute(text("CREATE TABLE hot (value int)"))
            connection.execute(text("INSERT INTO hot VALUES (0)"))
        stack.callback(_drop, factory)
        groups = (
            _undisturbed(plan, factory, "one SELECT", _read, ()),
            _undisturbed(plan, factory, "one INSERT", _write, (_STATUS, _MARKER)),
            _awaited(plan, url),
            *_hot_row(plan, with_options(factory, isolation_level="SERIALIZABLE")),
        )
    return Table(
        name="transaction_retries",
        title="transactions that are tried again",
        notes=_NOTES,
        groups=groups,
    )


def _drop(factory: SessionFactory) -> None:
    with factory.begin() as session:
        session.execute(text("DROP TABLE IF EXISTS written, hot, sessionfactory_commit"))


def _read(session: Session) -> None:
    select(session)


def _write(session: Session) -> None:
    session.execute(_WRITE)


def _undisturbed(
    plan: Plan,
    factory: SessionFactory,
    what: str,
    work: Callable[[Session], None],
    verified: tuple[str, ...],
) -> Group:
    operations: dict[str, Operation] = {
        _BEGIN: scope(factory.begin, work),
        _RUN: lambda: run_in_transaction(factory, work),
        _STATUS: lambda: run_in_transaction(factory, work, verify_commit="status"),
        _MARKER: lambda: run_in_transaction(factory, work, verify_commit="marker"),
    }
    candidates = {
        name: timed(operation, plan.number)
        for name, operation in operations.items()
        if name in {_BEGIN, _RUN, *verified}
    }
    question = Question(
        title=f"a transaction of {what}",
        unit=Unit("µs", 1e6),
        targets={_RUN: Target("<=", 1.05)},
    )
    return compare(question, fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes))


def _awaited(plan: Plan, url: URL) -> Group:
    """Compare a coroutine function with a plain one, in the async half."""
    settings = DatabaseSettings(url.set(drivername="postgresql+asyncpg"))

    def plain(session: Session) -> None:
        for _ in range(_STATEMENTS):
            select(session)

    async def awaited(session: AsyncSession) -> None:
        for _ in range(_STATEMENTS):
            await select_async(session)

    with asyncio.Runner() as runner:
        factory = AsyncSqlAlchemySessionFactory(settings)
        candidates = {
            _AWAITED: timed(
                lambda: runner.run(run_in_transaction_async(factory, awaited)), plan.number
            ),
            _ONE_GREENLET: timed(
                lambda: runner.run(run_sync_in_transaction(factory, plain)), plan.number
            ),
        }
        try:
            samples = fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes)
        finally:
            runner.run(factory.aclose())
    question = Question(
        title=f"a transaction of {_STATEMENTS} statements, asyncpg",
        unit=Unit("µs", 1e6),
        targets={_ONE_GREENLET: Target("<=", 0.9)},
    )
    return compare(question, samples)


def _hot_row(plan: Plan, sessions: SessionFactory) -> list[Group]:
    """Have threads add to one row, which only one of them can at a time."""
    candidates = {
        name: partial(_storm, plan, partial(turn, sessions))
        for name, turn in {_AT_ONCE: _at_once, _RUN: _backing_off}.items()
    }
    found = alternate(candidates, plan.storms)
    question = Question(
        title=f"{plan.threads * plan.turns} transactions on one hot row",
        unit=Unit("a second", better="more"),
        targets={_RUN: Target(">=", 1.5)},
    )
    counts = [
        Count(
            name=f"{name}: gave up",
            value=sum(storm.given_up for storm in storms),
            target=Target("<=", 0) if name == _RUN else None,
        )
        for name, storms in found.items()
    ]
    rates = {name: [storm.rate for storm in storms] for name, storms in found.items()}
    # On a busy machine, who burns more gets more: this says what the throughput cost.
    burnt = Question(title=f"{question.title}, processor", unit=Unit("µs each", 1e6))
    costs = {name: [storm.cost for storm in storms] for name, storms in found.items()}
    return [compare(question, rates, counts), compare(burnt, costs)]


@frozen
class _Storm:
    """Transactions a second, seconds of this process's processor for each, and who gave up."""

    rate: float
    cost: float
    given_up: int


def _storm(plan: Plan, turn: Callable[[], None]) -> _Storm:
    """Let all threads have their turns at once."""

    def worker() -> int:
        given_up = 0
        for _ in range(plan.turns):
            try:
                turn()
            except OperationalError:
                given_up += 1
        return given_up

    began = process_time()
    seconds, given_up = together([worker] * plan.threads)
    burnt = process_time() - began
    done = plan.threads * plan.turns - sum(given_up)
    return _Storm(done / seconds, burnt / done, sum(given_up))


def _add(session: Session) -> None:
    value: int = session.execute(_READ_ROW).scalar_one()
    session.execute(_WRITE_ROW, {"value": value + 1})


def _backing_off(sessions: SessionFactory) -> None:
    run_in_transaction(sessions, _add)


def _at_once(sessions: SessionFactory) -> None:
    for attempt in range(50):
        try:
            with sessions.begin() as session:
                _add(session)
        except OperationalError as error:
            if attempt == 49 or not is_transient(error):
                raise
        else:
            return
