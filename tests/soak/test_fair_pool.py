"""The long forms of what ``tests/engine`` proves of the fair pool."""

from __future__ import annotations

import gc
import logging
import random
import signal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from sessionfactory.pool.fair import FairPool
from tests.support.seeds import seeds
from tests.support.sqlite_pools import Caller, Databases
from tests.support.storms import Storm

if TYPE_CHECKING:
    from types import FrameType

ACTIONS = 10_000


@pytest.mark.parametrize("seed", seeds(20))
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_storm(kind: str, seed: int) -> None:
    """Ten thousand random actions leave nothing behind."""
    storm = Storm(seed, ACTIONS)
    if kind == "threads":
        storm.in_threads()
    else:
        storm.in_tasks()


class Interrupted(BaseException):
    """What a signal handler raises."""


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", seeds(3))
def test_signals(seed: int) -> None:
    """A signal handler that raises at random moments of the main thread takes no place away."""
    databases, dice = Databases(), random.Random(seed)
    pool = FairPool(databases.connect, pool_size=2, max_overflow=1, timeout=0.05)
    over = False
    interrupted = 0

    def use() -> None:
        while not over:
            try:
                pool.connect().close()
            except SqlAlchemyTimeoutError:
                gc.collect()  # the main thread lost some

    logging.disable()  # what keeps a traceback keeps all that its frames had in hand
    before = signal.signal(signal.SIGALRM, _raise)
    callers = [Caller(use) for _ in range(3)]
    try:
        for _ in range(5_000):
            try:
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 3e-4))
                while True:
                    pool.connect().close()
            except Interrupted:
                interrupted += 1
            except SqlAlchemyTimeoutError:
                signal.setitimer(signal.ITIMER_REAL, 0)
                gc.collect()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        logging.disable(logging.NOTSET)
        over = True
    for caller in callers:
        caller.join()
    gc.collect()
    assert interrupted > 2_000
    held = [pool.connect() for _ in range(3)]
    assert (pool.checkedout(), pool.waiting()) == (3, 0)
    for connection in held:
        connection.close()
    databases.close()
