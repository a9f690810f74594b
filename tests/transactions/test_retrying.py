"""Work in a transaction: done again where that is right, and never where it is not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import stamina
from psycopg.errors import SerializationFailure
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSqlAlchemySessionFactory,
    CommitUncertainError,
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    SqlAlchemySessionFactory,
    commit_outcome,
    run_in_transaction,
    run_in_transaction_async,
    run_sync_in_transaction,
)
from sessionfactory.engine.stages import stage_of
from sessionfactory.testing import InMemorySessionFactory, RollbackSessionFactory
from tests.transactions.ways import HALVES, POSTGRESQL, Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from sessionfactory import AsyncSessionFactory
    from sessionfactory.testing import FaultProxy, PostgresServer

PAY: Final = text("INSERT INTO paid VALUES (1)")
ways = pytest.mark.parametrize("way", POSTGRESQL, ids=str)
halves = pytest.mark.parametrize("way", HALVES, ids=str)


def failing(session: Session, code: str) -> None:
    """Have PostgreSQL raise an error of this code."""
    session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '{code}'; END $$"))


def fail_at_commit(server: PostgresServer, code: str) -> None:
    """Have PostgreSQL raise an error of this code when a row of ``paid`` is committed."""
    server.execute(f"""
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON paid DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail('{code}')
    """)


def rows(server: PostgresServer) -> int:
    """Return how many payments are committed."""
    return int(server.execute("SELECT count(*) FROM paid"))


@pytest.fixture
def factory(server: PostgresServer) -> Generator[SqlAlchemySessionFactory]:
    """A factory on PostgreSQL."""
    with SqlAlchemySessionFactory(DatabaseSettings(server.url)) as made:
        yield made


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
    """Work that found nobody at the server's address is done again, until somebody is there."""
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


class Base(DeclarativeBase):
    """The tables that are mapped here."""


class Paid(Base):
    """A payment, as an object."""

    __tablename__ = "paid"
    amount: Mapped[int] = mapped_column(primary_key=True)


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


# Misuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, "attempts is a number, 1 or more, or None, not 0"),
        ({"attempts": 1.5}, "attempts is a number, 1 or more, or None, not 1.5"),
        ({"timeout": 0}, "timeout is a number of seconds above 0, or None, not 0"),
        ({"timeout": float("inf")}, "timeout is a number of seconds above 0, or None, not inf"),
        ({"verify_commit": "on"}, "verify_commit is one of 'off', 'status', 'marker', not 'on'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    """An option that makes no sense is refused before anything is done."""
    with pytest.raises(ValueError, match=message):
        run_in_transaction(NullSessionFactory("never asked"), lambda _: None, **options)


async def _never_awaited(_: object) -> None:
    raise AssertionError("it ran")


_awaited: Any = _never_awaited


def test_work_of_the_other_half_is_refused(factory: SqlAlchemySessionFactory) -> None:
    """A coroutine function is for the async half, and what is no function for neither."""
    with pytest.raises(TypeError, match="a coroutine function is for run_in_transaction_async"):
        run_in_transaction(factory, _awaited)
    with pytest.raises(TypeError, match="a coroutine function is for run_in_transaction_async"):
        run_in_transaction(factory, lambda session: _awaited([session]))
    with pytest.raises(TypeError, match="work is a function that takes a session, not str"):
        run_in_transaction(factory, "work")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _plain(_: object) -> Any:
    return "done"


def test_work_of_the_sync_half_is_refused(server: PostgresServer) -> None:
    """A plain function is not awaited, and what it did is rolled back."""

    async def main() -> None:
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(server.async_url)) as factory:
            with pytest.raises(TypeError, match="a plain function is for run_sync_in_transaction"):
                await run_in_transaction_async(factory, _plain)
            with pytest.raises(TypeError, match="not int"):
                await run_in_transaction_async(factory, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            with pytest.raises(TypeError, match="is for run_in_transaction_async"):
                await run_sync_in_transaction(factory, _awaited)

    asyncio.run(main())


# Any factory


def test_null_factories_say_what_is_missing() -> None:
    """A factory that is not configured raises its own error, once."""
    with pytest.raises(NotConfiguredError, match="no database"):
        run_in_transaction(NullSessionFactory("no database"), lambda _: None)

    async def main() -> None:
        sessions = AsyncNullSessionFactory("no database")
        with pytest.raises(NotConfiguredError, match="no database"):
            await run_in_transaction_async(sessions, _awaited)
        with pytest.raises(NotConfiguredError, match="no database"):
            await run_sync_in_transaction(sessions, lambda _: None)

    asyncio.run(main())


@pytest.mark.parametrize("verify_commit", ["off", "status", "marker"])
def test_the_rolling_back_fake(verify_commit: Any, factory: SqlAlchemySessionFactory) -> None:
    """Within the fake, the work is done again after a conflict, and is undone at its end."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            failing(session, "40001")
        return len(calls)

    with RollbackSessionFactory(factory) as fake:
        assert run_in_transaction(fake, work, verify_commit=verify_commit) == 2
        with fake() as session:
            assert session.scalar(text("SELECT count(*) FROM paid")) == 1
    with factory() as session:
        assert session.scalar(text("SELECT count(*) FROM paid")) == 0


def test_the_fake_in_memory() -> None:
    """A database in memory serves as well."""
    with InMemorySessionFactory(Base.metadata) as sessions:
        run_in_transaction(sessions, lambda session: session.add(Paid(amount=1)))
        with sessions() as session:
            assert session.get(Paid, 1) is not None


class AutoBegun:
    """A factory of somebody's own, whose sessions begin by themselves."""

    def __init__(self, factory: SqlAlchemySessionFactory) -> None:
        self.factory = factory

    def __call__(self) -> Session:
        return self.factory()

    @contextmanager
    def begin(self) -> Generator[Session]:
        with self.factory() as session:
            yield session
            session.commit()


def test_a_factory_of_ones_own(factory: SqlAlchemySessionFactory, server: PostgresServer) -> None:
    """Whatever has the interface will do."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            failing(session, "40001")
        return len(calls)

    assert run_in_transaction(AutoBegun(factory), work) == 2
    assert rows(server) == 1


class AutoBegunAsync:
    """An async factory of somebody's own."""

    def __init__(self, factory: AsyncSessionFactory) -> None:
        self.factory = factory

    def __call__(self) -> AsyncSession:
        return self.factory()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        async with self.factory() as session:
            yield session
            await session.commit()


class Closing(AsyncSession):
    """A session class with a ``close`` of its own."""

    closed = 0

    async def close(self) -> None:
        Closing.closed += 1
        await super().close()


@pytest.mark.parametrize("theirs", [False, True])
def test_a_plain_function_with_an_async_factory_of_ones_own(
    theirs: bool,  # noqa: FBT001
    server: PostgresServer,
) -> None:
    """Whatever has the interface will do, and a session's own ``close`` is called."""
    settings = DatabaseSettings(server.async_url)

    async def main() -> None:
        async with AsyncSqlAlchemySessionFactory(settings, session_class=Closing) as factory:
            sessions = AutoBegunAsync(factory) if theirs else factory
            await run_sync_in_transaction(sessions, lambda session: session.execute(PAY))
            assert factory.status().in_use == 0

    before = Closing.closed
    asyncio.run(main())

    assert rows(server) == 1
    assert Closing.closed > before


@pytest.mark.parametrize("plain", [False, True])
def test_a_cancelled_plain_function_does_not_lose_its_commit(
    plain: bool,  # noqa: FBT001
    proxy: FaultProxy,
    server: PostgresServer,
) -> None:
    """A cancellation during COMMIT is delivered when it is done, and says how it ended."""
    url = proxy.url.set(drivername="postgresql+asyncpg")

    async def main() -> BaseException:
        engine = create_async_engine(url)
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
            sessions = async_sessionmaker(engine) if plain else factory

            def work(session: Session) -> None:
                session.execute(PAY)
                proxy.black_hole()  # until the task is cancelled
                asyncio.get_running_loop().call_soon(task.cancel)
                asyncio.get_running_loop().call_later(0.01, proxy.restore)

            task = asyncio.ensure_future(run_sync_in_transaction(sessions, work))
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        await engine.dispose()
        return caught.value

    assert commit_outcome(asyncio.run(main())) == "committed"
    assert rows(server) == 1


def test_a_session_that_refuses_to_commit_has_not_committed() -> None:
    """What the session itself says comes before the COMMIT."""
    with pytest.raises(InvalidRequestError) as caught:
        Session(autobegin=False).commit()

    assert stage_of(caught.value) == "before"
