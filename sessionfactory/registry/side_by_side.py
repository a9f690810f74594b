"""Calls to several databases at once, so that all of them together take as long as the slowest."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """Make each call in a thread, the first one in this thread; return results and errors."""
    futures: list[Future[T]] = [Future() for _ in calls]
    threads: list[threading.Thread] = []
    for future, call in [*zip(futures, calls, strict=True)][1:]:
        thread = threading.Thread(
            target=_run, args=(future, call), name="sessionfactory-databases", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end, or there are too many threads
            _run(future, call)
        else:
            threads.append(thread)
    try:
        for future, call in zip(futures[:1], calls[:1], strict=True):
            _run(future, call)
    finally:
        for thread in threads:
            thread.join()
    return [future.exception() or future.result() for future in futures]


async def side_by_side_async(
    calls: Sequence[Callable[[], Awaitable[T]]],
) -> list[T | BaseException]:
    """Async twin of ``side_by_side``: each call is a task."""
    return await asyncio.gather(*(call() for call in calls), return_exceptions=True)


def _run(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the caller gets it, as in the async half
        future.set_exception(error)


def results(outcomes: list[T | BaseException]) -> list[T]:
    """Return the results of calls, or raise the first error."""
    found: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found
