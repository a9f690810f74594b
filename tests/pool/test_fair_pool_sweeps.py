"""A fair pool is left, and entered again, between any two of its own instructions."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest

from sessionfactory.pool import fair, pool_entry, wait_queue
from sessionfactory.pool.fair import FairPool
from tests.support.sqlite_pools import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from sessionfactory.pool.pool_entry import PoolEntry
    from sessionfactory.pool.wait_queue import Waiter
    from tests.support.sqlite_pools import Databases

OURS = {fair.__file__, wait_queue.__file__, pool_entry.__file__}


class Sweep:
    """Does something before the n-th instruction of a fair pool's own code."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.left = step
        self._action = action

    @property
    def reached(self) -> bool:
        return self.left < 0

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in OURS:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == -1:
                self._action()
        return self._trace

    @contextmanager
    def running(self) -> Generator[None]:
        """Trace this thread."""
        before = sys.gettrace()
        # First, or Python 3.12 minds the instructions from the next time on.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)


class Meanwhile(FairPool):
    """A pool in which something happens when a waiter begins to wait."""

    happens: Callable[[], object]

    def _wait(self, deadline: float | None, waiter: Waiter[PoolEntry]) -> None:
        self.happens()
        super()._wait(deadline, waiter)


def steps(run: Callable[[int], Sweep]) -> int:
    """Run with every step, until one comes after the end; return how many there were."""

    def sweep() -> int:
        step = 0
        while run(step).reached:
            step += 1
        return step

    gc.collect()
    gc.freeze()  # so that the collections within take no time
    try:
        # In another thread, for Python does not mind its stack of exceptions where a trace function
        # raises in the middle of an ``except``.
        caller = Caller(sweep)
        caller.join()
    finally:
        gc.unfreeze()
    return cast("int", caller.result)


def counters(pool: FairPool) -> tuple[int, int, int]:
    """Return what is idle, what is out, and who waits."""
    return pool.checkedin(), pool.checkedout(), pool.waiting()


def test_collector_comes_in_as_somebody_asks(databases: Databases) -> None:
    """A dropped connection that comes back at any moment of a checkout is what that gets."""

    def run(step: int) -> Sweep:
        pool = Meanwhile(databases.connect, pool_size=1, max_overflow=0, timeout=20)
        loose = [pool.connect()]
        pool.happens = loose.clear  # at the latest
        sweep = Sweep(step, loose.clear)
        with sweep.running():
            got = pool.connect()
        assert counters(pool) == (0, 1, 0)
        got.close()
        assert counters(pool) == (1, 0, 0)
        pool.dispose()
        return sweep

    assert steps(run) > 50


@pytest.mark.parametrize("size", [1, 2])
def test_collector_comes_in_as_something_is_returned(databases: Databases, size: int) -> None:
    """A dropped connection that comes back in the middle of another's return is kept, or closed."""

    def run(step: int) -> Sweep:
        pool = FairPool(databases.connect, pool_size=size, max_overflow=2 - size)
        loose: list[object] = [pool.connect()]
        held = pool.connect()
        sweep = Sweep(step, loose.clear)
        with sweep.running():
            held.close()
        loose.clear()
        assert counters(pool) == (size, 0, 0)
        assert len(databases.open) == size
        pool.dispose()
        return sweep

    assert steps(run) > 10


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("contended", [False, True])
def test_interrupted_anywhere(databases: Databases, *, contended: bool) -> None:
    """Wherever a handler raises, no connection or permit is lost, and no waiter is stuck."""

    def run(step: int) -> Sweep:
        pool = Meanwhile(databases.connect, pool_size=1, max_overflow=1, timeout=0.01)
        held = [pool.connect(), pool.connect()] if contended else []
        pool.happens = lambda: held.pop().close()
        sweep = Sweep(step, interrupt)
        with suppress(KeyboardInterrupt), sweep.running():
            pool.connect().close()
        held.clear()
        gc.collect()
        held += [pool.connect(), pool.connect()]
        assert counters(pool) == (0, 2, 0)
        for connection in held:
            connection.close()
        assert counters(pool) == (1, 0, 0)
        pool.dispose()
        return sweep

    assert steps(run) > 50
