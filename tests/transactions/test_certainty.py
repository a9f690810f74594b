"""Commits whose answer is lost: what became of them is found out, or said to be unknown."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from attrs import evolve
from sqlalchemy import MetaData, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from examples.transfers.models import Base as Accounts
from sessionfactory import (
    AfterCommitError,
    CommitUncertainError,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
    marker_table,
    on_commit,
    run_in_transaction,
)
from sessionfactory.testing import FaultProxy
from sessionfactory.transactions import markers, outcome, status
from tests.transactions.histories import SOON, TABLE, move_money, write_through_crashes
from tests.transactions.ways import HALVES, ONE, POSTGRESQL, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from sqlalchemy import URL

    from sessionfactory.testing import MariaDBServer, PostgresServer
    from sessionfactory.testing.proxy import Trigger, When

SIX: Final = PoolSettings(size=6, max_overflow=0)
PAY: Final = text("INSERT INTO paid VALUES (1)")
ways = pytest.mark.parametrize("way", POSTGRESQL, ids=str)
halves = pytest.mark.parametrize("way", HALVES, ids=str)
verifications = pytest.mark.parametrize("verify_commit", ["status", "marker"])


def pay(session: Session) -> None:
    """Do the least work that can be lost."""
    session.execute(PAY)


def rows(server: PostgresServer) -> int:
    """Return how many payments are committed."""
    return int(server.execute("SELECT count(*) FROM paid"))


@pytest.fixture(autouse=True)
def _markers(request: pytest.FixtureRequest) -> Generator[None]:
    """The table of markers, as a migration makes it, where the test has PostgreSQL."""
    if "server" not in request.fixturenames:
        yield
        return
    engine = create_engine(request.getfixturevalue("server").url)
    table = marker_table(MetaData())
    table.create(engine, checkfirst=True)
    yield
    table.drop(engine, checkfirst=True)
    engine.dispose()


class Base(DeclarativeBase):
    """The tables that are mapped here."""


class Paid(Base):
    """A payment, as an object."""

    __tablename__ = "paid"
    amount: Mapped[int] = mapped_column(primary_key=True)


@ways
@verifications
@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_a_commit_without_an_answer_is_certain(
    way: Way, verify_commit: str, when: When, proxy: FaultProxy, server: PostgresServer
) -> None:
    """Wherever the connection is cut at COMMIT, the work is done exactly once."""
    calls: list[int] = []
    cuts: list[Trigger] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if not cuts:
            cuts.append(proxy.cut(when, "COMMIT"))
        return len(calls)

    assert way.run(proxy.url, work, verify_commit=verify_commit) == (1 if when == "after" else 2)
    if when == "late":
        assert not cuts[0].release()  # the server had ended that connection before
    assert rows(server) == 1


@halves
@verifications
def test_a_commit_with_an_answer_is_as_ever(
    way: Way, verify_commit: str, server: PostgresServer
) -> None:
    """Without a fault, nothing else is seen."""
    way.run(server.url, pay, verify_commit=verify_commit)

    assert rows(server) == 1


@verifications
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_transaction_that_wrote_nothing_may_be_repeated(
    verify_commit: str, when: When, proxy: FaultProxy, server: PostgresServer
) -> None:
    """If nothing was written, nothing can be written twice; nor is there a marker."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(text("SELECT count(*) FROM paid"))
        if len(calls) == 1:
            proxy.cut(when, "COMMIT")
        return len(calls)

    assert Way("psycopg").run(proxy.url, work, verify_commit=verify_commit) == 2
    assert server.execute("SELECT count(*) FROM sessionfactory_commit") == "0"


@verifications
def test_what_was_found_out_looks_like_any_commit(verify_commit: Any, proxy: FaultProxy) -> None:
    """Objects can be read after it, and what listens to the commit is called, once."""
    heard: list[str] = []

    def committed(_: Session) -> None:
        heard.append("committed")

    def rolled_back(_: Session) -> None:
        heard.append("rolled back")

    def work(session: Session) -> Paid:
        event.listen(session, "after_commit", committed)
        event.listen(session, "after_rollback", rolled_back)
        paid = Paid(amount=7)
        session.add(paid)
        proxy.cut("after", "COMMIT")
        return paid

    with SqlAlchemySessionFactory(DatabaseSettings(proxy.url, pool=ONE)) as factory:
        paid = run_in_transaction(factory, work, verify_commit=verify_commit)
        assert paid.amount == 7
        with factory() as session:
            assert session.get(Paid, 7) is not None
        assert factory.status().in_use == 0
    assert heard == ["committed"]


@ways
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_to_follow_the_commit_follows_it(way: Way, when: When, proxy: FaultProxy) -> None:
    """Callbacks of ``on_commit`` run once, whether its answer came or was found out."""
    calls: list[int] = []
    told: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        number = len(calls)
        on_commit(session, lambda: told.append(number))
        session.execute(PAY)
        if number == 1:
            proxy.cut(when, "COMMIT")

    way.run(proxy.url, work, verify_commit="status")

    assert told == [len(calls)]


@halves
def test_what_fails_after_the_commit_is_not_repeated(way: Way, server: PostgresServer) -> None:
    """A callback that fails, be it in a conflict, leaves the transaction committed."""
    calls: list[int] = []
    other = create_engine(server.url)

    def fail() -> None:
        with other.begin() as connection:
            connection.exec_driver_sql(
                "DO $$ BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '40001'; END $$"
            )

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        on_commit(session, fail)

    try:
        with pytest.raises(AfterCommitError):
            way.run(server.url, work, verify_commit="marker")
    finally:
        other.dispose()
    assert (len(calls), rows(server)) == (1, 1)


OPTIONS: Final[list[dict[str, Any]]] = [
    {"isolation_level": "SERIALIZABLE"},
    {"local": {"app.tenant": "7"}, "statement_timeout": 5.0, "lock_timeout": 2.0},
    {"schema_translate_map": {"elsewhere": "public"}},
]


@verifications
@halves
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_views_with_options_are_certain(
    options: dict[str, Any],
    way: Way,
    verify_commit: str,
    proxy: FaultProxy,
    server: PostgresServer,
) -> None:
    """A view's transactions are as certain as those of its factory."""
    calls: list[int] = []

    def work(session: Session) -> Any:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            proxy.cut("after", "COMMIT")
        return session.scalar(text("SELECT current_setting('app.tenant', true)"))

    found = way.run(proxy.url, work, view=options, verify_commit=verify_commit)

    assert (found or None) == options.get("local", {}).get("app.tenant")
    assert (len(calls), rows(server)) == (1, 1)


@verifications
def test_read_only_views_write_no_marker(verify_commit: str, server: PostgresServer) -> None:
    """A transaction that cannot write needs no marker, and is not kept from its end."""

    def work(session: Session) -> Any:
        return session.scalar(text("SELECT count(*) FROM paid"))

    view = {"read_only": True}
    assert Way("psycopg").run(server.url, work, view=view, verify_commit=verify_commit) == 0


@verifications
def test_a_commit_of_the_work_itself_is_certain(
    verify_commit: str, proxy: FaultProxy, server: PostgresServer
) -> None:
    """Nor does it matter who has committed."""

    def work(session: Session) -> str:
        session.execute(PAY)
        proxy.cut("after", "COMMIT")
        session.commit()
        return "done"

    assert Way("psycopg").run(proxy.url, work, verify_commit=verify_commit) == "done"
    assert rows(server) == 1


@verifications
def test_savepoints_are_no_commits(
    verify_commit: str, proxy: FaultProxy, server: PostgresServer
) -> None:
    """What was written in a savepoint only is written by the transaction."""

    def work(session: Session) -> None:
        with session.begin_nested():
            session.execute(PAY)
        with suppress(DBAPIError), session.begin_nested():
            session.execute(PAY)
            session.execute(text("SELECT 1/0"))
        proxy.cut("after", "COMMIT")

    Way("psycopg").run(proxy.url, work, verify_commit=verify_commit)

    assert rows(server) == 1


@verifications
def test_a_refusal_at_commit_is_an_answer(verify_commit: str, server: PostgresServer) -> None:
    """What the server refuses at COMMIT did not happen, and nobody has to ask."""
    server.execute("""
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON paid DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail('40001')
    """)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)

    with pytest.raises(OperationalError):
        Way("psycopg").run(server.url, work, verify_commit=verify_commit, attempts=2)

    assert (len(calls), rows(server)) == (2, 0)


@verifications
def test_afterwards_the_connection_serves_others(verify_commit: Any, proxy: FaultProxy) -> None:
    """Transactions that are not watched are left alone, on the same connection, too."""
    with SqlAlchemySessionFactory(DatabaseSettings(proxy.url, pool=ONE)) as factory:
        run_in_transaction(factory, pay, verify_commit=verify_commit)
        with proxy.counting() as count, factory.begin() as session:
            session.execute(PAY)
        assert count.statements == ["BEGIN", "INSERT INTO paid VALUES (1)", "COMMIT"]
        proxy.cut("after", "COMMIT")
        with pytest.raises(OperationalError), factory.begin() as session:
            session.execute(PAY)


def test_a_watch_that_was_not_used_up_asks_for_nobody(server: PostgresServer) -> None:
    """A COMMIT that a listener prevented leaves nothing to the next transaction's."""
    engine = create_engine(server.url, pool_size=1, max_overflow=0)
    sessions = sessionmaker(engine)
    fail = [True]

    def refuse(_: object) -> None:
        if fail.pop():
            raise ValueError("not now")

    def work(session: Session) -> None:
        session.execute(PAY)
        # After the watch's own listener, and before the COMMIT.
        event.listen(session.connection(), "commit", refuse)

    try:
        with pytest.raises(ValueError, match="not now"):
            run_in_transaction(sessions, work, verify_commit="status")
        with sessions.begin() as session:
            session.execute(PAY)
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            with pytest.raises(OperationalError):
                session.commit()
    finally:
        engine.dispose()
    assert rows(server) == 0


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
    """An id may have been given out twice, so that its status says nothing; the caller is told."""
    with (
        FaultProxy(crashing.url) as proxy,
        pytest.raises(CommitUncertainError, match="has crashed or was replaced meanwhile"),
    ):
        between_commit_and_question(proxy, when, lambda: crash(crashing), verify_commit="status")

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
    """If nobody can be asked until the time is over, the caller is told that it is unknown."""
    monkeypatch.setattr(outcome, "_PATIENCE", 0.1)

    with pytest.raises(CommitUncertainError, match="the database could not be asked") as caught:
        between_commit_and_question(
            proxy, "after", proxy.refuse, verify_commit=verify_commit, timeout=0.1
        )

    assert isinstance(caught.value.__cause__, DBAPIError)


def test_a_server_that_comes_back_is_asked(proxy: FaultProxy, server: PostgresServer) -> None:
    """The question is asked again until there is somebody to answer it."""
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

    with pytest.raises(CommitUncertainError, match=r"could not be asked \(ProgrammingError\)"):
        between_commit_and_question(proxy, "after", drop, verify_commit="marker")


def test_the_status_of_a_transaction_in_progress(server: PostgresServer) -> None:
    """While a process that cannot be ended works on it, nothing is settled; then it is."""
    engine = create_engine(server.url)
    try:
        with engine.connect() as connection:
            connection.execute(PAY)
            asked = status.prepare(connection)
            assert isinstance(asked, status.Status)
            out_of_reach = evolve(asked, pid=0)
            assert out_of_reach.ask(engine) == (None, "the server still works on it")
            connection.commit()
            assert out_of_reach.ask(engine) == ("committed", "")
            assert evolve(asked, xid="4000000000000").ask(engine) == ("rolled back", "")
            with pytest.raises(DBAPIError):
                evolve(asked, xid="9" * 25).ask(engine)
    finally:
        engine.dispose()


# The table of markers


@halves
def test_the_table_of_markers_is_made_when_it_is_missing(way: Way, server: PostgresServer) -> None:
    """The first transaction finds no table, and is done again; that is no attempt that counts."""
    server.execute("DROP TABLE sessionfactory_commit")
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        return len(calls)

    assert way.run(server.url, work, verify_commit="marker", attempts=1) == 2
    assert way.run(server.url, work, verify_commit="marker", attempts=1) == 3
    assert rows(server) == 2


def test_there_is_no_limit_to_count_against(server: PostgresServer) -> None:
    """The table is made as well where attempts are not counted."""
    server.execute("DROP TABLE sessionfactory_commit")

    Way("psycopg").run(server.url, pay, verify_commit="marker", attempts=None)

    assert rows(server) == 1


def test_a_connection_that_is_lost_before_its_marker(server: PostgresServer) -> None:
    """A marker that cannot be written is no COMMIT: the work is done again."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        return len(calls)

    assert Way("psycopg").run(server.url, work, verify_commit="marker") == 2
    assert rows(server) == 1


def test_making_the_table_may_be_tried_again(proxy: FaultProxy, server: PostgresServer) -> None:
    """If the connection is lost while the table is made, it is made the next time."""
    server.execute("DROP TABLE sessionfactory_commit")
    proxy.cut("before", "CREATE TABLE")

    Way("psycopg").run(proxy.url, pay, verify_commit="marker")

    assert rows(server) == 1
    assert server.execute("SELECT count(*) FROM sessionfactory_commit") == "1"


def test_somebody_else_may_make_the_table_at_the_same_time(server: PostgresServer) -> None:
    """Of two that make it, the slower one goes on with the other's."""
    server.execute("DROP TABLE sessionfactory_commit")
    engine = create_engine(server.url)

    @event.listens_for(engine, "before_cursor_execute")
    def be_faster(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().startswith("CREATE TABLE"):
            with server_engine.begin() as connection:
                marker_table(MetaData()).create(connection)

    server_engine = create_engine(server.url)
    try:
        run_in_transaction(sessionmaker(engine), pay, verify_commit="marker")
    finally:
        engine.dispose()
        server_engine.dispose()
    assert rows(server) == 1


@pytest.fixture
def poor(server: PostgresServer) -> Generator[URL]:
    """The URL of a role that may write payments, and make no tables."""
    server.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'; GRANT INSERT ON paid TO poor")
    yield make_url(server.url).set(username="poor", password="poor")
    server.execute("DROP OWNED BY poor; DROP ROLE poor")


def test_a_role_that_may_not_make_the_table_is_told(poor: URL, server: PostgresServer) -> None:
    """The error is the database's, and says what to do."""
    server.execute("DROP TABLE sessionfactory_commit")

    with pytest.raises(DBAPIError, match="does not exist") as caught:
        Way("psycopg").run(poor, pay, verify_commit="marker")

    told = "\n".join(caught.value.__notes__)
    assert "have a migration create it, by marker_table()" in told
    assert rows(server) == 0


def test_a_role_that_may_not_use_the_table_is_told(poor: URL, server: PostgresServer) -> None:
    """The error is the database's."""
    with pytest.raises(DBAPIError, match="permission denied for table sessionfactory_commit"):
        Way("psycopg").run(poor, pay, verify_commit="marker")

    assert rows(server) == 0


def test_old_markers_are_deleted(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, what nobody asks for any more is deleted; young ones stay."""
    monkeypatch.setattr(markers, "_CLEANING", 1.0)
    server.execute(f"""
        INSERT INTO sessionfactory_commit
        SELECT name, extract(epoch FROM now()) - age, false
        FROM (VALUES ('old', {markers.KEPT + 60}), ('young', 60)) AS v (name, age)
    """)

    Way("psycopg").run(server.url, pay, verify_commit="marker")

    assert server.execute("SELECT count(*) FROM sessionfactory_commit") == "2"
    assert server.execute("SELECT count(*) FROM sessionfactory_commit WHERE id = 'young'") == "1"


def test_markers_are_in_the_default_schema(proxy: FaultProxy, server: PostgresServer) -> None:
    """Whatever schema a transaction works in, markers are looked for where they were written."""
    server.execute("CREATE SCHEMA tenant; CREATE TABLE tenant.paid (amount int)")
    engine = create_engine(proxy.url)
    mapped = engine.execution_options(schema_translate_map={None: "tenant", "public": "tenant"})

    def work(session: Session) -> None:
        session.execute(text("SET LOCAL search_path = tenant"))
        session.execute(PAY)
        proxy.cut("after", "COMMIT")

    try:
        run_in_transaction(sessionmaker(mapped), work, verify_commit="marker")
        assert server.execute("SELECT count(*) FROM tenant.paid") == "1"
        assert server.execute("SELECT count(*) FROM public.sessionfactory_commit") == "1"
    finally:
        engine.dispose()
        server.execute("DROP SCHEMA tenant CASCADE")


def test_a_fence_is_not_taken_for_a_marker(server: PostgresServer) -> None:
    """Who asks twice, because his own answer was lost, gets the same answer."""
    engine = create_engine(server.url)
    try:
        asked = markers.Marker(marker_table(MetaData()), "0" * 32)
        assert asked.ask(engine) == ("rolled back", "")
        assert asked.ask(engine) == ("rolled back", "")
    finally:
        engine.dispose()


# Other databases


@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_markers_on_mariadb(when: When, mariadb_server: MariaDBServer) -> None:
    """Markers make commits certain elsewhere, too: a COMMIT on its way is waited for."""
    look = create_engine(mariadb_server.url)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            proxy.cut(when, "COMMIT", delay=0.1 if when == "late" else None)

    with FaultProxy(mariadb_server.url) as proxy, look.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE paid (amount int)")
        try:
            marker_table(MetaData()).create(look)
            Way("pymysql").run(proxy.url, work, verify_commit="marker")
            assert connection.exec_driver_sql("SELECT count(*) FROM paid").scalar() == 1
        finally:
            connection.rollback()
            connection.exec_driver_sql("DROP TABLE IF EXISTS paid, sessionfactory_commit")
    look.dispose()
    assert len(calls) == (2 if when == "before" else 1)


def test_the_status_elsewhere_is_uncertain(mariadb_server: MariaDBServer) -> None:
    """A database that keeps no status of transactions leaves a lost COMMIT uncertain."""
    look = create_engine(mariadb_server.url)

    def work(session: Session) -> None:
        session.execute(PAY)
        proxy.cut("after", "COMMIT")

    with FaultProxy(mariadb_server.url) as proxy, look.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE paid (amount int)")
        try:
            with pytest.raises(CommitUncertainError):
                Way("pymysql").run(proxy.url, work, verify_commit="status")
        finally:
            connection.exec_driver_sql("DROP TABLE paid")
    look.dispose()


@verifications
def test_sqlite_has_nothing_to_verify(verify_commit: str, tmp_path: Path) -> None:
    """A file's COMMIT cannot be lost: nothing is written beside the work's own."""
    url = f"sqlite:///{tmp_path / 'app.db'}"

    def work(session: Session) -> None:
        session.execute(text("CREATE TABLE paid (amount int)"))
        session.execute(PAY)

    Way("pysqlite").run(url, work, verify_commit=verify_commit)

    engine = create_engine(url)
    assert inspect(engine).get_table_names() == ["paid"]
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
