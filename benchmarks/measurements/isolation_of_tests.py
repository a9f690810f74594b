"""What it costs to keep one test's rows from the next: this package's ways and the usual ones."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import frozen
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
    text,
)
from sqlalchemy.orm import registry

from benchmarks.tool import figures
from benchmarks.tool.figures import Question, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest
from sessionfactory.testing import PostgresServer, ServerUnavailableError
from sessionfactory.testing.cloning.cloning import CloningSessionFactory
from sessionfactory.testing.memory.memory import InMemorySessionFactory
from sessionfactory.testing.rollback.rollback import RollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from benchmarks.tool.figures import Group
    from sessionfactory import SessionFactory, SqlAlchemySessionFactory

    Sample = Callable[[], float]

_NONE = "no isolation"
_ROLLBACK = "RollbackSessionFactory"
_IMAGE = "InMemorySessionFactory.reset()"
_AHEAD = "CloningSessionFactory"
_NOTES = (
    "A test writes two rows in one transaction, and reads a table in another session.",
    "A sample is one such test and all that keeps its rows from the next one.",
    f"{_NONE}: the rows are deleted outside of the measured time.",
    f"{_AHEAD}: its thread has the time between two tests to clone and to drop.",
    f"{_AHEAD}, back to back: tests that do nothing else, and so wait for that thread.",
    "On SQLite a round takes the fastest of several samples: only the processor works there.",
    "The PostgreSQL server has its data in memory where there is room, and no fsync.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        servers: rounds on PostgreSQL.
        memory: rounds on SQLite.
        passes: samples of each candidate in a round on SQLite, of which the fastest is taken.
        tables: tables of the schema, each with a foreign key to the one before it.
        rows: seeded rows of each table.
        in_a_row: tests in a sample of those that run back to back.
    """

    servers: int
    memory: int
    passes: int = 5
    tables: int = 50
    rows: int = 20
    in_a_row: int = 6


FULL = Plan(servers=31, memory=41)
QUICK = Plan(servers=3, memory=3, tables=10, in_a_row=2)


class Schema:
    """Tables, the rows that they are seeded with, and a test that writes and reads."""

    def __init__(self, tables: int, rows: int) -> None:
        self.metadata = MetaData()
        self.rows = rows
        for number in range(tables):
            table = Table(
                f"t{number:02d}",
                self.metadata,
                Column("id", Integer, primary_key=True),
                Column("name", String(50), index=True),
                Column("note", String(200)),
            )
            if number:
                parent = ForeignKey(f"t{number - 1:02d}.id")
                table.append_column(Column("parent_id", parent))
        self._written = self.metadata.sorted_tables[1:3]
        mappings = registry(metadata=self.metadata)
        self._classes: list[type[object]] = [type(table.name, (), {}) for table in self._written]
        for mapped, table in zip(self._classes, self._written, strict=True):
            mappings.map_imperatively(mapped, table)

    def seed(self, session: Session) -> None:
        """Put rows into every table."""
        for table in self.metadata.sorted_tables:
            parents = {"parent_id" for column in table.columns if column.name == "parent_id"}
            session.execute(
                insert(table),
                [
                    {"name": f"n{row}", "note": "x" * 50} | dict.fromkeys(parents, row)
                    for row in range(1, self.rows + 1)
                ],
            )

    def test(self, sessions: SessionFactory) -> None:
        """Write in one transaction, read in another session, and see that nobody else wrote."""
        with sessions.begin() as session:
            session.add_all([mapped() for mapped in self._classes])
        with sessions() as session:
            found = len(session.scalars(select(self._classes[0])).all())
        assert found == self.rows + 1, "isolation is broken"

    def clean(self, sessions: SessionFactory) -> None:
        """Delete what a test wrote."""
        with sessions.begin() as session:
            for table in reversed(self._written):
                session.execute(delete(table).where(table.c.id > self.rows))

    def truncate(self, sessions: SessionFactory) -> None:
        """Empty all tables at once, and seed them again."""
        names = ", ".join(self.metadata.tables)
        with sessions.begin() as session:
            session.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
            self.seed(session)

    def recreate(self, sessions: SqlAlchemySessionFactory) -> None:
        """Drop all tables, make them again, and seed them."""
        self.metadata.drop_all(sessions.engine)
        self.metadata.create_all(sessions.engine)
        with sessions.begin() as session:
            self.seed(session)


def measure(plan: Plan) -> figures.Table:
    """Measure on PostgreSQL, where a server can be had, and on SQLite in memory."""
    schema = Schema(plan.tables, plan.rows)
    notes: tuple[str, ...] = _NOTES
    groups: list[Group] = []
    try:
        with PostgresServer() as server:
            groups.append(_on_postgresql(plan, schema, server.url))
    except ServerUnavailableError as missing:
        notes = (*notes, f"PostgreSQL is left out: {missing}")
    groups.append(_on_sqlite(plan, schema))
    return figures.Table(
        name="isolation_of_tests",
        title=f"isolated tests, {plan.tables} tables with {plan.tables * plan.rows} rows",
        notes=notes,
        groups=tuple(groups),
    )


def _on_postgresql(plan: Plan, schema: Schema, url: str) -> Group:
    with ExitStack() as stack:
        ahead, on_demand = (
            stack.enter_context(
                CloningSessionFactory(url, schema.metadata, seed=schema.seed, ahead=number)
            )
            for number in (2, 0)
        )
        plain, undone, truncated, recreated = (
            stack.enter_context(on_demand.clone()) for _ in range(4)
        )
        candidates: dict[str, Sample] = {
            _NONE: partial(_bare, schema, plain),
            _ROLLBACK: partial(_rolled_back, schema, undone),
            _AHEAD: partial(_cloned, schema, ahead),
            f"{_AHEAD}, back to back": partial(_cloned, schema, ahead, plan.in_a_row),
            f"{_AHEAD}(ahead=0)": partial(_cloned, schema, on_demand),
            "TRUNCATE and seed": partial(
                _undone_by, partial(schema.truncate, truncated), schema, truncated
            ),
            "drop_all, create_all and seed": partial(
                _undone_by, partial(schema.recreate, recreated), schema, recreated
            ),
        }
        question = Question(
            title="PostgreSQL",
            unit=Unit("ms per test", 1e3),
            targets={_ROLLBACK: Target("<=", 1.7)},
        )
        return compare(question, alternate(candidates, plan.servers))


def _on_sqlite(plan: Plan, schema: Schema) -> Group:
    with ExitStack() as stack:
        plain, reset, undone = (
            stack.enter_context(InMemorySessionFactory(schema.metadata, seed=schema.seed))
            for _ in range(3)
        )
        candidates: dict[str, Sample] = {
            _NONE: partial(_bare, schema, plain),
            _IMAGE: partial(_undone_by, reset.reset, schema, reset),
            _ROLLBACK: partial(_rolled_back, schema, undone),
            "create_all and seed": partial(_made_anew, schema),
        }
        question = Question(
            title="SQLite in memory",
            unit=Unit("ms per test", 1e3),
            targets={_IMAGE: Target("<=", 1.6)},
        )
        samples = alternate(candidates, plan.memory * plan.passes)
        return compare(question, fastest(samples, plan.passes))


def _bare(schema: Schema, sessions: SessionFactory) -> float:
    began = perf_counter()
    schema.test(sessions)
    seconds = perf_counter() - began
    schema.clean(sessions)
    return seconds


def _rolled_back(schema: Schema, sessions: SessionFactory) -> float:
    began = perf_counter()
    with RollbackSessionFactory(sessions) as fake:
        schema.test(fake)
    return perf_counter() - began


def _cloned(schema: Schema, cloning: CloningSessionFactory, tests: int = 1) -> float:
    began = perf_counter()
    for _ in range(tests):
        with cloning.clone() as sessions:
            schema.test(sessions)
    seconds = perf_counter() - began
    cloning._cloner._thread.submit(int).result()  # noqa: SLF001 - what it still does is no other's sample
    return seconds / tests


def _undone_by(undo: Callable[[], object], schema: Schema, sessions: SessionFactory) -> float:
    began = perf_counter()
    schema.test(sessions)
    undo()
    return perf_counter() - began


def _made_anew(schema: Schema) -> float:
    began = perf_counter()
    with InMemorySessionFactory(schema.metadata, seed=schema.seed) as sessions:
        schema.test(sessions)
    return perf_counter() - began
