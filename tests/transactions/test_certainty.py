"""Commits whose answer is lost: what became of them is found out, or said to be unknown."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    AfterCommitError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    on_commit,
    run_in_transaction,
)
from tests.support.payments import PAY, Paid, pay, rows
from tests.support.ways import HALVES, ONE, POSTGRESQL, Way

if TYPE_CHECKING:
    from sessionfactory.testing import FaultProxy, PostgresServer
    from sessionfactory.testing.proxy._trigger import Trigger, When

pytestmark = pytest.mark.usefixtures("markers")
ways = pytest.mark.parametrize("way", POSTGRESQL, ids=str)
halves = pytest.mark.parametrize("way", HALVES, ids=str)
verifications = pytest.mark.parametrize("verify_commit", ["status", "marker"])


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


@ways
@verifications
def test_a_notification_is_sent_once(
    way: Way, verify_commit: str, proxy: FaultProxy, server: PostgresServer
) -> None:
    """NOTIFY has no transaction id before COMMIT, and yet is not repeated after a lost reply."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(text("SELECT pg_notify('paid', 'seven')"))
        proxy.cut("after", "COMMIT")

    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as listening:
        listening.execute("LISTEN paid")
        way.run(proxy.url, work, verify_commit=verify_commit)
        received = [each.payload for each in listening.notifies(timeout=0.2)]
    assert (len(calls), received) == (1, ["seven"])


@verifications
def test_a_foreign_table_is_written_once(
    verify_commit: str, proxy: FaultProxy, server: PostgresServer
) -> None:
    """What a foreign data wrapper writes needs no transaction id, and yet is not repeated."""
    address = make_url(server.url)
    server.execute(f"""
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER same FOREIGN DATA WRAPPER postgres_fdw
        OPTIONS (host '{address.host}', port '{address.port}', dbname '{address.database}');
        CREATE USER MAPPING FOR CURRENT_USER SERVER same
        OPTIONS (user '{address.username}', password '{address.password or ""}');
        CREATE SCHEMA elsewhere;
        CREATE FOREIGN TABLE elsewhere.paid (amount int) SERVER same
        OPTIONS (schema_name 'public', table_name 'paid');
    """)

    def work(session: Session) -> None:
        session.execute(text("INSERT INTO elsewhere.paid VALUES (1)"))
        proxy.cut("after", "COMMIT")

    try:
        Way("psycopg").run(proxy.url, work, verify_commit=verify_commit)
        assert rows(server) == 1
    finally:
        server.execute("DROP SCHEMA elsewhere CASCADE; DROP EXTENSION postgres_fdw CASCADE")


@verifications
@pytest.mark.parametrize("view", [{"read_only": True}, {}], ids=["read-only", "plain"])
def test_a_transaction_that_only_reads_is_certain(
    verify_commit: str, view: dict[str, Any], proxy: FaultProxy
) -> None:
    """A read whose COMMIT is lost has its result, by its status or its marker."""
    cuts: list[Trigger] = []

    def work(session: Session) -> object:
        session.execute(text("SELECT pg_notify('paid', 'seven')"))
        if not cuts:
            cuts.append(proxy.cut("after", "COMMIT"))
        return session.scalar(text("SELECT count(*) FROM paid"))

    assert Way("psycopg").run(proxy.url, work, verify_commit=verify_commit, view=view) == 0
    assert cuts[0].fired


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
    """What the server refuses at COMMIT did not happen, without a verification."""
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
