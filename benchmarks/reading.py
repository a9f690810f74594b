"""Reads that the database has to plan: what it is worth that psycopg keeps its prepared statements.

psycopg forgets them at a ROLLBACK, by which a session that is closed without a commit ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import create_engine, text

from benchmarks.databases import disposing, factory_on, plain_sessions
from benchmarks.figures import Question, Table, Target, Unit, compare
from benchmarks.harness import alternate, fastest, timed
from benchmarks.rivals import OURS, PLAIN
from benchmarks.scopes import scope
from benchmarks.servers import socket_only

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sessionfactory import SessionFactory

READER: Final = "reader"
_TABLES: Final = 6
_MAKE: Final = (
    "CREATE TABLE {0} (id int PRIMARY KEY, a int, b int, c int)",
    "CREATE INDEX ON {0} (a)",
    "CREATE INDEX ON {0} (b)",
    "INSERT INTO {0} SELECT n, n % 7, n % 11, n % 13 FROM generate_series(1, 200) n",
    "ANALYZE {0}",
)
_JOIN: Final = text(
    "SELECT count(*) FROM t1"
    " JOIN t2 ON t2.id = t1.a JOIN t3 ON t3.id = t2.b JOIN t4 ON t4.id = t3.c"
    " JOIN t5 ON t5.id = t4.a JOIN t6 ON t6.id = t5.b"
    " WHERE t1.id = :id AND t2.c >= 0 AND t6.c >= 0"
)
_NOTES = (
    "One client on a Unix socket: open a session, join six tables, close it.",
    "A round takes the fastest of several samples.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of the group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        scopes: how many make a sample.
    """

    rounds: int
    passes: int = 3
    scopes: int


FULL = Plan(rounds=21, scopes=40)
QUICK = Plan(rounds=3, passes=1, scopes=10)


def measure(plan: Plan) -> Table:
    """Measure sessions that are closed without a commit."""
    with (
        socket_only() as url,
        disposing(create_engine(url)) as engine,
        factory_on(url) as ours,
    ):
        with engine.begin() as connection:
            for number in range(1, _TABLES + 1):
                for statement in _MAKE:
                    connection.execute(text(statement.format(f"t{number}")))
        rivals: dict[str, SessionFactory] = {
            PLAIN: plain_sessions(engine),
            OURS: ours,
            READER: ours.reader,
        }
        candidates = {
            name: timed(scope(sessions, _join), plan.scopes) for name, sessions in rivals.items()
        }
        taken = fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes)
    question = Question(
        title="a join of six tables, psycopg",
        unit=Unit("scopes a second", better="more"),
        targets={READER: Target(">=", 2)},
        also=[(READER, OURS)],
    )
    rates = {name: [1 / seconds for seconds in samples] for name, samples in taken.items()}
    groups = (compare(question, rates),)
    return Table(name="reading", title="reads that have to be planned", notes=_NOTES, groups=groups)


def _join(session: Session) -> object:
    return session.execute(_JOIN, {"id": 7}).scalar_one()
