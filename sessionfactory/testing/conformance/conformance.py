"""Does a session factory keep its promises? One call checks anybody's, without pytest.

The check needs a database that can run SQL, and a table there, ``sessionfactory_conformance``,
which it makes and drops. Where that would end a transaction (MariaDB) in which the factory has to
stay, make the table before, ``CONFORMANCE_TABLE.create(engine)``; then it is not dropped either.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from sqlalchemy.orm import Session

from sessionfactory.testing.conformance._requirements import (
    NOT_MADE,
    Attempt,
    Deliberate,
    Findings,
    expect,
    expect_closed,
    has_rows,
    kind_of,
    make_table,
    new_row,
    raise_if_given,
    remove_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.interfaces import SessionFactory

    Sessions = SessionFactory[Session]
    Make = Callable[[], Sessions | AbstractContextManager[Sessions]]


def check_session_factory(make: Make) -> None:
    """Check what ``SessionFactory`` promises, and report all that fails in one error.

    ::

        check_session_factory(FakeSessions)
        check_session_factory(lambda: sessionmaker(engine))
        check_session_factory(lambda: SqlAlchemySessionFactory(settings))

    A factory whose sessions are of the wrong kind is told so, and not checked further.
    One check at a time on a database.

    Args:
        make: called for each promise; gives a factory, or a context manager with a factory as its
            value, which is entered and left.

    Raises:
        ConformanceError: the factory breaks promises; the message lists them, with what was seen.
    """
    findings = Findings("SessionFactory")
    for promise, keeps in KINDS.items():
        with findings.about(promise), _probing(make) as probe:
            keeps(probe)
    findings.tell()
    made_table = False
    for promise, keeps in PROMISES.items():
        with findings.about(promise), _probing(make) as probe:
            made_table |= probe.prepare(make_table)
            keeps(probe)
    if made_table:
        with findings.about("the table of this check can be dropped"), _probing(make) as probe:
            probe.prepare(remove_table)
    findings.tell()


class _Probe:
    """The factory that is checked, with a memory for its sessions: what breaks leaves some open."""

    def __init__(self, sessions: SessionFactory[Session]) -> None:
        self.sessions = sessions
        self._given: list[Session] = []

    def __call__(self) -> Session:
        session = self.sessions()
        self._given.append(session)
        return session

    @contextmanager
    def begin(self) -> Generator[Session]:
        with self.sessions.begin() as session:
            self._given.append(session)
            yield session

    def close(self) -> None:
        """Close every session that was given so far."""
        while self._given:
            self._given.pop().close()

    def prepare(self, work: Callable[[Session], bool]) -> bool:
        """Do something to the table."""
        with self() as session:
            done = work(session)
            session.commit()
        return done

    def finds(self, *tokens: str) -> bool:
        """Return whether a new session sees these rows, while no other is open."""
        self.close()
        with self() as session:
            return has_rows(session, tokens)

    def fail(self, attempt: Attempt, error: BaseException | None = None) -> Attempt:
        """Write a row in a transaction whose block raises; without an error, its commit has to."""
        try:
            with self.begin() as session:
                attempt.session = session
                session.add(attempt.row)
                if error is not None:
                    session.flush()
                raise_if_given(error)
        except BaseException as raised:  # noqa: BLE001 - KeyboardInterrupt is among the errors
            attempt.raised = raised
        return attempt


@contextmanager
def _probing(make: Make) -> Generator[_Probe]:
    made = make()
    manager = made if isinstance(made, AbstractContextManager) else nullcontext(made)
    with manager as sessions:
        probe = _Probe(sessions)
        try:
            yield probe
        finally:
            probe.close()


def _call_gives_a_session(probe: _Probe) -> None:
    expect(not isinstance(probe.sessions, Session), NOT_MADE)  # by who gave the factory itself
    given = probe.sessions()
    expect(isinstance(given, Session), f"it gave {kind_of(given)}")
    given.close()


def _begin_gives_a_session(probe: _Probe) -> None:
    manager = probe.sessions.begin()
    expect(isinstance(manager, AbstractContextManager), f"it gave {kind_of(manager)}")
    with manager as session:
        pass
    expect(isinstance(session, Session), f"its value was {kind_of(session)}")


def _each_has_its_own(probe: _Probe) -> None:
    _, row = new_row()
    one, two = probe(), probe()
    one.add(row)
    expect(one is not two, "two calls gave the same one")
    expect(row not in two, "two sessions had the same objects")
    two.close()
    expect(row in one, "closing one session closed another")
    with probe.begin() as three:
        expect(three not in (one, two), "begin() gave the one that a call had given")
    with probe.begin() as four:
        expect(three is not four, "two transactions had the same one")


def _sessions_keep_what_is_committed(probe: _Probe) -> None:
    token, row = new_row()
    with probe() as session:
        session.add(row)
        session.commit()
    expect(probe.finds(token), "the next session did not find it")


def _sessions_drop_what_is_not(probe: _Probe) -> None:
    token, row = new_row()
    with probe() as session:
        session.add(row)
        session.flush()
    expect(not probe.finds(token), "the next session found it")


def _begin_commits(probe: _Probe) -> None:
    token, row = new_row()
    with probe.begin() as session:
        session.add(row)
    expect(probe.finds(token), "the next session did not find what it wrote")


def _begin_closes(probe: _Probe) -> None:
    _, row = new_row()
    with probe.begin() as session:
        session.add(row)
    expect_closed(session, row)


def _begin_rolls_back(probe: _Probe) -> None:
    attempt = probe.fail(Attempt(), Deliberate())
    expect(not probe.finds(attempt.token), "the next session found what it wrote")


def _begin_passes_errors_on(probe: _Probe) -> None:
    error = Deliberate()
    probe.fail(Attempt(), error).expect_passed_on(error)


def _begin_closes_after_an_error(probe: _Probe) -> None:
    probe.fail(Attempt(), Deliberate()).expect_closed()


def _begin_does_so_after_an_interrupt(probe: _Probe) -> None:
    error = KeyboardInterrupt()
    attempt = probe.fail(Attempt(), error)
    attempt.expect_passed_on(error)
    attempt.expect_closed()
    expect(not probe.finds(attempt.token), "the next session found what it wrote")


def _begin_survives_a_failed_commit(probe: _Probe) -> None:
    token, row = new_row()
    with probe() as session:
        session.add(row)
        session.commit()
    attempt = probe.fail(Attempt(token))  # its key is taken
    expect(attempt.raised is not None, "the error was swallowed")
    attempt.expect_closed()


def _begin_can_be_repeated(probe: _Probe) -> None:
    tokens: list[str] = []
    for _ in range(2):
        token, row = new_row()
        with probe.begin() as session:
            session.add(row)
        tokens.append(token)
    expect(probe.finds(*tokens), "what they wrote was not all there")


def _begin_can_be_nested(probe: _Probe) -> None:
    outer_token, outer_row = new_row()
    inner_token, inner_row = new_row()
    with probe.begin() as outer:
        try:
            with probe.begin() as inner:
                inner.add(inner_row)
        except Exception:  # noqa: BLE001 - it may refuse in words of its own
            return
        outer.add(outer_row)
    expect(probe.finds(outer_token, inner_token), "there was no error, but a row was lost")


def _another_thread_can_use_it(probe: _Probe) -> None:
    token, row = new_row()

    def write() -> None:
        with probe.begin() as session:
            session.add(row)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write).result()
    expect(probe.finds(token), "what it wrote was not there")


KINDS: Final = {
    "a call gives a Session": _call_gives_a_session,
    "begin() gives a context manager whose value is a Session": _begin_gives_a_session,
}
PROMISES: Final = {
    "each call and each transaction has a session of its own": _each_has_its_own,
    "a session that was called for keeps what it commits": _sessions_keep_what_is_committed,
    "a session that was called for does not commit by itself": _sessions_drop_what_is_not,
    "begin() commits when its block ends": _begin_commits,
    "begin() closes its session when its block ends": _begin_closes,
    "begin() rolls back when its block raises": _begin_rolls_back,
    "begin() passes on what its block raises": _begin_passes_errors_on,
    "begin() closes its session when its block raises": _begin_closes_after_an_error,
    "begin() does all three for KeyboardInterrupt, too": _begin_does_so_after_an_interrupt,
    "begin() passes on what its commit raises, and closes": _begin_survives_a_failed_commit,
    "begin() works a second time": _begin_can_be_repeated,
    "begin() inside begin() works, or raises": _begin_can_be_nested,
    "another thread can use the factory, one after the other": _another_thread_can_use_it,
}
