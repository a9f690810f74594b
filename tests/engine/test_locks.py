"""No code of others runs under a lock of the package: handlers may close and use an engine."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, cast

import pytest
import sqlalchemy
from sqlalchemy import Engine, event, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
)
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ONE = text("SELECT 1")


@pytest.fixture
def sessions() -> Generator[SqlAlchemySessionFactory]:
    """A factory that has not built its engine."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory:
        yield factory


def interrupt_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise a signal within ``create_engine``, as instrumentation may be interrupted there."""
    create = cast("Callable[..., Engine]", sqlalchemy.create_engine)

    def interrupted(*arguments: object, **keywords: object) -> Engine:
        signal.raise_signal(signal.SIGUSR1)
        return create(*arguments, **keywords)

    monkeypatch.setattr(sqlalchemy, "create_engine", interrupted)


@pytest.fixture
def handler() -> Generator[list[object]]:
    """What is put into this list is called by the handler of SIGUSR1, once."""
    calls: list[object] = []

    def handle(*_: object) -> None:
        if calls:
            call = calls.pop()
            assert callable(call)
            call()

    before = signal.signal(signal.SIGUSR1, handle)
    yield calls
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.timeout(30)
def test_close_in_a_handler_while_the_engine_is_built(
    sessions: SqlAlchemySessionFactory, handler: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close returns, and the use that it interrupted is refused."""
    handler.append(sessions.close)
    interrupt_builds(monkeypatch)
    with pytest.raises(ClosedError), sessions() as session:
        session.execute(ONE)
    assert sessions.status().size == 0


@pytest.mark.timeout(30)
def test_use_in_a_handler_while_the_engine_is_built(
    sessions: SqlAlchemySessionFactory, handler: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler builds the engine, and what it interrupted uses that one."""
    engines: list[Engine] = []
    handler.append(lambda: engines.append(sessions.engine))
    interrupt_builds(monkeypatch)
    assert sessions.engine is engines[0]
    assert sessions.ping().ok


@pytest.mark.timeout(30)
def test_close_in_a_listener_to_a_checkout(sessions: SqlAlchemySessionFactory) -> None:
    """A listener may close the factory; the checkout is refused."""
    event.listen(sessions.engine, "checkout", lambda *_: sessions.close(timeout=0.1))
    with pytest.raises(ClosedError), sessions() as session:
        session.execute(ONE)
    assert sessions.status().in_use == 0


@pytest.mark.timeout(30)
def test_a_second_close_waits_for_the_first() -> None:
    """It returns when the first has drained, and reports no holders."""
    sessions = SqlAlchemySessionFactory(DatabaseSettings("sqlite://"))
    out, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sessions() as session:
            session.execute(ONE)
            out.set()
            assert release.wait(20)

    holder = Caller(hold)
    assert out.wait(20)
    first = Caller(lambda: sessions.close(timeout=20))
    until(lambda: _is_closed(sessions))
    second = Caller(lambda: sessions.close(timeout=20))
    threading.Event().wait(0.05)
    assert not second.done
    release.set()
    for caller in (holder, first, second):
        caller.join()
    assert (first.result, second.result) == ((), ())
    assert sessions.close() == ()


@pytest.mark.timeout(30)
@pytest.mark.asyncio
async def test_a_second_aclose_waits_for_the_first() -> None:
    """A task that closes beside another one returns when that one has drained."""
    sessions = AsyncSqlAlchemySessionFactory(DatabaseSettings("sqlite://"))
    async with sessions() as session:
        await session.execute(ONE)
        first = asyncio.create_task(sessions.aclose(timeout=20))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(sessions.aclose(timeout=20))
        await asyncio.sleep(0.05)
        assert not second.done()
    assert (await first, await second) == ((), ())


def _is_closed(sessions: SqlAlchemySessionFactory) -> bool:
    try:
        sessions()
    except ClosedError:
        return True
    return False
