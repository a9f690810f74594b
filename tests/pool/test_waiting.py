"""An alarm rings, or its block ends: one of the two, and never both."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from sessionfactory.pool.waiting import Tasks, Threads, TookLongerError


def test_a_block_in_time() -> None:
    """Nothing rings after the end of a block."""
    rung: list[str] = []
    with Threads().alarm(20, lambda: rung.append("now")):
        pass
    assert rung == []


def test_a_block_that_takes_longer() -> None:
    """The call is made and done when the block's end says so."""
    rung = threading.Event()
    with (
        pytest.raises(TookLongerError, match=r"took longer than 0\.01 s"),
        Threads().alarm(0.01, rung.set),
    ):
        assert rung.wait(20)


def test_what_the_block_raised_came_of_the_alarm() -> None:
    """An error that the call provoked is not mistaken for another."""
    rung = threading.Event()
    with pytest.raises(TookLongerError) as caught, Threads().alarm(0.01, rung.set):
        assert rung.wait(20)
        raise ConnectionError("the line was shut down")
    assert isinstance(caught.value.__context__, ConnectionError)


def test_an_alarm_that_comes_as_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was about to be made is not made."""
    timers: list[threading.Timer] = []

    def keep(timer: threading.Timer) -> None:
        timers.append(timer)

    rung: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", keep)
        with Threads().alarm(20, lambda: rung.append("now")):
            pass
    (timer,) = timers
    timer.function(*timer.args)
    assert rung == []


def test_tasks() -> None:
    """In a task it is the same."""

    def work() -> None:
        rung = asyncio.Event()
        with pytest.raises(TookLongerError), Tasks().alarm(0.01, rung.set):
            await_only(asyncio.wait_for(rung.wait(), 20))
        with Tasks().alarm(0.01, rung.clear):
            pass
        await_only(asyncio.sleep(0.02))
        assert rung.is_set()

    async def main() -> None:
        await greenlet_spawn(work)

    asyncio.run(main())
