"""Any factory and any work will do, and what is neither is refused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    SettingsError,
    SqlAlchemySessionFactory,
    commit_outcome,
    run_in_transaction,
    run_in_transaction_async,
    run_sync_in_transaction,
)
from sessionfactory.testing import InMemorySessionFactory, RollbackSessionFactory
from tests.support.payments import PAY, Base, Paid, in_conflict_once, rows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from sqlalchemy.orm import Session

    from sessionfactory import AsyncSessionFactory
    from sessionfactory.testing import FaultProxy, PostgresServer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, "attempts: expected 1 or more, got 0"),
        ({"attempts": 1.5}, "attempts: expected a whole number, got float"),
        ({"timeout": 0}, "timeout: expected more than 0, got 0"),
        ({"timeout": float("inf")}, "timeout: expected seconds up to 2147483"),
        ({"verify_commit": "on"}, "verify_commit: expected 'off', 'status' or 'marker'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    """An option that makes no sense is refused before anything is done."""
    with pytest.raises(SettingsError, match=message):
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


def test_what_is_no_factory_is_refused(factory: SqlAlchemySessionFactory) -> None:
    """A session, an engine or a function that returns a session opens no session per attempt."""
    mistakes: list[Any] = [factory.engine, factory.__call__]
    with factory() as session:
        mistakes.append(session)
        for mistake in mistakes:
            told = f"sessions is a session factory, .* not {type(mistake).__name__}"
            with pytest.raises(TypeError, match=told):
                run_in_transaction(mistake, lambda _: None)
            with pytest.raises(TypeError, match=told):
                asyncio.run(run_in_transaction_async(mistake, _never_awaited))


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
    with RollbackSessionFactory(factory) as fake:
        assert run_in_transaction(fake, in_conflict_once(), verify_commit=verify_commit) == 2
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
    """A user's own factory, whose sessions begin by themselves."""

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
    assert run_in_transaction(AutoBegun(factory), in_conflict_once()) == 2
    assert rows(server) == 1


class AutoBegunAsync:
    """A user's own async factory."""

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
