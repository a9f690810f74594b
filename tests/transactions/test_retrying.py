"""Work in a transaction: done again where that is right, and never where it is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import stamina
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from sessionfactory import (
    CommitUncertainError,
    SqlAlchemySessionFactory,
    run_in_transaction,
)
from tests.support.payments import PAY, fail_at_commit, failing, rows
from tests.support.ways import HALVES, POSTGRESQL, Way

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sessionfactory.testing import FaultProxy, PostgresServer

ways = pytest.mark.parametrize("way", POSTGRESQL, ids=str)
halves = pytest.mark.parametrize("way", HALVES, ids=str)


@halves
def test_the_result_is_returned_and_the_work_committed(way: Way, server: PostgresServer) -> None:
    """What the work returns is returned, once its transaction is committed."""

    def work(session: Session) -> str:
        session.execute(PAY)
        return "done"

    assert way.run(server.url, work) == "done"
    assert rows(server) == 1


@ways
@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_a_conflict_is_tried_again_in_a_fresh_session(
    way: Way, code: str, server: PostgresServer
) -> None:
    """After a serialization failure or a deadlock, the work is done again, in another session."""
    seen: list[Session] = []

    def work(session: Session) -> int:
        seen.append(session)
        session.execute(PAY)
        if len(seen) < 3:
            failing(session, code)
        return len(seen)

    assert way.run(server.url, work) == 3
    assert len(set(map(id, seen))) == 3
    assert rows(server) == 1


@halves
def test_a_conflict_at_commit_is_tried_again(way: Way, server: PostgresServer) -> None:
    """A conflict that the database tells at COMMIT is tried again, for it has rolled back."""
    fail_at_commit(server, "40001")
    seen: list[Session] = []

    def work(session: Session) -> int:
        seen.append(session)
        if len(seen) == 2:
            session.execute(text("SET LOCAL session_replication_role = replica"))  # no triggers
        session.execute(PAY)
        return len(seen)

    assert way.run(server.url, work) == 2
    assert rows(server) == 1


@halves
def test_an_ordinary_error_is_not_tried_again(way: Way, server: PostgresServer) -> None:
    """What would fail again is raised at once, as it is and without notes."""
    server.execute("ALTER TABLE paid ADD UNIQUE (amount)")
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        session.execute(PAY)

    with pytest.raises(IntegrityError) as caught:
        way.run(server.url, work)

    assert (len(calls), rows(server)) == (1, 0)
    assert not hasattr(caught.value, "__notes__")


@halves
def test_an_error_of_the_work_is_not_tried_again(way: Way, server: PostgresServer) -> None:
    """What the work raises itself is the caller's, and rolls back."""

    def work(session: Session) -> None:
        session.execute(PAY)
        raise ConnectionRefusedError("some other service")

    with pytest.raises(ConnectionRefusedError, match="some other service"):
        way.run(server.url, work)

    assert rows(server) == 0


@halves
def test_the_last_error_tells_of_all_attempts(way: Way, server: PostgresServer) -> None:
    """Who gives up says what happened each time, and repeats no statement and no value."""

    def work(session: Session) -> None:
        failing(session, "40P01")

    with pytest.raises(DBAPIError) as caught:
        way.run(server.url, work, attempts=3)

    notes = caught.value.__notes__
    assert [note.partition(", after")[0] for note in notes] == [
        f"run_in_transaction, attempt {number}" for number in (1, 2, 3)
    ]
    assert all(
        note.endswith("s: it was in conflict with another transaction (40P01)") for note in notes
    )


def test_a_different_error_at_last_tells_of_those_before(factory: SqlAlchemySessionFactory) -> None:
    """An error that ends the attempts carries them, too."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        failing(session, "40001" if len(calls) == 1 else "22012")

    with pytest.raises(DBAPIError) as caught:
        run_in_transaction(factory, work)

    first, second = caught.value.__notes__
    assert first.endswith("it was in conflict with another transaction (40001)")
    assert second.endswith("s: DataError (22012)")


def test_a_lock_timeout_is_tried_again_if_asked(factory: SqlAlchemySessionFactory) -> None:
    """A lock that was waited for too long ends the attempts, unless the caller wants otherwise."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        if len(calls) < 3:
            failing(session, "55P03")
        return len(calls)

    with pytest.raises(OperationalError):
        run_in_transaction(factory, work)
    assert run_in_transaction(factory, work, retry_lock_timeout=True) == 3


def test_the_time_is_limited(factory: SqlAlchemySessionFactory) -> None:
    """No attempt begins when the time is over, however many there might be."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(text("SELECT pg_sleep(0.06)"))
        failing(session, "40001")

    with pytest.raises(OperationalError):
        run_in_transaction(factory, work, attempts=None, timeout=0.05)

    assert len(calls) == 1


def test_there_may_be_no_limit(factory: SqlAlchemySessionFactory) -> None:
    """Without a limit it goes on until it succeeds."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        if len(calls) <= 12:
            failing(session, "40001")
        return len(calls)

    with stamina.set_testing(True, attempts=100):  # does not wait
        assert run_in_transaction(factory, work, attempts=None, timeout=None) == 13


@ways
def test_each_retry_is_logged_in_one_line(
    way: Way, server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the function that is repeated, the reason, and the time that has passed."""
    calls: list[int] = []

    def transfer(session: Session) -> None:
        calls.append(1)
        if len(calls) == 1:
            failing(session, "40001")

    way.run(server.url, transfer)

    (line,) = [each for each in caplog.records if each.name == "sessionfactory"]
    assert line.levelname == "WARNING"
    expected = (
        r"repeating \S+, \d\.\d{3} s after attempt 1, after \d\.\d{3} s:"
        r" it was in conflict with another transaction \(40001\)"
    )
    assert re.fullmatch(expected, line.getMessage())
    if way.half != "async":  # there it is the coroutine function around it
        assert "transfer" in line.getMessage()


def test_stamina_can_be_switched_off(factory: SqlAlchemySessionFactory) -> None:
    """A test suite that switches stamina off sees the first error."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        failing(session, "40001")

    stamina.set_active(False)
    try:
        with pytest.raises(OperationalError):
            run_in_transaction(factory, work)
    finally:
        stamina.set_active(True)

    assert len(calls) == 1


@ways
def test_a_connection_that_is_lost_before_commit_is_tried_again(
    way: Way, server: PostgresServer
) -> None:
    """Work whose connection was killed in its midst is done again on another one."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            session.execute(PAY)
        return len(calls)

    assert way.run(server.url, work) == 2
    assert rows(server) == 1


@ways
def test_a_server_that_is_away_is_waited_for(way: Way, proxy: FaultProxy) -> None:
    """Work that found no server at the address is repeated until one is there."""
    proxy.refuse(existing="cut")
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        if len(calls) == 3:
            proxy.restore()
        session.execute(PAY)
        return len(calls)

    assert way.run(proxy.url, work) == 3


@ways
def test_a_commit_without_an_answer_is_not_tried_again(
    way: Way, proxy: FaultProxy, server: PostgresServer
) -> None:
    """It may have happened: the caller is told so, and it is not repeated."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        proxy.cut("after", "COMMIT")

    with pytest.raises(CommitUncertainError, match="may have been committed, or not") as caught:
        way.run(proxy.url, work)

    assert isinstance(caught.value.__cause__, DBAPIError)
    assert (len(calls), rows(server)) == (1, 1)


@halves
def test_idempotent_work_is_tried_again_after_a_commit_without_an_answer(
    way: Way, proxy: FaultProxy, server: PostgresServer
) -> None:
    """Who says that it does no harm gets it done, be it twice."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            proxy.cut("after", "COMMIT")
        return len(calls)

    assert way.run(proxy.url, work, idempotent=True) == 2
    assert rows(server) == 2
