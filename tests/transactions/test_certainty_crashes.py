"""What is certain when the server crashes, or cannot be asked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from attrs import evolve
from sqlalchemy import MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from examples.transfers.models import Base as Accounts
from sessionfactory import (
    CommitUncertainError,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
    marker_table,
    run_in_transaction,
)
from sessionfactory.testing import FaultProxy
from sessionfactory.transactions.verification import postgres_status, watch
from tests.support.histories import SOON, TABLE, move_money, write_through_crashes
from tests.support.payments import PAY, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.testing import PostgresServer
    from sessionfactory.testing.proxy._trigger import When

pytestmark = pytest.mark.usefixtures("markers")
SIX: Final = PoolSettings(size=6, max_overflow=0)


verifications = pytest.mark.parametrize("verify_commit", ["status", "marker"])


@pytest.fixture
def crashing(own_postgres: PostgresServer) -> Generator[PostgresServer]:
    """A server of one's own to crash, with the tables of these tests."""
    own_postgres.execute("CREATE TABLE paid (amount int)")
    yield own_postgres
    own_postgres.execute("DROP TABLE IF EXISTS paid, sessionfactory_commit")


def between_commit_and_question(
    proxy: FaultProxy, when: When, happens: Callable[[], object], **options: Any
) -> list[int]:
    """Cut a COMMIT, and have something happen before anybody asks about it; return the calls."""
    calls: list[int] = []
    engine = create_engine(proxy.url, pool_size=1, max_overflow=0)
    event.listen(engine, "invalidate", lambda *_: happens(), once=True)

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            proxy.cut(when, "COMMIT")

    try:
        run_in_transaction(sessionmaker(engine), work, **options)
    finally:
        engine.dispose()
    return calls


def crash(server: PostgresServer) -> None:
    """Kill the server, bring it up again, and give transaction ids away a second time."""
    server.stop("immediate")
    server.start()
    for _ in range(5):
        server.execute("SELECT pg_current_xact_id()")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_makes_the_status_uncertain(when: When, crashing: PostgresServer) -> None:
    """An id may have been given out twice, so that its status says nothing; the caller is told.

    Only that it was aborted is certain: of a COMMIT that never came, if the server noticed that,
    and wrote it down, before it crashed. Then the work is done again.
    """
    uncertain: CommitUncertainError | None = None
    calls: list[int] = []
    with FaultProxy(crashing.url) as proxy:
        try:
            calls = between_commit_and_question(
                proxy, when, lambda: crash(crashing), verify_commit="status"
            )
        except CommitUncertainError as error:
            uncertain = error

    if uncertain is None:
        assert (when, len(calls), rows(crashing)) == ("before", 2, 1)
    else:
        assert "has crashed or was replaced since" in str(uncertain)
        assert rows(crashing) == (1 if when == "after" else 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_leaves_markers_certain(when: When, crashing: PostgresServer) -> None:
    """A marker is there or not, whatever has happened to the server."""
    with FaultProxy(crashing.url) as proxy:
        engine = create_engine(crashing.url)
        marker_table(MetaData()).create(engine)
        engine.dispose()
        calls = between_commit_and_question(
            proxy, when, lambda: crash(crashing), verify_commit="marker"
        )

    assert (len(calls), rows(crashing)) == (1 if when == "after" else 2, 1)


@verifications
def test_a_server_that_stays_away_leaves_it_open(
    verify_commit: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no server is reachable until the deadline, the outcome is unknown."""
    monkeypatch.setattr(watch, "_LEAST_WAIT", 0.1)

    with pytest.raises(CommitUncertainError, match="the database could not be queried") as caught:
        between_commit_and_question(
            proxy, "after", proxy.refuse, verify_commit=verify_commit, timeout=0.1
        )

    assert isinstance(caught.value.__cause__, DBAPIError)


def test_a_server_that_comes_back_is_asked(proxy: FaultProxy, server: PostgresServer) -> None:
    """The verification is repeated until a server responds."""
    back = threading.Timer(0.05, proxy.restore)

    def go_away() -> None:
        proxy.refuse()
        back.start()

    calls = between_commit_and_question(proxy, "after", go_away, verify_commit="status")

    back.join()
    assert (len(calls), rows(server)) == (1, 1)


def test_a_question_that_is_refused_leaves_it_open(
    proxy: FaultProxy, server: PostgresServer
) -> None:
    """An answer that will not change is not waited for."""

    def drop() -> None:
        server.execute("DROP TABLE sessionfactory_commit")

    with pytest.raises(CommitUncertainError, match=r"could not be queried \(ProgrammingError\)"):
        between_commit_and_question(proxy, "after", drop, verify_commit="marker")


def test_the_status_of_a_transaction_in_progress(server: PostgresServer) -> None:
    """While a process that cannot be ended works on it, nothing is settled; then it is."""
    engine = create_engine(server.url)
    try:
        with engine.connect() as connection:
            connection.execute(PAY)
            asked = postgres_status.prepare(connection)
            assert isinstance(asked, postgres_status.Status)
            out_of_reach = evolve(asked, pid=0)
            assert out_of_reach.find(engine) == (None, "the server still executes it")
            connection.commit()
            assert out_of_reach.find(engine) == ("committed", "")
            assert evolve(asked, xid="4000000000000").find(engine) == ("rolled back", "")
            with pytest.raises(DBAPIError):
                evolve(asked, xid="9" * 25).find(engine)
    finally:
        engine.dispose()


@verifications
def test_a_crash_under_writers(verify_commit: str, crashing: PostgresServer) -> None:
    """Nothing is duplicated, nothing lost, and what is uncertain is named; markers know it all."""
    crashing.execute(TABLE)
    try:
        with SqlAlchemySessionFactory(DatabaseSettings(crashing.url, pool=SIX)) as factory:
            history = write_through_crashes(factory, crashing, 1, verify_commit=verify_commit)
        assert history.faults(crashing) == ([], set(), set())
        assert verify_commit == "status" or not history.uncertain
    finally:
        crashing.execute("DROP TABLE history")


def test_books_are_exact_under_random_faults(proxy: FaultProxy, server: PostgresServer) -> None:
    """Deadlocks, lost connections and lost commits: the sum is exact, and nothing is done twice."""
    url = proxy.url.update_query_dict(SOON)
    with SqlAlchemySessionFactory(DatabaseSettings(url, pool=SIX)) as factory:
        Accounts.metadata.create_all(factory.engine)
        try:
            bank, done = move_money(factory, proxy, server, 100)
            books = bank.books()
        finally:
            proxy.restore()
            Accounts.metadata.drop_all(factory.engine)
    assert books.total == 4 * 1000
    assert books.references == dict.fromkeys(done, 1)
