"""A limit on the statements that a part of a test may send."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sessionfactory.errors import SessionFactoryError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sessionfactory.testing.recording._session_log import Statement
    from sessionfactory.testing.recording.recording import Recording


class QueryBudgetError(SessionFactoryError, AssertionError):
    """A block sent more statements than it may; the message lists them with their call sites."""


class Recorded(Protocol):
    """A recording factory of either half."""

    @property
    def recording(self) -> Recording:
        """What was done with its sessions."""
        ...


@contextmanager
def max_queries(sessions: Recorded, limit: int) -> Generator[None]:
    """Raise at the end of a block if more statements were sent in it than a limit.

    An example::

        recorder = RecordingSessionFactory(factory)
        with max_queries(recorder, 2):
            list_orders(recorder)  # a lazy load for each order would be many more

    The message has repeated statements first, each with the lines of the test's or the service's
    code that sent it. Counted is what ``Recording.statements`` lists: an ``executemany`` is one
    statement, and BEGIN, COMMIT, SAVEPOINT and the like are none. A block that raises gets its own
    error only. For the async half it is the same, with ``with``. Blocks nest. Statements of other
    threads and tasks count, if they use the same recording.

    Args:
        sessions: a ``RecordingSessionFactory`` or its async twin.
        limit: how many statements are allowed, 0 or more.

    Raises:
        QueryBudgetError: more were sent.
        ValueError: the limit is no such number.
    """
    if type(limit) is not int or limit < 0:
        raise ValueError(f"max_queries: expected a number of statements, 0 or more, not {limit!r}")
    before = sessions.recording.statements
    yield
    after = sessions.recording.statements
    was_reset = after[: len(before)] != before
    sent = after if was_reset else after[len(before) :]
    if len(sent) > limit:
        raise QueryBudgetError(_report(sent, limit))


def _report(sent: tuple[Statement, ...], limit: int) -> str:
    lines = [f"{_statements(len(sent))} sent where at most {limit} are allowed:"]
    for sql, times in Counter(map(str, sent)).most_common():
        lines.append(f"  {times} times: {sql}")
        sites = Counter(each.where or "an unknown place" for each in sent if str(each) == sql)
        lines += _indented(sites.most_common(), times)
    return "\n".join(lines)


def _indented(sites: Iterable[tuple[str, int]], of: int) -> list[str]:
    return [f"      at {site}" if n == of else f"      {n} times at {site}" for site, n in sites]


def _statements(number: int) -> str:
    return "1 statement was" if number == 1 else f"{number} statements were"
