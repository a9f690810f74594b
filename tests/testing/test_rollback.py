"""What is particular to the sync fake: what it takes, its messages, and threads."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sessionfactory import (
    AfterCommitError,
    ClosedError,
    DatabaseSettings,
    SessionFactory,
    SqlAlchemySessionFactory,
    on_commit,
)
from sessionfactory.pool import call_sites
from sessionfactory.testing.rollback._shared_connection import (
    ConcurrentUseError,
    InterleavedTransactionsError,
    NotUndoneError,
    SessionLeftOpenError,
)
from sessionfactory.testing.rollback.rollback import RollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.testing import PostgresServer

INSERT = text("INSERT INTO t VALUES (1)")
COUNT = text("SELECT count(*) FROM t")
WAIT = text("SELECT wait()")


class MySession(Session):
    """A session class of a user."""


@pytest.fixture
def engine(factory: SqlAlchemySessionFactory, url: str) -> Generator[Engine]:
    """A plain engine, whose driver begins no transaction before SAVEPOINT."""
    del factory  # it makes the table
    made = create_engine(url)
    yield made
    made.dispose()


def line_of(marker: str) -> str:
    """Return this file's line with a marker, as messages write it."""
    with open(__file__) as file:  # noqa: PTH123
        lines = file.read().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.endswith(f"# {marker}"))
    return f"{__file__}:{number} in "


def test_sessions_are_those_of_the_factory(engine: Engine) -> None:
    """Class, options and listeners are the real factory's; only the connection is not."""
    seen: list[Session] = []

    def note_commit(session: Session) -> None:
        seen.append(session)

    real = sessionmaker(engine, class_=MySession, autoflush=False, info={"who": "me"})
    event.listen(real, "after_commit", note_commit)
    with RollbackSessionFactory(real) as fake, fake.begin() as session:
        session.execute(INSERT)
        assert isinstance(session, MySession)
        assert (session.autoflush, session.expire_on_commit) == (False, True)
        assert session.info == {"who": "me"}
        assert session.get_bind() is session.bind
    assert seen == [session]


def test_sessions_of_an_own_factory_keep_its_settings(factory: SqlAlchemySessionFactory) -> None:
    """``SqlAlchemySessionFactory`` gives sessions that do not expire."""
    with RollbackSessionFactory(factory) as fake, fake() as session:
        assert not session.expire_on_commit


def test_the_reader_is_the_fake_itself(factory: SqlAlchemySessionFactory) -> None:
    """A service that reads sees what the test has written."""
    with RollbackSessionFactory(factory) as fake:
        with fake.begin() as session:
            session.execute(INSERT)
        with fake.reader.begin() as session:
            assert session.scalar(COUNT) == 1


def test_a_fake_can_be_used_for_one_block_after_another(engine: Engine) -> None:
    """Each block begins with what the database holds."""
    fake = RollbackSessionFactory(engine)
    for _ in range(2):
        with fake, fake.begin() as session:
            session.execute(INSERT)
            assert session.scalar(COUNT) == 1
            with pytest.raises(RuntimeError, match="inside its block already"):
                fake.__enter__()


def test_outside_of_its_block_it_opens_nothing(engine: Engine) -> None:
    """Before and after the block, and in sessions that outlive it, the error says so."""
    fake = RollbackSessionFactory(engine)
    with pytest.raises(ClosedError, match="only inside its block"):
        fake()
    with fake:
        session = fake()
    with pytest.raises(ClosedError, match="has ended"):
        session.execute(COUNT)
    session.close()


def test_interleaved_transactions_are_named(engine: Engine) -> None:
    """The message names both transactions by the lines of the user's code, once."""
    with RollbackSessionFactory(engine) as fake:
        other = fake()  # opens other
        refused = pytest.raises(InterleavedTransactionsError)
        with refused as caught, fake.begin() as session:  # opens session
            session.execute(INSERT)  # begins session
            other.execute(INSERT)  # begins other
        other.reset()

        where = "test_interleaved_transactions_are_named"
        assert str(caught.value) == (
            f"The transaction begun at {line_of('begins session')}{where} (session opened at"
            f" {line_of('opens session')}{where}) cannot end now, by commit, rollback or close:"
            f" the transaction begun at {line_of('begins other')}{where} (session opened at"
            f" {line_of('opens other')}{where}) began later and is still open. The sessions of a"
            " rollback fake share one connection, on which transactions nest: end the later one"
            " first. Nothing was changed."
        )
        assert caught.value.__context__ is None


def test_sessions_left_open_are_named(engine: Engine) -> None:
    """The message lists where the sessions were opened; one that did nothing is not open."""
    fake = RollbackSessionFactory(engine).__enter__()
    fake()
    left = fake()  # left open
    left.execute(INSERT)
    with pytest.raises(SessionLeftOpenError) as caught:
        fake.__exit__(None, None, None)

    assert str(caught.value) == (
        "The block of a rollback fake ended while a session had a transaction that was neither"
        " committed nor rolled back. All is undone; close the sessions opened at:\n  - "
        f"{line_of('left open')}test_sessions_left_open_are_named"
    )
    assert not left.in_transaction()
    with engine.connect() as connection:
        assert connection.scalar(COUNT) == 0


def closed_too_early(fake: RollbackSessionFactory[Session]) -> tuple[Session, Session]:
    """Return two sessions that have inserted a row; to close the first was refused."""
    earlier, later = fake(), fake()
    earlier.execute(INSERT)
    later.execute(INSERT)
    with pytest.raises(InterleavedTransactionsError):
        earlier.close()
    return earlier, later


def test_a_session_that_is_used_on_is_not_closed_later(engine: Engine) -> None:
    """A refused close is made up for only if the session was not used since."""
    with RollbackSessionFactory(engine) as fake:
        earlier, later = closed_too_early(fake)
        earlier.execute(INSERT)
        later.commit()
        later.close()
        earlier.commit()

        assert earlier.scalar(COUNT) == 3
        earlier.close()


def test_a_refused_close_waits_for_all_that_are_in_its_way(engine: Engine) -> None:
    """The end of one of two later transactions does not close the earlier one yet."""
    with RollbackSessionFactory(engine) as fake:
        first, second, third = fake(), fake(), fake()
        for session in (first, second, third):
            session.execute(INSERT)
        with pytest.raises(InterleavedTransactionsError):
            first.close()
        third.close()
        assert first.in_transaction()
        second.close()
        assert not first.in_transaction()


def test_a_refused_close_is_made_up_for_after_a_commit_whose_callback_failed(
    engine: Engine,
) -> None:
    """A transaction that ended makes way for an earlier one, whatever follows its commit."""

    def fail() -> None:
        raise ValueError("no mail today")

    with RollbackSessionFactory(engine) as fake:
        earlier, later = closed_too_early(fake)
        on_commit(later, fail)
        with pytest.raises(AfterCommitError):
            later.commit()
        assert not earlier.in_transaction()
        later.close()


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_engine_that_commits_by_itself_is_undone_too(
    postgres_server: PostgresServer,
    url: str,
    factory: SqlAlchemySessionFactory,
    autocommit: bool,  # noqa: FBT001
) -> None:
    """AUTOCOMMIT engines have a transaction under the fake."""
    postgres_server.execute("CREATE TABLE IF NOT EXISTS t (a int)")
    del factory
    for where in (url, postgres_server.url):
        level = "AUTOCOMMIT" if autocommit else "SERIALIZABLE"
        engine = create_engine(where, isolation_level=level)
        with RollbackSessionFactory(engine) as fake, fake.begin() as session:
            session.execute(INSERT)
        with engine.connect() as connection:
            assert connection.scalar(COUNT) == 0
        engine.dispose()
    postgres_server.execute("DROP TABLE t")


def test_a_block_that_cannot_begin_gives_its_connection_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that refuses the savepoint costs no connection."""

    def refuse(*_: object) -> None:
        raise OperationalError("SAVEPOINT", {}, sqlite3.OperationalError("no savepoints here"))

    monkeypatch.setattr(engine.dialect, "do_savepoint", refuse)
    with pytest.raises(OperationalError, match="no savepoints here"):
        RollbackSessionFactory(engine).__enter__()

    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def test_a_dialect_that_knows_no_autocommit_will_do(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dialects of others need not be able to tell whether a connection commits by itself."""

    def cannot_tell(_: object) -> bool:
        raise NotImplementedError

    monkeypatch.setattr(engine.dialect, "detect_autocommit_setting", cannot_tell)
    with RollbackSessionFactory(engine) as fake, fake.begin() as session:
        session.execute(INSERT)
    with engine.connect() as connection:
        assert connection.scalar(COUNT) == 0


def test_an_opening_outside_of_all_known_code_is_told_as_such(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no frame is the user's, messages say that the place is unknown."""
    monkeypatch.setattr(call_sites, "user_frame", lambda: None)
    fake = RollbackSessionFactory(engine).__enter__()
    fake().begin()
    left = fake()
    left.execute(INSERT)
    with pytest.raises(SessionLeftOpenError, match="opened at:\n  - an unknown place"):
        fake.__exit__(None, None, None)


def test_what_cannot_be_faked_is_refused(engine: Engine) -> None:
    """Sessions that are bound or begun elsewhere would escape."""

    def begun() -> Session:
        session = Session(engine)
        session.begin()
        return session

    def wrong() -> Any:
        return object()

    class Odd:
        def __init__(self, make: Callable[[], Any], engine: Engine | None = engine) -> None:
            self.engine = engine
            self.make = make

        def __call__(self) -> Any:
            return self.make()

        def begin(self) -> Any:
            raise NotImplementedError

    with RollbackSessionFactory(engine) as fake:
        other: SessionFactory = fake
        with pytest.raises(TypeError, match="bound to a connection already"):
            RollbackSessionFactory(other).__enter__()
    with (
        RollbackSessionFactory(Odd(begun)) as odd,
        pytest.raises(TypeError, match="begin a transaction of their own"),
    ):
        odd()
    with (
        RollbackSessionFactory(Odd(wrong)) as odd,
        pytest.raises(TypeError, match="expected a factory of Session, not of object"),
    ):
        odd()


def again_and_again(engine: Engine) -> Callable[[], Session]:
    session = Session(engine)
    return lambda: session


def test_a_session_that_was_given_before_is_refused(engine: Engine) -> None:
    """Its transactions would be the same one."""
    with RollbackSessionFactory(cast("Any", again_and_again(engine))) as fake:
        fake()
        with pytest.raises(TypeError, match="a session that it had given before"):
            fake()


async def coroutine() -> None:
    pass


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("sqlite://", "takes a factory of sessions or an engine, not str; of a URL, make an engi"),
        (None, "takes a factory of sessions or an engine, not NoneType$"),
        (create_engine("sqlite+aiosqlite://"), "'aiosqlite' is for AsyncRollbackSessionFactory"),
        (async_sessionmaker(), "sessions of the class AsyncSession are for AsyncRollbackSession"),
        (sessionmaker(), "bound to no engine, or to several by their classes"),
        (scoped_session(sessionmaker()), r"scoped_session gives one .*\(….session_factory\)"),
        (coroutine, "expected a factory of sessions, not of coroutine"),
    ],
    ids=["URL", "None", "async engine", "async", "unbound", "scoped", "coroutine"],
)
def test_what_has_no_engine_for_it_is_refused_in_words(given: Any, told: str) -> None:
    """The error says what to give instead."""
    with pytest.raises(TypeError, match=told):
        RollbackSessionFactory(given).__enter__()


class Waiting:
    """A statement ``SELECT wait()`` that stays inside the driver until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> int:
        self.entered.set()
        return int(self.go.wait(10))


def waiting_thread(fake: SessionFactory, waiting: Waiting) -> threading.Thread:
    """Start a thread that is inside a call when this returns."""

    def work() -> None:
        with fake() as session:
            session.connection().connection.create_function("wait", 0, waiting)
            session.execute(WAIT)

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    assert waiting.entered.wait(10)
    return thread


def test_a_second_thread_at_the_same_time_is_told(factory: SqlAlchemySessionFactory) -> None:
    """The error names both threads; when the one is done, the other can go on."""
    with RollbackSessionFactory(factory) as fake:
        waiting = Waiting()
        thread = waiting_thread(fake, waiting)
        with fake() as session:
            with pytest.raises(ConcurrentUseError) as caught:
                session.execute(COUNT)
            waiting.go.set()
            thread.join()
            assert session.scalar(COUNT) == 0
        me = threading.current_thread().name
        assert str(caught.value).startswith(
            f"The thread {me!r} uses a rollback fake while the thread 'worker' is inside a call:"
        )


def test_threads_may_use_it_one_after_the_other(factory: SqlAlchemySessionFactory) -> None:
    """A thread that has ended is in no other's way, nor is one that holds an idle session."""

    def work() -> None:
        with fake.begin() as session:
            session.execute(INSERT)

    with RollbackSessionFactory(factory) as fake, fake() as idle:
        idle.execute(COUNT)
        for _ in range(3):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert idle.scalar(COUNT) == 3


def test_a_thread_that_is_inside_at_the_end_is_told(factory: SqlAlchemySessionFactory) -> None:
    """The thread gives the connection back when it leaves its call; nothing comes of its work."""
    waiting = Waiting()
    failed: list[Any] = []
    hook, threading.excepthook = threading.excepthook, failed.append
    try:
        fake = RollbackSessionFactory(factory).__enter__()
        thread = waiting_thread(fake, waiting)
        with pytest.raises(ConcurrentUseError, match="the thread 'worker' is inside a call"):
            fake.__exit__(None, None, None)
        waiting.go.set()
        thread.join()
    finally:
        threading.excepthook = hook

    assert factory.status().in_use == 0
    with factory() as session:
        assert session.scalar(COUNT) == 0


def test_settings_are_not_touched(url: str, factory: SqlAlchemySessionFactory) -> None:
    """The real factory works as before, once the block has ended."""
    with RollbackSessionFactory(factory) as fake, fake.begin() as session:
        session.execute(INSERT)
    with factory.begin() as session:
        session.execute(INSERT)
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as other, other() as session:
        assert session.scalar(COUNT) == 1


@pytest.mark.parametrize("use", ["begin", "connect", "raw_connection"])
def test_the_engine_of_a_session_does_not_escape(engine: Engine, use: str) -> None:
    """What is done on a connection of the engine itself could not be undone: it is refused."""
    with RollbackSessionFactory(engine) as fake, fake.begin() as session:
        reached = session.get_bind().engine
        with pytest.raises(NotUndoneError, match=r"Use session\.connection\(\)"):
            getattr(reached, use)()
        assert reached.url == engine.url
        assert session.connection().scalar(text("SELECT 1")) == 1
