"""Forked processes for tests: what one returns comes back, and what it raises fails the test."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
import warnings
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PATIENCE = 60
"""Seconds after which a child that hangs is ended, and its test fails."""


def fork() -> int:
    """Fork, where Python 3.12 and newer warn: another thread may have a lock. That is the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Child(Generic[T]):
    """A forked process that does some work.

    It ends as the workers of multiprocessing do, without taking the interpreter apart.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._answer, answer = os.pipe()
        self.pid = fork()
        if self.pid:
            os.close(answer)
            return
        signal.alarm(_PATIENCE)
        try:
            outcome = pickle.dumps((True, work()))
        except BaseException:  # noqa: BLE001 - pytest's own among them
            outcome = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(answer, "wb") as pipe:
            pipe.write(outcome)
        os._exit(0)

    def outcome(self) -> T:
        """Wait for the child, and return what its work returned."""
        with os.fdopen(self._answer, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        assert answer, f"the child ended with status {status}"
        succeeded, result = pickle.loads(answer)
        assert succeeded, f"in the child:\n{result}"
        return cast("T", result)


def in_child(work: Callable[[], T]) -> T:
    """Do some work in a forked process, and return what it returned."""
    return Child(work).outcome()
