"""A session factory that records what is done with its sessions, for assertions."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, Self, cast

import attrs
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from sessionfactory.interfaces import S_co
from sessionfactory.testing.recording._session_log import Action, SessionLog, Statement

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.interfaces import SessionFactory
    from sessionfactory.status import Holder

S = TypeVar("S", bound=Session, default=Session)


class _WithReader(Protocol[S_co]):
    @property
    def reader(self) -> SessionFactory[S_co]: ...


@attrs.define(eq=False, repr=False)
class Recording:
    """What was done with the sessions of a factory: counts, lists and, as text, a log.

    Thread-safe. Each figure counts since the last ``reset()``.
    """

    _log: SessionLog = attrs.field(init=False, factory=SessionLog)

    @property
    def sessions(self) -> int:
        """Sessions opened."""
        return self._count("opened")

    @property
    def closed(self) -> int:
        """Sessions closed."""
        return self._count("closed")

    @property
    def transactions(self) -> int:
        """Database transactions begun.

        A session that sent nothing has none, one on two databases has two. Savepoints are none.
        """
        return self._count("began")

    @property
    def commits(self) -> int:
        """Database transactions committed."""
        return self._count("committed")

    @property
    def rollbacks(self) -> int:
        """Database transactions that ended without a commit, be it that the session was closed."""
        return self._count("rolled back")

    @property
    def statements(self) -> tuple[Statement, ...]:
        """What was sent in these transactions, failed statements included.

        What only steers a transaction (BEGIN, COMMIT, SAVEPOINT and the like) is left out.
        """
        details = [entry.detail for entry in self._log.entries()]
        return tuple(detail for detail in details if isinstance(detail, Statement))

    @property
    def writes(self) -> tuple[Statement, ...]:
        """The statements that write; see ``Statement.writes``."""
        return tuple(statement for statement in self.statements if statement.writes)

    @property
    def held(self) -> tuple[Holder, ...]:
        """Who held connections, longest first; those that still do are among them.

        A holder's place is where its session was opened.
        """
        return self._log.holders()

    def listen(self, session: Session) -> None:
        """Record what is done with a session from now on."""
        self._log.listen(session)

    def reset(self) -> None:
        """Forget what has happened so far; sessions that are open are recorded on."""
        self._log.clear()

    def __repr__(self) -> str:
        return (
            f"<Recording: sessions={self.sessions} closed={self.closed} "
            f"transactions={self.transactions} commits={self.commits} rollbacks={self.rollbacks} "
            f"statements={len(self.statements)} writes={len(self.writes)}>"
        )

    def __str__(self) -> str:
        return "\n".join([repr(self), *(f"  {entry}" for entry in self._log.entries())])

    def _count(self, action: Action) -> int:
        return sum(entry.action == action for entry in self._log.entries())


@attrs.define(eq=False)
class RecordingSessionFactory(Generic[S]):
    """A ``SessionFactory`` that records what is done with the sessions of another one.

    ::

        recorder = RecordingSessionFactory(factory)
        Signup(recorder).register("ada@example.org")
        recording = recorder.recording
        assert recording.transactions == 1, recording  # a failure shows the log
        assert len(recording.writes) == 1, recording

    It listens from the moment it has a session: what ``inner.begin()`` may send before that is not
    recorded. As a context manager it closes nothing: ``inner`` is closed by who made it.
    Thread-safe.

    Args:
        inner: any session factory.
        recording: where to record; several factories may share one.
    """

    inner: SessionFactory[S]
    recording: Recording = attrs.field(factory=Recording, kw_only=True, repr=False)

    @property
    def reader(self) -> SessionFactory[S]:
        """The reader of ``inner``, with the same recording.

        Raises:
            AttributeError: ``inner`` has none.
        """
        reader = cast("_WithReader[S]", self.inner).reader
        return RecordingSessionFactory(reader, recording=self.recording)

    def __call__(self) -> S:
        """Return a new session of ``inner``; the caller closes it."""
        session = self.inner()
        self.recording.listen(session)
        return session

    @contextmanager
    def begin(self) -> Generator[S]:
        """Run one transaction of ``inner``."""
        with self.inner.begin() as session:
            self.recording.listen(session)
            yield session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
