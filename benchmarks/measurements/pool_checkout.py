"""What a connection costs: out of the pool and back, and all that guards it, in a scope's time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from attrs import frozen
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from benchmarks.setups.databases import disposing, factory_on, plain_sessions
from benchmarks.setups.scopes import connect, scope
from benchmarks.setups.servers import socket_only
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest, timed
from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.pool.fair import FairPool

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from benchmarks.setups.scopes import Operation
    from benchmarks.tool.figures import Group

_BARE = "QueuePool"
_PRE_PING = "QueuePool, pool_pre_ping=True"
_FAIR = "FairPool alone"
_OURS = "SqlAlchemySessionFactory"
_ALL = "SqlAlchemySessionFactory, everything on"
_PSYCOPG = "psycopg_pool"
_UNIT = Unit("µs each", 1e6)
_NOTES = (
    "One connection of psycopg to a PostgreSQL server on a Unix socket, idle between two uses.",
    f"{_BARE}: SQLAlchemy's default, with a rollback on return, as all of these have it.",
    f"{_ALL}: with hold_warning too; all but reset='state'.",
    "A scope takes a connection (session.connection()) and sends nothing: only pre-ping does.",
    "A round takes the fastest of several samples.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of each group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        number: checkouts, or scopes, in a sample.
    """

    rounds: int
    passes: int = 5
    number: int


FULL = Plan(rounds=61, number=40)
QUICK = Plan(rounds=3, passes=2, number=10)


def measure(plan: Plan) -> Table:
    """Measure checkout and checkin, then ``begin()`` scopes that take a connection."""
    with socket_only() as url, ExitStack() as stack:
        bare = stack.enter_context(disposing(create_engine(url)))
        asking = stack.enter_context(disposing(create_engine(url, pool_pre_ping=True)))
        fair = stack.enter_context(disposing(create_engine(url, poolclass=FairPool)))
        ours = stack.enter_context(factory_on(url))
        guarded = stack.enter_context(_everything_on(url))
        theirs = stack.enter_context(_psycopg_pool(url))
        pools = {
            _BARE: _by_engine(bare),
            _PRE_PING: _by_engine(asking),
            _FAIR: _by_engine(fair),
            _OURS: _by_engine(ours.engine),
            _ALL: _by_engine(guarded.engine),
            _PSYCOPG: lambda: theirs.putconn(theirs.getconn()),
        }
        scopes = {
            _BARE: scope(plain_sessions(bare).begin, connect),
            _PRE_PING: scope(plain_sessions(asking).begin, connect),
            _OURS: scope(ours.begin, connect),
            _ALL: scope(guarded.begin, connect),
        }
        groups = (_checkouts(plan, pools), _scopes(plan, scopes))
    return Table(
        name="pool_checkout", title="a connection, taken and returned", notes=_NOTES, groups=groups
    )


def _checkouts(plan: Plan, pools: dict[str, Operation]) -> Group:
    beside = f"{_ALL}, against {_PRE_PING}"
    question = Question(
        title="checkout + checkin",
        unit=_UNIT,
        targets={_ALL: Target("<=", 1.4), beside: Target("<=", 0.35)},
        also=[(_ALL, _PRE_PING)],
    )
    return compare(question, _samples(plan, pools))


def _scopes(plan: Plan, scopes: dict[str, Operation]) -> Group:
    beside = f"{_ALL}, against {_PRE_PING}"
    question = Question(
        title="begin() scope that takes a connection",
        unit=_UNIT,
        targets={beside: Target("<=", 1)},
        growth={_OURS: Target("<=", 15), _ALL: Target("<=", 15)},
        also=[(_ALL, _PRE_PING)],
    )
    return compare(question, _samples(plan, scopes))


def _samples(plan: Plan, operations: dict[str, Operation]) -> dict[str, list[float]]:
    candidates = {name: timed(operation, plan.number) for name, operation in operations.items()}
    return fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes)


def _by_engine(engine: Engine) -> Operation:
    def run() -> None:
        engine.raw_connection().close()

    return run


def _everything_on(url: URL) -> SqlAlchemySessionFactory:
    pool = PoolSettings(hold_warning=60)
    return SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool))


def _psycopg_pool(url: URL) -> ConnectionPool[Any]:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return ConnectionPool(plain, min_size=1, max_size=5, open=True)
