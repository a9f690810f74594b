"""pool.hold_warning: who keeps a connection for long is told of in the log, once."""

from __future__ import annotations

import asyncio
import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Generator

TIMER = "sessionfactory-holds"
ONE = text("SELECT 1")
Told = SimpleQueue[str]


@pytest.fixture
def told() -> Generator[Told]:
    """What is written to the package's log, as it comes."""
    messages: Told = SimpleQueue()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.put(record.getMessage())

    handler = Handler()
    logging.getLogger("sessionfactory").addHandler(handler)
    yield messages
    logging.getLogger("sessionfactory").removeHandler(handler)


def settings(url: str, after: float = 0.05) -> DatabaseSettings:
    return DatabaseSettings(url, pool=PoolSettings(hold_warning=after))


def test_each_hold_is_told_once_while_it_lasts(url: str, told: Told) -> None:
    """The warning names place and thread, comes while the connection is out, and only once."""
    with SqlAlchemySessionFactory(settings(url), name="orders") as factory:
        for _ in range(2):
            with factory() as session:
                session.execute(ONE)
                message = told.get(timeout=10)
                assert message.startswith(
                    "A connection of the database 'orders' is held for long: "
                )
                assert "in test_each_hold_is_told_once_while_it_lasts, thread MainThread" in message
                with factory() as other:  # a second hold has a warning of its own
                    other.execute(ONE)
                    told.get(timeout=10)
        assert told.empty()


def test_a_later_hold_is_told_later(url: str, told: Told) -> None:
    """While one hold is told of, those that are not due yet are watched on."""
    with SqlAlchemySessionFactory(settings(url, 0.2)) as factory, factory() as session:
        session.execute(ONE)
        with pytest.raises(Empty):
            told.get(timeout=0.1)
        with factory() as other:
            other.execute(ONE)
            first, second = (told.get(timeout=10) for _ in range(2))
    assert first != second
    assert told.empty()


def test_short_holds_are_not_told(url: str, told: Told) -> None:
    """A connection that comes back in time is not mentioned, and nothing runs afterwards."""
    with SqlAlchemySessionFactory(settings(url, 1000)) as factory:
        for _ in range(10):
            with factory() as session:
                session.execute(ONE)
        (timer,) = [thread for thread in threading.enumerate() if thread.name == TIMER]
    timer.join(10)
    assert not timer.is_alive()
    assert told.empty()


def test_tasks_are_named(url: str, told: Told) -> None:
    """The async half tells of its tasks."""

    async def hold() -> str:
        async with AsyncSqlAlchemySessionFactory(settings(url)) as factory, factory() as session:
            await session.execute(ONE)
            return await asyncio.to_thread(told.get, timeout=10)

    async def main() -> str:
        return await asyncio.create_task(hold(), name="import")

    message = asyncio.run(main())
    assert ".<locals>.hold, task import" in message
