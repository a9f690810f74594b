"""Where in its commit a transaction fails decides whether it is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg.errors import SerializationFailure
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    CommitUncertainError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    run_in_transaction,
)
from sessionfactory.drivers.commit_stage import stage_of
from tests.support.payments import PAY, Paid, fail_at_commit, failing, rows
from tests.support.ways import HALVES, Way

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory.testing import FaultProxy, PostgresServer


halves = pytest.mark.parametrize("way", HALVES, ids=str)


@halves
def test_work_that_commits_itself_is_not_repeated(way: Way, server: PostgresServer) -> None:
    """What fails after the work has committed on its own account is not done again."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        session.commit()
        raise OperationalError("x", {}, _conflict())

    with pytest.raises(OperationalError):
        way.run(server.url, work)

    assert (len(calls), rows(server)) == (1, 1)


@halves
def test_work_that_commits_itself_without_an_answer_is_not_repeated(
    way: Way, proxy: FaultProxy, server: PostgresServer
) -> None:
    """Nor is it where the work's own commit had no answer."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        proxy.cut("after", "COMMIT")
        session.commit()

    with pytest.raises(CommitUncertainError):
        way.run(proxy.url, work)

    assert (len(calls), rows(server)) == (1, 1)


@halves
def test_what_the_caller_handles_is_not_the_works(way: Way, server: PostgresServer) -> None:
    """A conflict at COMMIT that the caller handles does not count for the next transaction."""
    server.execute("CREATE TABLE other (LIKE paid)")
    server.execute("""
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON other DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail('40001')
    """)
    calls: list[int] = []
    engine = create_engine(server.url)

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        session.commit()
        raise OperationalError("x", {}, _conflict())

    try:
        with Session(engine) as session:
            session.execute(text("INSERT INTO other VALUES (1)"))
            session.commit()
    except OperationalError:
        with pytest.raises(OperationalError):
            way.run(server.url, work)
    finally:
        engine.dispose()
        server.execute("DROP TABLE other")

    assert (len(calls), rows(server)) == (1, 1)


def test_work_that_rolls_back_itself_is_repeated_only_if_idempotent(
    factory: SqlAlchemySessionFactory,
) -> None:
    """Whether it had committed before cannot be seen, and so it has to be said."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        try:
            if len(calls) < 3:
                failing(session, "40001")
        except DBAPIError:
            session.rollback()
            raise
        return len(calls)

    with pytest.raises(OperationalError):
        run_in_transaction(factory, work)
    assert run_in_transaction(factory, work, idempotent=True) == 3


def test_another_transaction_in_the_work_is_not_repeated_either(
    proxy: FaultProxy, server: PostgresServer, factory: SqlAlchemySessionFactory
) -> None:
    """If a COMMIT within the work had no answer, the work as a whole is not done again."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        proxy.cut("after", "COMMIT")
        with inner.begin() as other:
            other.execute(PAY)

    with (
        SqlAlchemySessionFactory(DatabaseSettings(proxy.url)) as inner,
        pytest.raises(CommitUncertainError),
    ):
        run_in_transaction(factory, work)

    assert (len(calls), rows(server)) == (1, 1)


def _conflict() -> Exception:
    """Return an error of psycopg's that would be tried again."""
    return SerializationFailure("recorded")


@pytest.mark.parametrize("where", ["before_commit", "after_commit"])
def test_a_listener_fails(where: str, server: PostgresServer) -> None:
    """A conflict that a listener meets before COMMIT is tried again; after it, it is not."""
    calls: list[int] = []
    engine = create_engine(server.url)
    sessions = sessionmaker(engine)

    @event.listens_for(sessions, where)
    def fail(_: Session) -> None:
        if len(calls) == 1:
            with Session(engine) as other:
                failing(other, "40001")

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        return len(calls)

    try:
        if where == "before_commit":
            assert run_in_transaction(sessions, work) == 2
        else:
            with pytest.raises(OperationalError):
                run_in_transaction(sessions, work)
    finally:
        engine.dispose()

    assert len(calls) == (2 if where == "before_commit" else 1)
    assert rows(server) == 1


def test_a_listener_of_the_connection_fails(server: PostgresServer) -> None:
    """A conflict of a listener to the engine's COMMIT comes before it, and is tried again."""
    calls: list[int] = []
    engine = create_engine(server.url)

    @event.listens_for(engine, "commit")
    def fail(connection: Any) -> None:
        if len(calls) == 1:
            connection.exec_driver_sql(
                "DO $$ BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '40001'; END $$"
            )

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        return len(calls)

    try:
        assert run_in_transaction(sessionmaker(engine), work) == 2
    finally:
        engine.dispose()
    assert rows(server) == 1


def test_the_flush_that_comes_with_the_commit_is_tried_again(server: PostgresServer) -> None:
    """A conflict in the last flush, which the scope's end does, is tried again."""
    server.execute("""
        CREATE TRIGGER refuse BEFORE INSERT ON paid
        FOR EACH ROW WHEN (NEW.amount = 1) EXECUTE FUNCTION fail('40001')
    """)
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.add(Paid(amount=len(calls)))
        return len(calls)

    with SqlAlchemySessionFactory(DatabaseSettings(server.url)) as factory:
        assert run_in_transaction(factory, work) == 2
    assert rows(server) == 1


def test_a_session_on_two_databases_is_not_repeated_when_one_may_have_committed(
    server: PostgresServer, tmp_path: Path
) -> None:
    """If one of two databases refuses the COMMIT, the other one may have committed."""
    fail_at_commit(server, "40001")
    calls: list[int] = []
    engine, other = create_engine(server.url), create_engine(f"sqlite:///{tmp_path / 'other.db'}")

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        session.connection(bind_arguments={"bind": other})

    try:
        with pytest.raises(CommitUncertainError):
            run_in_transaction(sessionmaker(engine), work)
    finally:
        engine.dispose()
        other.dispose()
    assert len(calls) == 1


def test_statements_that_commit_themselves_are_not_repeated(server: PostgresServer) -> None:
    """Under AUTOCOMMIT, what came before the conflict is committed, and is not done again."""
    calls: list[int] = []
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        failing(session, "40001")

    try:
        with pytest.raises(OperationalError):
            run_in_transaction(sessionmaker(engine), work)
    finally:
        engine.dispose()
    assert (len(calls), rows(server)) == (1, 1)


def test_a_session_that_refuses_to_commit_has_not_committed() -> None:
    """What the session itself says comes before the COMMIT."""
    with pytest.raises(InvalidRequestError) as caught:
        Session(autobegin=False).commit()

    assert stage_of(caught.value) == "before"


def test_the_first_commit_of_the_work_fails(
    factory: SqlAlchemySessionFactory, server: PostgresServer
) -> None:
    """Work whose own first commit fails in the flush has saved nothing, and is repeated."""
    server.execute("""
        CREATE TRIGGER refuse BEFORE INSERT ON paid
        FOR EACH ROW WHEN (NEW.amount = 1) EXECUTE FUNCTION fail('40001')
    """)
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.add(Paid(amount=len(calls)))
        session.commit()
        return len(calls)

    assert run_in_transaction(factory, work) == 2
    assert rows(server) == 1


@pytest.mark.filterwarnings("ignore:transaction already deassociated")  # SQLAlchemy's own
def test_one_of_two_databases_has_committed_before_the_other_begins_to(
    server: PostgresServer, factory: SqlAlchemySessionFactory, tmp_path: Path
) -> None:
    """An error between the COMMITs of two databases is not repeated: one of them has committed."""
    calls: list[int] = []
    other = SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{tmp_path / 'other.db'}"))
    engines = [factory.engine, other.engine]
    begun: list[Any] = []

    def fail_second(connection: Any) -> None:
        begun.append(connection)
        if len(begun) == 2:
            raise OperationalError("x", {}, _conflict())

    for engine in engines:
        event.listen(engine, "commit", fail_second)

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        session.connection(bind_arguments={"bind": other.engine}).execute(text("SELECT 1"))

    with other, pytest.raises(OperationalError):
        run_in_transaction(factory, work)

    assert len(calls) == 1
