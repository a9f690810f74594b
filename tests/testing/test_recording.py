"""A recording factory tells what was done with its sessions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.testing.recording._session_log import Statement
from sessionfactory.testing.recording.recording import Recording, RecordingSessionFactory

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

INSERT = text("INSERT INTO t VALUES (1)")
READ = text("SELECT a FROM t")


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture
def recorder(factory: SqlAlchemySessionFactory) -> RecordingSessionFactory:
    """A recorder of a factory on a SQLite file with a table ``t(a)``."""
    return RecordingSessionFactory(factory)


def test_one_transaction_and_no_write(recorder: RecordingSessionFactory) -> None:
    """The assertion that all this is for."""
    with recorder.begin() as session:
        session.execute(READ)

    recording = recorder.recording
    assert recording.transactions == 1, recording
    assert not recording.writes, recording
    assert (recording.sessions, recording.closed, recording.commits) == (1, 1, 1)
    assert recording.rollbacks == 0
    assert recording.statements == (Statement("SELECT a FROM t"),)


def test_the_log_tells_everything_in_order(recorder: RecordingSessionFactory) -> None:
    """A failing assertion shows who did what, and where."""
    with recorder.begin() as session:
        session.execute(text("INSERT INTO t\n  VALUES (:a)"), [{"a": 1}, {"a": 2}])
    with recorder() as session:
        session.execute(READ)

    head, *log = str(recorder.recording).splitlines()
    assert head == (
        "<Recording: sessions=2 closed=2 transactions=2 commits=1 rollbacks=1 "
        "statements=2 writes=1>"
    )
    assert head == repr(recorder.recording)
    place = f"at {__file__}:"
    assert [line.partition(place)[0].strip() for line in log] == [
        "session 1 opened",
        "session 1 began",
        "session 1 sent INSERT INTO t VALUES (?) (2 rows)",
        "session 1 committed",
        "session 1 closed",
        "session 2 opened",
        "session 2 began",
        "session 2 sent SELECT a FROM t",
        "session 2 rolled back",
        "session 2 closed",
    ]
    assert log[0].endswith("in test_the_log_tells_everything_in_order")


def test_a_session_without_statements_has_no_transaction(
    recorder: RecordingSessionFactory,
) -> None:
    """Only what reached the database counts."""
    with recorder.begin():
        pass
    assert (recorder.recording.sessions, recorder.recording.transactions) == (1, 0)


def test_savepoints_are_no_transactions(recorder: RecordingSessionFactory) -> None:
    """Neither kept nor dropped ones, and what makes them is not listed."""
    with recorder.begin() as session:
        with session.begin_nested():
            session.execute(INSERT)
        session.begin_nested().rollback()

    recording = recorder.recording
    assert (recording.transactions, recording.commits, recording.rollbacks) == (1, 1, 0)
    assert [str(statement) for statement in recording.statements] == [INSERT.text]


def test_errors_roll_back(recorder: RecordingSessionFactory) -> None:
    """A failed block is no commit, even after a savepoint that was kept; what failed was sent."""
    with pytest.raises(DBAPIError), recorder.begin() as session:
        with session.begin_nested():
            session.execute(READ)
        session.execute(text("INSERT INTO nowhere VALUES (1)"))

    recording = recorder.recording
    assert (recording.transactions, recording.commits, recording.rollbacks) == (1, 0, 1)
    assert [statement.sql for statement in recording.writes] == ["INSERT INTO nowhere VALUES (1)"]


def test_a_session_may_have_many_transactions(recorder: RecordingSessionFactory) -> None:
    """Each is counted, and closing twice is closing once."""
    with recorder() as session:
        session.execute(INSERT)
        session.commit()
        session.execute(INSERT)
        session.rollback()
        session.close()

    recording = recorder.recording
    assert (recording.transactions, recording.commits, recording.rollbacks) == (2, 1, 1)
    assert (recording.sessions, recording.closed) == (1, 1)


def test_a_long_list_of_rows_is_one_statement(recorder: RecordingSessionFactory) -> None:
    """Even where SQLAlchemy sends it in pieces."""
    with recorder.begin() as session:
        Base.metadata.create_all(session.connection())
    recorder.recording.reset()
    rows = [{"name": str(number)} for number in range(1500)]
    with recorder.begin() as session:
        session.scalars(insert(Thing).returning(Thing.id), rows).all()
        session.add_all([Thing(name="a"), Thing(name="b")])

    assert [statement.rows for statement in recorder.recording.writes] == [1500, 2]


def test_reset_forgets(recorder: RecordingSessionFactory) -> None:
    """What is still open is recorded on."""
    with recorder.begin() as session:
        session.execute(INSERT)
        recorder.recording.reset()
        assert len(recorder.recording.held) == 1
        session.execute(READ)

    recording = recorder.recording
    assert (recording.sessions, recording.transactions, recording.commits) == (0, 0, 1)
    assert not recording.writes
    recording.reset()
    assert not recording.held


def test_who_holds_connections_longest(recorder: RecordingSessionFactory) -> None:
    """The longest is first, with the place where its session was opened, and its thread."""
    with recorder() as outer:
        outer.execute(READ)
        with recorder() as inner:
            inner.execute(READ)
        first, second = recorder.recording.held
    assert first.held > second.held > 0
    assert "in test_who_holds_connections_longest" in first.where
    assert first.owner == "thread MainThread"


def test_a_thread_of_libraries_only_has_no_place() -> None:
    """Where no line of a user's is on the stack, none is made up."""
    recording = Recording()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sessionfactory.pool.call_sites.user_frame", lambda: None)
        recording.listen(Session())
    assert str(recording).endswith("session 1 opened at unknown")


def test_threads_are_recorded_together(recorder: RecordingSessionFactory) -> None:
    """Nothing is lost between threads."""

    def read(_: int) -> None:
        with recorder() as session:
            session.execute(READ)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(80)))

    recording = recorder.recording
    assert recording.sessions == recording.closed == recording.rollbacks == 80
    assert len(recording.statements) == 80
    assert len(recording.held) == 80


def test_sessions_on_one_connection_are_heard_once() -> None:
    """As in a fake that keeps all in one transaction; after them, the connection is left alone."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        recorder = RecordingSessionFactory(sessionmaker(connection))
        with recorder() as one, recorder() as two:
            one.execute(text("SELECT 1"))
            two.execute(text("SELECT 2"))
            one.execute(text("SELECT 3"))
        connection.execute(text("SELECT 4"))
    engine.dispose()

    assert [statement.sql[-1] for statement in recorder.recording.statements] == ["1", "2", "3"]


def test_the_reader_writes_into_the_same_recording(postgres_server: PostgresServer) -> None:
    """What is read elsewhere is part of the story."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        with RecordingSessionFactory(factory) as recorder, recorder.reader.begin() as session:
            session.execute(text("SELECT 1"))
        assert recorder.recording.transactions == 1
        assert recorder.inner is factory


def test_without_a_reader_there_is_none() -> None:
    """The recorder has what its inner factory has."""
    assert not hasattr(RecordingSessionFactory(sessionmaker()), "reader")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  -- INSERT INTO t\n select a /* into */ from t where b = 'it''s; delete from t'",
        "(SELECT 1) UNION (SELECT 2)",
        "SELECT a FROM t WHERE b = 1 FOR UPDATE",
        'SELECT "into" FROM t',
        "WITH x AS (SELECT 1) SELECT * FROM x FOR NO KEY UPDATE",
        "EXPLAIN SELECT 1",
        "SET LOCAL statement_timeout = 5",
        "PRAGMA foreign_keys",
        "VALUES (1)",
    ],
)
def test_what_reads(sql: str) -> None:
    """Comments, names and texts do not write."""
    assert not Statement(sql).writes


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "/* SELECT */ update t set a = 1",
        "WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x",
        "WITH x AS (SELECT 1)\nUPDATE t\nSET a = 1",
        "SELECT a INTO u FROM t",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "CREATE TABLE t (a INTEGER)",
        "CALL anything()",
        "",
    ],
)
def test_what_writes(sql: str) -> None:
    """Schema counts, and so does what cannot be parsed."""
    assert Statement(sql).writes
