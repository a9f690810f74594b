"""What threads do to a SQLite file, for any ``SessionFactory``."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import frozen
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.tool.harness import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory import SessionFactory

_ITEMS = 1000
# As text, so that the time goes into transactions and not into building statements.
_READ = text("SELECT value FROM counter WHERE id = 1")
_WRITE = text("UPDATE counter SET value = :value WHERE id = 1")


class Base(DeclarativeBase):
    """The schema."""


class Counter(Base):
    """What is read, modified and written: one row, from which nobody gets out of the way."""

    __tablename__ = "counter"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Item(Base):
    """What is read."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def fill(sessions: SessionFactory) -> None:
    """Write the rows that the workloads use."""
    with sessions.begin() as session:
        session.add(Counter(id=1, value=0))
        session.add_all(Item(id=number, name=f"item {number}") for number in range(_ITEMS))


def read_one(session: Session) -> object:
    """Read one row by its key."""
    return session.get_one(Item, 500)


def read_hundred(session: Session) -> object:
    """Read 100 rows."""
    return session.scalars(select(Item).where(Item.id < 100)).all()


@frozen(kw_only=True)
class Storm:
    """What became of read-modify-writes on one row.

    Args:
        committed: those that the database took.
        failed: those that raised.
        lost: those that were committed and are not in the row.
        seconds: what they all took together.
    """

    committed: int
    failed: int
    lost: int
    seconds: float

    @property
    def rate(self) -> float:
        """Committed a second."""
        return self.committed / self.seconds


def increment_by_statements(session: Session) -> None:
    """Read the counter and write it, with two statements."""
    value = session.execute(_READ).scalar_one()
    session.execute(_WRITE, {"value": value + 1})


def increment_by_orm(session: Session) -> None:
    """Read the counter as an object and change that."""
    session.get_one(Counter, 1).value += 1


def storm(
    sessions: SessionFactory, increment: Callable[[Session], object], threads: int, updates: int
) -> Storm:
    """Increment one row ``updates`` times in all, from several threads."""
    with sessions.begin() as session:
        session.execute(update(Counter).values(value=0))

    def work() -> int:
        write = partial(_in_transaction, sessions, increment)
        return sum(_survives(write) for _ in range(updates // threads))

    seconds, committed = together([work] * threads)
    with sessions() as session:
        kept = session.get_one(Counter, 1).value
    done = sum(committed)
    asked = updates // threads * threads
    return Storm(committed=done, failed=asked - done, lost=done - kept, seconds=seconds)


def _in_transaction(sessions: SessionFactory, work: Callable[[Session], object]) -> None:
    with sessions.begin() as session:
        work(session)


def _survives(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except DBAPIError:
        return False
    return True


def reads(
    sessions: SessionFactory, read: Callable[[Session], object], threads: int, number: int
) -> float:
    """Read from several threads, ``number`` times each, and return the reads per second."""

    def work() -> None:
        for _ in range(number):
            with sessions() as session:
                read(session)

    seconds, _ = together([work] * threads)
    return threads * number / seconds


@frozen(kw_only=True)
class Mixed:
    """Reads and writes a second, side by side, and what raised."""

    reads: float
    writes: float
    failed: int


def reads_beside_a_writer(sessions: SessionFactory, threads: int, window: float) -> Mixed:
    """Let some threads read, and one more write, for ``window`` seconds."""
    deadline = perf_counter() + window

    def read() -> None:
        with sessions() as session:
            read_hundred(session)

    def worker(operation: Callable[[], object]) -> tuple[int, int]:
        done = failed = 0
        while perf_counter() < deadline:
            if _survives(operation):
                done += 1
            else:
                failed += 1
        return done, failed

    write = partial(_in_transaction, sessions, increment_by_orm)
    workers = [*[partial(worker, read)] * threads, partial(worker, write)]
    seconds, counts = together(workers)
    return Mixed(
        reads=sum(done for done, _ in counts[:-1]) / seconds,
        writes=counts[-1][0] / seconds,
        failed=sum(failed for _, failed in counts),
    )
