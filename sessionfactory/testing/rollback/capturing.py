"""What would run after a commit, kept for a test to look at."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from sessionfactory.testing.rollback._open_transactions import require_open

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
    from sessionfactory.testing.rollback._open_transactions import OpenTransactions


@contextmanager
def capturing_callbacks(
    sessions: SessionFactory | AsyncSessionFactory,
) -> Generator[list[Callable[[], object]]]:
    """Keep the callbacks of ``on_commit`` from running, and give them to the test.

    An example::

        with capturing_callbacks(fake) as callbacks:
            Signup(fake).register("ada@example.org")
        assert len(callbacks) == 1
        callbacks[0]()  # sends the mail; of an async function: await callbacks[0]()

    Without it, a rollback fake runs them when a scope commits, as in production. As with Django's
    ``captureOnCommitCallbacks``, the list grows with each commit, and has nothing that was rolled
    back. Blocks nest; the innermost one gets them. Not thread-safe, as the fake is not.

    Args:
        sessions: a ``RollbackSessionFactory`` or its async twin, inside of its block; the fixtures
            ``session_factory`` and ``async_session_factory`` are such.

    Raises:
        TypeError: this is another factory.
        ClosedError: the fake is outside of its block.
    """
    # Not by the classes of both halves, because one of them needs greenlet.
    fake = getattr(sessions, "inner", sessions)  # of a recording factory
    transactions: object = getattr(fake, "_transactions", fake)
    if transactions is fake:
        kind = type(sessions).__name__
        raise TypeError(
            f"callbacks are captured from a rollback fake, not from {kind}: give it"
            " RollbackSessionFactory(…), or its async twin"
        )
    capturing = require_open(cast("OpenTransactions | None", transactions)).capturing
    captured: list[Callable[[], object]] = []
    capturing.append(captured)
    try:
        yield captured
    finally:
        capturing[:] = [each for each in capturing if each is not captured]
