"""The end of a transaction under cancellation: it takes place, or is given up after a while."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, commit_outcome
from sessionfactory.pool import shielded
from sessionfactory.pool.shielded import Ending, finish
from tests.support.held_commits import cancel_oneself, cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.asyncio


async def until_cancelled(work: Callable[[], Awaitable[object]]) -> asyncio.CancelledError:
    """Return the error of a task that is cancelled as soon as it waits for the end."""

    async def end() -> None:
        cancel_oneself()
        await finish(work, commits=True)

    return await cancelled(asyncio.create_task(end()))


async def test_nothing_to_commit() -> None:
    """What ends by itself, with no COMMIT, counts as done."""
    done: list[None] = []

    async def work() -> None:
        done.append(None)

    assert commit_outcome(await until_cancelled(work)) == "committed"
    assert done == [None]


async def test_error_of_an_end_that_commits_nothing() -> None:
    """What a rollback raises is the cause of the cancellation, and is not lost."""
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        raise LookupError

    task = asyncio.create_task(finish(work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    error = await cancelled(task)
    assert isinstance(error.__cause__, LookupError)
    assert commit_outcome(error) is None


async def test_end_that_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller goes on after the deadline; what then becomes of the end is not logged."""
    monkeypatch.setattr(shielded, "GRACE", 0.01)
    monkeypatch.setattr(shielded, "HUNG_UP", 0.01)
    go_on = asyncio.Event()

    async def work() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()
        raise LookupError

    task = asyncio.create_task(finish(work))
    await asyncio.sleep(0)
    task.cancel()
    error = await cancelled(task)
    assert error.__cause__ is None
    go_on.set()
    left = [task for task in asyncio.all_tasks() if isinstance(task, Ending)]
    await asyncio.wait(left)
    del left
    gc.collect()
    assert caplog.records == []


async def test_without_anyio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where anyio is not loaded, no shield against it is needed."""
    monkeypatch.delitem(sys.modules, "anyio", raising=False)
    assert commit_outcome(await until_cancelled(partial(asyncio.sleep, 0))) == "committed"


async def test_refuses_before_it_has_begun() -> None:
    """An end that is cancelled by others before its first step takes place all the same."""
    done: list[None] = []

    async def work() -> None:
        done.append(None)

    ending = Ending(work, None, firm=False)
    assert not ending.cancel()
    await ending
    assert done == [None]
    assert not ending.cancelling()


async def test_end_that_is_cancelled_by_others() -> None:
    """Where the end itself is cancelled, the caller gets the cancellation."""
    task = asyncio.create_task(finish(asyncio.Event().wait, Session()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (ending,) = (task for task in asyncio.all_tasks() if isinstance(task, Ending))
    assert ending.cancel()
    await cancelled(task)


async def test_cancelled_while_a_file_cannot_be_opened(tmp_path: Path) -> None:
    """Of an opening that fails while its task is cancelled nothing is left, at whatever tick."""
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{tmp_path}")) as sessions:
        for ticks in range(20):
            task = asyncio.create_task(sessions.engine.connect().start())
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, OperationalError)):
                await task
            assert sessions.status().size == 0
