"""Measuring: candidates in turn, in one process, so that a noisy machine slows all of them."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

T = TypeVar("T")


def alternate(candidates: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let every candidate give one sample a round: A B C, B C A, C A B.

    A first sample of each warms caches and connections up, and is thrown away.

    Args:
        candidates: by name, what gives a sample.
        rounds: samples of each.

    Returns:
        the samples by name, in the candidates' order; those at one index are from one round.
    """
    for give_sample in candidates.values():
        give_sample()
    names = list(candidates)
    samples: dict[str, list[T]] = {name: [] for name in names}
    with _garbage_to_its_owner() as collect:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                collect()
                samples[name].append(candidates[name]())
    return samples


def fastest(samples: Mapping[str, Sequence[float]], passes: int) -> dict[str, list[float]]:
    """Make one round of several successive ones: of each candidate, its fastest sample.

    For what only the processor works on: whatever else the machine does can but slow it down.
    """
    return {
        name: [min(taken[start : start + passes]) for start in range(0, len(taken), passes)]
        for name, taken in samples.items()
    }


@contextmanager
def _garbage_to_its_owner() -> Generator[Callable[[], object]]:
    """Keep garbage collection on, and make each sample pay for its own garbage only.

    Switching collection off would flatter whoever leaves cycles behind. So everything that is
    older than the measurement is frozen, and collected is before each sample, outside its time.
    """
    gc.collect()
    gc.freeze()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()


def timed(operation: Callable[[], object], number: int) -> Callable[[], float]:
    """Return a candidate whose sample is the seconds that one operation takes.

    A tenth of the operations comes first and is not timed: otherwise a candidate would gain from
    following another one that runs the same code, and so has it in the processor's caches.

    Args:
        operation: what is timed.
        number: operations per sample. A sample of one or two milliseconds is short enough that
            most of them are not interrupted by another process, which long ones always are.
    """

    def sample() -> float:
        for _ in repeat(None, number // 10 + 1):
            operation()
        began = perf_counter()
        for _ in repeat(None, number):
            operation()
        return (perf_counter() - began) / number

    return sample


def together(workers: Sequence[Callable[[], T]]) -> tuple[float, list[T]]:
    """Run each worker in a thread of its own, all let go at once.

    Returns:
        the seconds until the last one was done, and what they returned, in their order.
    """
    gate = threading.Barrier(len(workers) + 1)

    def enter(worker: Callable[[], T]) -> T:
        gate.wait()
        return worker()

    with ThreadPoolExecutor(len(workers)) as threads:
        futures = [threads.submit(enter, worker) for worker in workers]
        # Before the gate: behind it, this thread may be the last to be woken.
        began = perf_counter()
        gate.wait()
        results = [future.result() for future in futures]
        return perf_counter() - began, results
