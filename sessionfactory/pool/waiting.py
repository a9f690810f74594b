"""How the two halves wait: threads block, tasks await inside SQLAlchemy's greenlets.

What is written with these runs in either half.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy.util.concurrency import await_only, greenlet_spawn, in_greenlet

from sessionfactory.clock import monotonic
from sessionfactory.drivers import fork_gate
from sessionfactory.pool import shielded
from sessionfactory.pool.wait_queue import TaskWaiter, ThreadWaiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from concurrent.futures import Future

    from sessionfactory.config.rotating_secret import Answer, RotatingSecret
    from sessionfactory.pool.ledger import Ledger
    from sessionfactory.pool.wait_queue import Waiter


T = TypeVar("T")


class TookLongerError(Exception):
    """Something was cut off, because it took longer than it may."""


def pause(seconds: float) -> None:
    """Wait in either half."""
    if in_greenlet():
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


class Waiting(Protocol):
    """How to wait without holding up what is waited for."""

    def until(self, done: Callable[[], bool], ledger: Ledger, deadline: float) -> None:
        """Wait until ``done()``, asked again at every return of a connection, or the deadline."""
        ...

    def side_by_side(self, calls: list[Callable[[], None]], timeout: float) -> None:
        """Make calls that a silent network may hold for ever; leave those that are late."""
        ...

    def start(self, call: Callable[[], None], name: str) -> None:
        """Make a call for which nobody waits."""
        ...

    def start_connecting(self, call: Callable[[], None]) -> object:
        """Make a call that opens a connection; return the thread or task in which it runs.

        Raises:
            RuntimeError: no thread can be started.
        """
        ...

    def answer(self, future: Future[T], timeout: float) -> T | None:
        """Return the result of a future; ``None`` if it has none within ``timeout`` seconds."""
        ...

    def certainly(self, call: Callable[[], None]) -> None:
        """Make a call to its end, whatever interrupts the caller meanwhile."""
        ...

    def alarm(self, timeout: float, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Make a call if the block takes longer than ``timeout`` seconds, and raise at its end.

        Raises:
            TookLongerError: the call was made, whatever came of the block.
        """
        ...

    def refresh(self, secret: RotatingSecret, seen: Answer | None) -> Answer:
        """Return an answer of a secret's function newer than one that was seen."""
        ...


class Threads:
    """How the sync half waits."""

    def until(self, done: Callable[[], bool], ledger: Ledger, deadline: float) -> None:
        """Block the thread."""
        # A queue, because garbage collection may return a connection in the midst of the waiting:
        # the locks of Event and Condition would not let it in.
        returns: SimpleQueue[None] = SimpleQueue()
        with ledger.on_return(lambda: returns.put(None)), suppress(Empty):
            while not done():
                returns.get(timeout=max(0.0, deadline - monotonic()))

    def side_by_side(self, calls: list[Callable[[], None]], timeout: float) -> None:
        """Make each call in a thread."""
        threads = [_thread(call, "sessionfactory-close") for call in calls]
        deadline = monotonic() + timeout
        for thread in filter(None, threads):
            thread.join(max(0.0, deadline - monotonic()))

    def start(self, call: Callable[[], None], name: str) -> None:
        """Make a call in a thread."""
        _thread(call, name)

    def start_connecting(self, call: Callable[[], None]) -> object:
        """Make a call in a thread that no fork interrupts, in a copy of the caller's context."""
        run = copy_context().run  # a user's listener to ``do_connect`` may look for its trace
        thread = threading.Thread(
            target=run, args=(call,), name="sessionfactory-connect", daemon=True
        )
        fork_gate.start(thread)
        return thread

    def answer(self, future: Future[T], timeout: float) -> T | None:
        """Block the thread until there is a result."""
        try:
            return future.result(timeout)
        except (TimeoutError, CancelledError):
            return None

    def certainly(self, call: Callable[[], None]) -> None:
        """Make the call: nothing interrupts a thread."""
        call()

    @contextmanager
    def alarm(self, timeout: float, call: Callable[[], None]) -> Generator[None]:
        """Have a thread make the call."""
        block: ThreadWaiter[bool] = ThreadWaiter()
        timer = threading.Timer(timeout, _ring, (block, call))
        timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started, and nothing limits the block
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if block.give_up():
                timer.join()  # it is in the midst of the call
                raise TookLongerError(f"it took longer than {timeout:g} s")

    def refresh(self, secret: RotatingSecret, seen: Answer | None) -> Answer:
        """Call the function in this thread."""
        return secret.refresh(seen)


class Tasks:
    """How the async half waits: in a greenlet of SQLAlchemy's."""

    def __init__(self) -> None:
        self._started: set[asyncio.Task[None]] = set()  # a loop keeps its tasks weakly

    def until(self, done: Callable[[], bool], ledger: Ledger, deadline: float) -> None:
        """Await."""
        loop, returned = asyncio.get_running_loop(), asyncio.Event()
        with ledger.on_return(lambda: loop.call_soon_threadsafe(returned.set)):
            while not done() and monotonic() < deadline:
                returned.clear()
                await_only(_within(returned.wait(), deadline - monotonic()))

    def side_by_side(self, calls: list[Callable[[], None]], timeout: float) -> None:
        """Make each call in a task."""
        tasks = [self._task(call, "sessionfactory-close") for call in calls]
        if tasks:
            await_only(asyncio.wait(tasks, timeout=timeout))

    def start(self, call: Callable[[], None], name: str) -> None:
        """Make a call in a task."""
        self._task(call, name)

    def start_connecting(self, call: Callable[[], None]) -> object:
        """Make a call in a task."""
        return new_task(greenlet_spawn(call), "sessionfactory-connect")

    def answer(self, future: Future[T], timeout: float) -> T | None:
        """Await the result."""
        answering = _answered(future, timeout)
        return await_only(answering)

    def certainly(self, call: Callable[[], None]) -> None:
        """Make the call in a task that no cancellation of this one reaches."""
        await_only(shielded.finish(partial(greenlet_spawn, call)))

    @contextmanager
    def alarm(self, timeout: float, call: Callable[[], None]) -> Generator[None]:
        """Have the event loop make the call."""
        block: TaskWaiter[bool] = TaskWaiter()
        handle = asyncio.get_running_loop().call_later(timeout, _ring, block, call)
        try:
            yield
        finally:
            handle.cancel()
            if block.give_up():
                raise TookLongerError(f"it took longer than {timeout:g} s")

    def refresh(self, secret: RotatingSecret, seen: Answer | None) -> Answer:
        """Await a coroutine function; call a plain function in a thread."""
        return await_only(secret.refresh_async(seen))

    def _task(self, call: Callable[[], None], name: str) -> asyncio.Task[None]:
        task = new_task(greenlet_spawn(call), name)
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        return task


def _thread(call: Callable[[], None], name: str) -> threading.Thread | None:
    """Run a call in a thread; run it here, and return ``None``, where no thread can be started.

    Python 3.12 starts none once the main thread has ended, and a container may limit them.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        call()
        return None
    return thread


def new_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task that the event loop's task factory does not make.

    An eager task runs before its creator refers to it, inside the greenlet that creates it.
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)


def _ring(block: Waiter[bool], call: Callable[[], None]) -> None:
    if block.offer(True):
        call()


async def _answered(future: Future[T], timeout: float) -> T | None:
    answered = asyncio.wrap_future(future)
    await asyncio.wait([answered], timeout=timeout)
    return answered.result() if answered.done() and not answered.cancelled() else None


async def _within(event: Awaitable[object], timeout: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event
