"""Who waits is served in the order of arrival; nothing is lost where a wait ends by itself."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory.pool.wait_queue import TaskWaiter, ThreadWaiter, Waiter, WaitQueue
from tests.support.sqlite_pools import Caller

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=[ThreadWaiter, TaskWaiter])
def waiter(request: pytest.FixtureRequest) -> Waiter[str]:
    """Each kind of waiter, before it waits."""
    made: Waiter[str] = request.param()
    return made


def test_given_and_gone(waiter: Waiter[str]) -> None:
    """What was given before the waiter leaves is found by it, however often it asks."""
    assert waiter.offer("it")
    assert not waiter.waits
    assert not waiter.offer("another")
    waiter.send_away()
    assert waiter.give_up() == "it"
    assert waiter.give_up() == "it"


def test_gone_and_not_given(waiter: Waiter[str]) -> None:
    """Nothing can be given to a waiter who has left."""
    assert waiter.give_up() is None
    assert not waiter.waits
    assert not waiter.offer("it")
    waiter.send_away()
    assert waiter.give_up() is None


def test_thread_is_woken() -> None:
    """A blocked thread goes on when it is given something, or sent away."""
    given, sent_away = ThreadWaiter[str](), ThreadWaiter[str]()

    def wait(waiter: Waiter[str]) -> str | None:
        waiter.wait(None)
        return waiter.give_up()

    callers = [Caller(partial(wait, waiter)) for waiter in (given, sent_away)]
    while None in {given._asleep, sent_away._asleep}:
        pass
    given.offer("it")
    sent_away.send_away()
    for caller in callers:
        caller.join()
    assert [caller.result for caller in callers] == ["it", None]


def test_thread_waits_until_the_deadline() -> None:
    """A deadline that has passed ends the wait; so does what was given before."""
    waiter = ThreadWaiter[str]()
    waiter.wait(0.0)
    assert waiter.waits
    waiter.offer("it")
    waiter.wait(None)
    assert waiter.give_up() == "it"


def in_a_task(work: Callable[[], object]) -> object:
    """Run something in a greenlet of SQLAlchemy's."""

    async def main() -> object:
        return await greenlet_spawn(work)

    return asyncio.run(main())


@pytest.mark.parametrize("deadline", [None, 1e12])
def test_task_is_woken(deadline: float | None) -> None:
    """A waiting task goes on when it is given something, by its own loop or by another thread."""

    def work() -> list[str | None]:
        here, there = TaskWaiter[str](), TaskWaiter[str]()
        asyncio.get_running_loop().call_soon(here.offer, "here")
        here.wait(deadline)
        threading.Timer(0, there.offer, ["there"]).start()
        there.wait(deadline)
        return [here.give_up(), there.give_up()]

    assert in_a_task(work) == ["here", "there"]


def test_task_waits_until_the_deadline() -> None:
    """A deadline that has passed ends the wait; so does what was given before."""

    def work() -> str | None:
        waiter = TaskWaiter[str]()
        waiter.wait(0.0)
        assert waiter.waits
        waiter.offer("it")
        waiter.wait(None)
        return waiter.give_up()

    assert in_a_task(work) == "it"


def test_task_is_given_something_as_it_gives_up() -> None:
    """To be given something at the very end of the wait is no error."""

    def work() -> str | None:
        waiter = TaskWaiter[str]()
        waiter.wait(0.0)
        assert waiter.offer("it")
        return waiter.give_up()

    assert in_a_task(work) == "it"


def test_task_whose_loop_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given to a task that will never run again."""
    waiter = TaskWaiter[str]()

    async def main() -> None:
        waiting = asyncio.ensure_future(greenlet_spawn(waiter.wait, None))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(main())
    assert not waiter.offer("it")
    loop = waiter._loop
    assert loop is not None
    with monkeypatch.context() as patch:
        patch.setattr(loop, "is_closed", lambda: False)  # it closes just after the look
        assert waiter.offer("it")


class Shelf:
    """A line, and the things that it gives away."""

    def __init__(self, *things: str) -> None:
        self.things = deque(things)
        self.line = WaitQueue[str](ThreadWaiter, self.take, self.things.append)
        self.before_taking: Callable[[], object] = lambda: None

    def take(self) -> str | None:
        self.before_taking()
        return self.things.popleft() if self.things else None

    def bring(self, thing: str) -> None:
        self.things.append(thing)
        self.line.serve()


def never(_waiter: Waiter[str]) -> None:
    raise AssertionError("there is no need to wait")


def no_longer(_waiter: Waiter[str]) -> None:
    """Wait no time at all."""


def test_line_gives_what_there_is() -> None:
    """Who stands in the line when something is free does not wait."""
    shelf = Shelf("it")
    assert shelf.line.acquire(never) == "it"
    assert shelf.line.acquire(no_longer) is None
    assert not shelf.line.waiters


def test_line_serves_the_longest_waiter_first() -> None:
    """Things go to those who wait in the order in which they came."""
    shelf = Shelf()
    waiters = [ThreadWaiter[str]() for _ in range(3)]
    shelf.line.waiters.extend(waiters)
    for thing in "abc":
        shelf.bring(thing)
    assert [waiter.give_up() for waiter in waiters] == ["a", "b", "c"]
    assert not shelf.line.waiters


def test_line_passes_over_those_who_left() -> None:
    """Something that is free is not offered to those who are no longer there."""
    shelf = Shelf()
    first, second = ThreadWaiter[str](), ThreadWaiter[str]()
    shelf.line.waiters.extend([first, second])
    first.give_up()
    shelf.bring("it")
    assert second.give_up() == "it"


def test_waiter_leaves_as_it_is_served() -> None:
    """What was taken for a waiter that leaves goes to the next one."""
    shelf = Shelf()
    first, second = ThreadWaiter[str](), ThreadWaiter[str]()
    shelf.line.waiters.extend([first, second])
    shelf.before_taking = first.give_up
    shelf.bring("it")
    assert first.give_up() is None
    assert second.give_up() == "it"


def test_last_waiter_leaves_as_it_is_served() -> None:
    """What was taken for a waiter that leaves is kept, if there is no other waiter."""
    shelf = Shelf()
    waiter = ThreadWaiter[str]()
    shelf.line.waiters.append(waiter)

    def give_up() -> None:
        waiter.give_up()
        shelf.line._remove(waiter)

    shelf.before_taking = give_up
    shelf.bring("it")
    assert list(shelf.things) == ["it"]


def test_line_empties_as_it_is_looked_at() -> None:
    """A waiter who leaves between two looks at the line breaks nothing."""

    class Leaving(deque[Waiter[str]]):
        def __bool__(self) -> bool:
            there = len(self) > 0
            self.clear()
            return there

    shelf = Shelf("it")
    shelf.line.waiters = Leaving([ThreadWaiter()])
    shelf.line.serve()
    assert list(shelf.things) == ["it"]


def test_interrupted_wait() -> None:
    """What interrupts a wait is raised, and what was given meanwhile is the next one's."""
    shelf = Shelf()
    second = ThreadWaiter[str]()

    def wait(_waiter: Waiter[str]) -> None:
        shelf.line.waiters.append(second)
        shelf.bring("it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.line.acquire(wait)
    assert second.give_up() == "it"
    assert not shelf.line.waiters


def test_interrupted_wait_with_nothing_given() -> None:
    """Who is interrupted while nothing is free leaves the line."""
    shelf = Shelf()

    def wait(_waiter: Waiter[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.line.acquire(wait)
    assert not shelf.line.waiters


def test_closed_line() -> None:
    """A wait queue that closes releases its waiters, and accepts no other."""
    shelf = Shelf()
    callers = [Caller(lambda: shelf.line.acquire(lambda one: one.wait(None))) for _ in range(3)]
    while len(shelf.line.waiters) < 3:
        pass
    shelf.line.close()
    for caller in callers:
        caller.join()
        assert caller.result is None
    assert shelf.line.acquire(never) is None
    shelf.bring("it")
    assert shelf.line.acquire(never) == "it"
