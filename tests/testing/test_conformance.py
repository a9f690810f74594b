"""The conformance check, against every factory there is, and against fakes that are broken."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.testing.conformance._requirements import CONFORMANCE_TABLE, ConformanceError
from sessionfactory.testing.conformance.conformance import check_session_factory
from sessionfactory.testing.recording.recording import RecordingSessionFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory import SessionFactory
    from sessionfactory.testing import MariaDBServer, PostgresServer


@pytest.fixture
def engine() -> Generator[Engine]:
    """SQLite in memory, on one connection for all threads."""
    arguments = {"check_same_thread": False}
    made = create_engine("sqlite://", poolclass=StaticPool, connect_args=arguments)
    yield made
    made.dispose()


class Fake:
    """A small correct factory, for the broken ones to differ from."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self) -> Session:
        return Session(self.engine)

    @contextmanager
    def begin(self) -> Generator[Session]:
        with self() as session, session.begin():
            yield session


class NeverCommits(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        with self() as session:
            yield session


class CommitsOnError(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        with self() as session:
            try:
                yield session
            finally:
                session.commit()


class Swallows(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        with suppress(Exception), super().begin() as session:
            yield session


class Replaces(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        try:
            with super().begin() as session:
                yield session
        except Exception as error:
            raise RuntimeError("could not\nwrite") from error


class NeverCloses(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        session = self()
        with session.begin():
            yield session


class ClosesOnlyAfterSuccess(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        session = self()
        yield session
        session.commit()
        session.close()


class ForgetsInterrupts(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        with self() as session:
            try:
                yield session
            except Exception:
                session.rollback()
                raise
            finally:
                session.commit()


class Shares(Fake):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.session = Session(engine)

    def __call__(self) -> Session:
        return self.session


class SharesBetweenTransactions(Shares):
    def __call__(self) -> Session:
        return Session(self.engine)

    @contextmanager
    def begin(self) -> Generator[Session]:
        with self.session, self.session.begin():
            yield self.session


class BeginTakesTheCalledOne(Fake):
    last: Session | None = None

    def __call__(self) -> Session:
        self.last = super().__call__()
        return self.last

    @contextmanager
    def begin(self) -> Generator[Session]:
        with self.last or self() as session, session.begin():
            yield session


class CommitsByItself(Fake):
    def __call__(self) -> Session:
        return Session(self.engine.execution_options(isolation_level="AUTOCOMMIT"))

    @contextmanager
    def begin(self) -> Generator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session


class Undoes(Session):
    def commit(self) -> None:
        if self.new:
            self.rollback()
        else:
            super().commit()


class CalledOnesCannotCommit(Fake):
    def __call__(self) -> Session:
        return Undoes(self.engine)

    @contextmanager
    def begin(self) -> Generator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session


class LosesTheOuter(Fake):
    current: Session

    @contextmanager
    def begin(self) -> Generator[Session]:
        self.current = session = self()
        try:
            yield session
            self.current.commit()
        finally:
            session.close()


class GivesTransactions(Fake):
    def begin(self) -> Any:
        return Session(self.engine).begin()


class GivesNoContextManager(Fake):
    def begin(self) -> Any:
        return Session(self.engine).begin


class FailsToBegin(Fake):
    @contextmanager
    def begin(self) -> Generator[Session]:
        if inspect(self.engine).has_table(CONFORMANCE_TABLE.name):
            raise RuntimeError
        with super().begin() as session:
            yield session


class RefusesNesting(Fake):
    busy = False

    @contextmanager
    def begin(self) -> Generator[Session]:
        if self.busy:
            raise RuntimeError("one at a time")
        self.busy = True
        try:
            with super().begin() as session:
                yield session
        finally:
            self.busy = False


class Coroutines(Fake):
    async def __call__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give a session to an async caller."""

    async def begin(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give a transaction to an async caller."""


def broken_promises(make: Callable[[], object]) -> str:
    """Return what the check says about a factory."""
    with pytest.raises(ConformanceError) as caught:
        check_session_factory(cast("Callable[[], SessionFactory]", make))
    return str(caught.value)


OWN = "each call and each transaction has a session of its own"
ENDS = "begin() closes its session when its block ends"
RAISES = "begin() closes its session when its block raises"
BACK = "begin() rolls back when its block raises: the next session found what it wrote"
ON = "begin() passes on what its block raises"
INTERRUPT = "begin() does all three for KeyboardInterrupt, too"
COMMIT = "begin() passes on what its commit raises, and closes"
LOST = "the next session did not find"
KEPT = "it had let its connection go, but still held its objects"
HELD = "it was still in a transaction, and held a connection"


@pytest.mark.parametrize(
    ("fake", "broken"),
    [
        (
            NeverCommits,
            [
                f"begin() commits when its block ends: {LOST} what it wrote",
                f"{COMMIT}: the error was swallowed",
                "begin() works a second time: what they wrote was not all there",
                "begin() inside begin() works, or raises: there was no error, but a row was lost",
                (
                    "another thread can use the factory, one after the other: "
                    "what it wrote was not there"
                ),
            ],
        ),
        (CommitsOnError, [BACK, f"{INTERRUPT}: the next session found what it wrote"]),
        (Swallows, [f"{ON}: the error was swallowed", f"{COMMIT}: the error was swallowed"]),
        (Replaces, [f"{ON}: instead it raised RuntimeError: could not"]),
        (NeverCloses, [f"{ENDS}: {KEPT}"]),
        (
            ClosesOnlyAfterSuccess,
            [f"{RAISES}: {HELD}", f"{INTERRUPT}: {HELD}", f"{COMMIT}: {HELD}"],
        ),
        (ForgetsInterrupts, [f"{INTERRUPT}: the next session found what it wrote"]),
        (Shares, [f"{OWN}: two calls gave the same one"]),
        (SharesBetweenTransactions, [f"{OWN}: two transactions had the same one"]),
        (BeginTakesTheCalledOne, [f"{OWN}: begin() gave the one that a call had given"]),
        (
            CommitsByItself,
            ["a session that was called for does not commit by itself: the next session found it"],
        ),
        (
            CalledOnesCannotCommit,
            [
                f"a session that was called for keeps what it commits: {LOST} it",
                f"{COMMIT}: the error was swallowed",
            ],
        ),
        (
            LosesTheOuter,
            ["begin() inside begin() works, or raises: there was no error, but a row was lost"],
        ),
    ],
)
def test_a_broken_fake_is_caught(engine: Engine, fake: type[Fake], broken: list[str]) -> None:
    """Each kind of breach has its own sentence, and no other promise is called broken."""
    told = broken_promises(lambda: fake(engine)).splitlines()

    assert told[1:] == [f"- {sentence}" for sentence in broken]


def test_the_report_names_the_interface_and_the_first_cause(engine: Engine) -> None:
    """All findings are in one error; where the fake raised by itself, that is the cause."""
    told = broken_promises(lambda: FailsToBegin(engine))

    assert told.startswith("This factory breaks 10 promises of SessionFactory:\n- ")
    assert "begin() commits when its block ends: it raised RuntimeError\n" in told
    assert f"{RAISES}: it gave no session: RuntimeError" in told


FOR_ASYNC = "check_async_session_factory is for async factories"
KINDS: list[tuple[Callable[[Engine], object], str]] = [
    (
        lambda engine: async_sessionmaker(),
        f"a call gives a Session: it gave AsyncSession; {FOR_ASYNC}",
    ),
    (
        Coroutines,
        f"a call gives a Session: it gave coroutine; {FOR_ASYNC}",
    ),
    (
        lambda engine: scoped_session(sessionmaker(engine)),
        (
            "begin() gives a context manager whose value is a Session: "
            "its value was SessionTransaction"
        ),
    ),
    (
        GivesTransactions,
        (
            "begin() gives a context manager whose value is a Session: "
            "its value was SessionTransaction"
        ),
    ),
    (
        GivesNoContextManager,
        "begin() gives a context manager whose value is a Session: it gave method",
    ),
    (
        lambda engine: lambda: Session(engine),
        (
            "begin() gives a context manager whose value is a Session: "
            "it raised AttributeError: 'function' object has no attribute 'begin'"
        ),
    ),
]


@pytest.mark.parametrize(("make", "sentence"), KINDS)
def test_sessions_of_another_kind_are_told_before_all_else(
    engine: Engine, make: Callable[[Engine], object], sentence: str
) -> None:
    """Where nothing else could be true, nothing else is said."""
    assert f"\n- {sentence}" in broken_promises(lambda: make(engine))


def test_sqlalchemy_s_sessionmaker_conforms(engine: Engine) -> None:
    """And so does the fake that the broken ones are made from, and one that refuses nesting."""
    check_session_factory(lambda: sessionmaker(engine))
    check_session_factory(lambda: Fake(engine))
    check_session_factory(lambda: RefusesNesting(engine))


def test_our_factory_conforms(url: str) -> None:
    """On a file and in memory, opened and closed by the check."""
    check_session_factory(lambda: SqlAlchemySessionFactory(DatabaseSettings(url)))
    check_session_factory(lambda: SqlAlchemySessionFactory(DatabaseSettings("sqlite://")))


def test_a_recording_factory_conforms(factory: SqlAlchemySessionFactory) -> None:
    """Recording does not change what a session does."""
    recorder = RecordingSessionFactory(factory)
    check_session_factory(lambda: recorder)

    recording = recorder.recording
    assert recording.sessions == recording.closed > 20
    assert recording.transactions == recording.commits + recording.rollbacks > 20


def test_factories_on_postgresql_conform(postgres_server: PostgresServer) -> None:
    """Ours and SQLAlchemy's, on a real server."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        check_session_factory(lambda: SqlAlchemySessionFactory(factory.settings))
        check_session_factory(lambda: sessionmaker(factory.engine))
        check_session_factory(lambda: RecordingSessionFactory(factory))
        assert not inspect(factory.engine).has_table(CONFORMANCE_TABLE.name)


def test_factories_on_mariadb_conform(mariadb_server: MariaDBServer) -> None:
    """Ours and SQLAlchemy's, on a real server."""
    with SqlAlchemySessionFactory(DatabaseSettings(mariadb_server.url)) as factory:
        check_session_factory(lambda: SqlAlchemySessionFactory(factory.settings))
        check_session_factory(lambda: sessionmaker(factory.engine))
        assert not inspect(factory.engine).has_table(CONFORMANCE_TABLE.name)


def test_the_value_of_a_context_manager_is_checked(engine: Engine) -> None:
    """A generator function that makes and cleans up serves as well, once for each promise."""
    entered: list[str] = []

    @contextmanager
    def make() -> Generator[Fake]:
        entered.append("in")
        yield Fake(engine)
        entered.append("out")

    check_session_factory(make)

    assert entered == ["in", "out"] * (len(entered) // 2)
    assert len(entered) > 20


def test_a_factory_in_the_place_of_what_makes_it(engine: Engine) -> None:
    """Who gives the factory itself, which makes sessions, is told what to give instead."""
    with pytest.raises(ConformanceError) as caught:
        check_session_factory(cast("Any", Fake(engine)))
    assert caught.value.broken[0] == (
        "a call gives a Session: what was to make the factory made a session; give its class, or"
        " lambda: sessions"
    )


def test_a_table_that_was_there_stays(engine: Engine) -> None:
    """Who made the table beforehand keeps it; otherwise, none is left behind."""
    check_session_factory(lambda: Fake(engine))
    assert inspect(engine).get_table_names() == []

    CONFORMANCE_TABLE.create(engine)
    check_session_factory(lambda: Fake(engine))
    assert inspect(engine).get_table_names() == [CONFORMANCE_TABLE.name]
