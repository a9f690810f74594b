"""Many who use a server through a pooler at once, and count what they were told."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import TextClause

    from sessionfactory import AsyncSessionFactory, SessionFactory

DRIVERS: Final = ("psycopg", "psycopg2", "asyncpg", "psycopg_async")
_WORKERS: Final = 8


def _statement(worker: int) -> TextClause:
    # Workers have statements of their own, so that a prepared one of another gives another value.
    return text(f"SELECT CAST(:value AS int) + {worker % 4}")


class Answers(Counter[str]):
    """How many were right, how many wrong, and each error."""

    @contextmanager
    def judging(self, right: int) -> Generator[list[object]]:
        """Judge the answer that the block puts into the list, or its error."""
        answer: list[object] = []
        try:
            yield answer
        except DBAPIError as error:
            self[repr(error.orig)] += 1
        else:
            self["right" if answer == [right] else "wrong"] += 1


def values(url: str, driver: str, queries: int, *, pipeline: bool = False) -> Answers:
    """Ask so many queries, each in a transaction, eight at once; count the answers.

    Every other one is asked of a reader.
    """
    pool = PoolSettings(size=_WORKERS, max_overflow=0)
    settings = DatabaseSettings(url, pipeline=pipeline, pool=pool)
    if driver in {"psycopg", "psycopg2"}:
        return _in_threads(settings, range(queries // _WORKERS))
    return asyncio.run(_in_tasks(settings, range(queries // _WORKERS)))


def _in_threads(settings: DatabaseSettings, asked: range) -> Answers:
    answers = Answers()
    with SqlAlchemySessionFactory(settings) as factory, ThreadPoolExecutor(_WORKERS) as threads:

        def work(worker: int) -> None:
            sessions: SessionFactory
            for value in asked:
                sessions = factory.reader if value % 2 else factory
                with answers.judging(value + worker % 4) as told, sessions.begin() as session:
                    told.append(session.scalar(_statement(worker), {"value": value}))

        list(threads.map(work, range(_WORKERS)))
    return answers


async def _in_tasks(settings: DatabaseSettings, asked: range) -> Answers:
    answers = Answers()
    async with AsyncSqlAlchemySessionFactory(settings) as factory:

        async def work(worker: int) -> None:
            sessions: AsyncSessionFactory
            for value in asked:
                sessions = factory.reader if value % 2 else factory
                with answers.judging(value + worker % 4) as told:
                    async with sessions.begin() as session:
                        told.append(await session.scalar(_statement(worker), {"value": value}))

        await asyncio.gather(*(work(worker) for worker in range(_WORKERS)))
    return answers
