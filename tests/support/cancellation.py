"""Scopes that are cancelled by every mechanism, and the books of what they were told."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from attrs import Factory, define, frozen
from sqlalchemy import insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory import commit_outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from sessionfactory import AsyncSqlAlchemySessionFactory

    Mechanism = Callable[["Storm"], Awaitable[None]]

ONE: Final = text("SELECT 1")


class Base(DeclarativeBase):
    """What the storm's tables are declared on."""


class Entry(Base):
    """What a scope writes, with its own number."""

    __tablename__ = "entry"
    number: Mapped[int] = mapped_column(primary_key=True)


class RefusedError(Exception):
    """What a scope raises that is to roll back."""


@define
class Books:
    """What every scope was told, by its number."""

    told: dict[int, str] = Factory(dict[int, str])
    hits: int = 0
    """Scopes that a cancellation ended."""

    def open(self) -> int:
        """Return the number of a new scope."""
        number = len(self.told)
        self.told[number] = "running"
        return number

    def wrong(self, rows: set[int]) -> dict[int, str]:
        """Return the recorded outcomes that the rows contradict."""
        there = {number: number in rows for number in self.told}
        return {
            number: said
            for number, said in self.told.items()
            if said not in {"committed", "rolled back", "nothing"}
            or there[number] is not (said == "committed")
        }


async def begun(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Write in ``factory.begin()``, by a statement."""
    async with factory.begin() as session:
        await session.execute(insert(Entry).values(number=number))
    books.told[number] = "committed"


async def flushed(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Write in ``factory.begin()``, by the flush before the COMMIT."""
    async with factory.begin() as session:
        session.add(Entry(number=number))
    books.told[number] = "committed"


async def committed(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Write, and commit explicitly."""
    async with factory() as session:
        await session.execute(insert(Entry).values(number=number))
        await session.commit()
        books.told[number] = "committed"
        await session.execute(ONE)


async def in_session(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Write in ``session.begin()``."""
    async with factory() as session:
        async with session.begin():
            session.add(Entry(number=number))
            async with session.begin_nested():
                await session.flush()
        books.told[number] = "committed"


async def refused(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Write, and raise."""
    with suppress(RefusedError):
        async with factory.begin() as session:
            await session.execute(insert(Entry).values(number=number))
            raise RefusedError
    books.told[number] = "nothing"


async def rolled_back(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Write, roll back, write again, and leave it at that."""
    async with factory() as session:
        await session.execute(insert(Entry).values(number=number))
        await session.rollback()
        await session.execute(insert(Entry).values(number=number))
    books.told[number] = "nothing"


WAYS: Final = (begun, flushed, committed, in_session, refused, rolled_back)


async def scope(factory: AsyncSqlAlchemySessionFactory, books: Books, number: int) -> None:
    """Run one scope, of a kind that its number decides, and note what its caller is told."""
    try:
        await WAYS[number % len(WAYS)](factory, books, number)
    except BaseException as error:
        if books.told[number] == "running":
            books.told[number] = commit_outcome(error) or "nothing"
        books.hits += isinstance(error, asyncio.CancelledError)
        raise


@frozen
class Storm:
    """Scopes on one factory, which are cancelled at random.

    Args:
        factory: the factory.
        dice: says when.
        books: what the scopes were told.
        length: seconds that a scope takes beside others when it is not disturbed.
    """

    factory: AsyncSqlAlchemySessionFactory
    dice: Random
    books: Books
    length: float = 0.01

    async def scope(self) -> None:
        """Run one scope."""
        await scope(self.factory, self.books, self.books.open())

    async def moment(self) -> None:
        """Wait for a random while, within which a scope may have come to any point."""
        if self.dice.random() < 0.5:
            await asyncio.sleep(self.dice.random() * 4 * self.length)
        else:
            await tick(self.dice.randrange(60))


async def by_task(storm: Storm) -> None:
    """Cancel a task, once or twice."""
    task = asyncio.create_task(storm.scope())
    await storm.moment()
    task.cancel()
    if storm.dice.random() < 0.5:
        await tick(storm.dice.randrange(8))
        task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_timeout(storm: Storm) -> None:
    """Let ``asyncio.timeout`` cancel."""
    with suppress(TimeoutError):
        async with asyncio.timeout(storm.dice.random() * 4 * storm.length):
            await storm.scope()


async def by_anyio(storm: Storm) -> None:
    """Let a scope of anyio cancel: by its deadline, or from another task."""
    seconds = storm.dice.random() * 4 * storm.length
    how = storm.dice.randrange(3)
    if how == 0:
        with anyio.move_on_after(seconds):
            await storm.scope()
    elif how == 1:
        with suppress(TimeoutError), anyio.fail_after(seconds):
            await storm.scope()
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(storm.scope)
            await storm.moment()
            group.cancel_scope.cancel()


async def by_group(storm: Storm) -> None:
    """Let a TaskGroup cancel, because another of its tasks fails, or its body."""

    async def fail() -> None:
        await storm.moment()
        raise RefusedError

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(storm.scope())
            await storm.scope()


MECHANISMS: Final[tuple[Mechanism, ...]] = (by_task, by_timeout, by_anyio, by_group)


async def at_tick(storm: Storm, ticks: int) -> None:
    """Cancel scopes of every kind, which run side by side, after exactly so many loop ticks."""
    tasks = [asyncio.create_task(storm.scope()) for _ in WAYS]
    await tick(ticks)
    for task in tasks:
        task.cancel()
    if storm.dice.random() < 0.5:
        await tick(storm.dice.randrange(8))
        for task in tasks:
            task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def tick(times: int) -> None:
    """Let the loop go round so many times."""
    for _ in range(times):
        await asyncio.sleep(0)
