"""``close`` against what is under way: silent networks, connects in flight, callers that wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    PoolDeadlockError,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.engine.drain import CutConnection
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.pool.ledger import Caller as Waiting
    from sessionfactory.testing import PostgresServer


class Caller:
    """A thread that runs something, and keeps the error that it ended with."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_silent_network(postgres_server: PostgresServer, driver: str) -> None:
    """A server that says nothing any more does not hold close() up."""
    with FaultProxy(postgres_server.url_for(driver=driver)) as proxy:
        factory = SqlAlchemySessionFactory(DatabaseSettings(proxy.url))
        ready = threading.Event()

        def work() -> None:
            with factory.begin() as session:
                session.execute(text("SELECT 1"))
                ready.set()
                session.execute(text("SELECT pg_sleep(600)"))

        caller = Caller(work)
        assert ready.wait(10)
        proxy.black_hole()
        began = time.monotonic()
        (holder,) = factory.close(timeout=0.1)
        assert time.monotonic() - began < 60  # and not for ever
        assert holder.where.endswith(".work")
        proxy.reset()
        caller.join()
        assert caller.error is not None


def test_connect_in_flight(url: str) -> None:
    """A connection that opens while the factory closes is refused, and leaves the books."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(url))
    connecting, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        connecting.set()
        assert go_on.wait(10)

    event.listen(factory.engine, "do_connect", wait)

    def work() -> None:
        with factory.begin() as session:
            session.execute(text("CREATE TABLE late (a INTEGER)"))

    caller = Caller(work)
    assert connecting.wait(10)
    assert factory.close() == ()
    go_on.set()
    caller.join()
    assert isinstance(caller.error, ClosedError)
    assert factory.status().size == 0


def test_connecting_callers_are_told(postgres_server: PostgresServer) -> None:
    """Who connects to a server that does not answer is told at once that the factory closed."""
    pool = PoolSettings(timeout=3600)
    with FaultProxy(postgres_server.url) as proxy:
        factory = SqlAlchemySessionFactory(DatabaseSettings(proxy.url, pool=pool))
        proxy.black_hole()
        with factory() as session:
            caller = Caller(lambda: session.execute(text("SELECT 1")))
            while not proxy.connections:
                pass
            assert factory.close(timeout=3600) == ()
            caller.join()
    assert isinstance(caller.error, ClosedError)


def test_waiting_callers_are_woken(url: str) -> None:
    """Who waits for a connection when the factory closes is told at once, each of them."""
    pool = PoolSettings(size=1, max_overflow=0, timeout=3600)
    factory = SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool))

    def work() -> None:
        with factory.begin() as session:
            session.execute(text("SELECT 1"))

    with pytest.raises(ClosedError), factory.begin() as session:
        session.execute(text("SELECT 1"))
        callers = [Caller(work) for _ in range(3)]
        while factory.status().waiting < 3:
            pass
        factory.close()
        for caller in callers:
            caller.join()
            assert isinstance(caller.error, ClosedError)


def test_waiting_callers_are_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who were sent away have left when the factory is closed, though they are slow."""
    pool = PoolSettings(size=1, max_overflow=0, timeout=3600)
    factory = SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool))
    over = threading.Event()
    with factory() as session:
        session.connection()
        ledger = factory._managed.ledger
        answer = ledger.remove_waiter

        def take_time(caller: object) -> None:
            over.wait(0.1)
            answer(caller)

        monkeypatch.setattr(ledger, "remove_waiter", take_time)
        caller = Caller(lambda: factory().connection())
        while not factory.status().waiting:
            pass
        assert len(factory.close()) == 1
    assert factory.status().waiting == 0
    over.set()
    caller.join()


def test_caller_whose_time_is_over_when_it_closes(url: str) -> None:
    """A caller whose wait ends as the factory closes hears of the close, not of a full pool."""
    pool = PoolSettings(size=1, max_overflow=0, timeout=0.01)
    factory = SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool))
    with factory() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(PoolDeadlockError), factory() as other:
            other.execute(text("SELECT 1"))
        ledger = factory._managed.ledger
        asked = ledger.note_waiter

        def close_then_ask(waiter: object) -> Waiting:
            ledger.closed = True
            return asked(waiter)

        ledger.note_waiter = close_then_ask  # type: ignore[method-assign]  # between the look and the wait
        with pytest.raises(ClosedError), factory() as other:
            other.execute(text("SELECT 1"))
        ledger.note_waiter = asked  # type: ignore[method-assign]
        ledger.closed = False
    factory.close()


def test_dispose_with_a_session_out(url: str) -> None:
    """A connection that is returned to a disposed pool is closed."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        with factory() as session:
            session.execute(text("SELECT 1"))
            factory.engine.dispose()
        assert factory.status().size == 0


def test_interrupted_close_disposes(url: str) -> None:
    """Whatever interrupts the waiting, the engine is disposed of."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(url))
    with factory() as session:
        session.execute(text("SELECT 1"))

    def interrupt(done: object, ledger: object, deadline: object) -> None:
        raise KeyboardInterrupt

    factory._managed._waiting.until = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        factory.close()
    assert factory.status().size == 0
    with pytest.raises(ClosedError):
        factory()


def test_cut_connection() -> None:
    """What stands in a cut connection's place takes its end, and refuses all else."""
    cut = CutConnection("it is cut")
    cut.rollback()
    cut.close()
    assert cut.closed
    for use in (cut.commit, lambda: cut.cursor, lambda: cut.info):
        with pytest.raises(ClosedError, match="it is cut"):
            use()
    assert not hasattr(cut, "__len__")


def test_scope_is_entered_once(url: str) -> None:
    """A transaction scope that was entered refuses to be entered again."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        scope = factory.begin()
        with scope, pytest.raises(RuntimeError, match="entered once"):
            scope.__enter__()


def test_scope_whose_session_has_begun(url: str) -> None:
    """A session that cannot begin is closed."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        scope = factory.begin()
        begun = factory()
        begun.execute(text("SELECT 1"))
        scope._open = lambda: begun  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(Exception, match="already begun"):
            scope.__enter__()
        assert factory.status().in_use == 0


def test_views_are_kept(url: str) -> None:
    """Every reader is on the same view, for SQLAlchemy's cache of compiled statements knows it."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        with factory.reader() as one, factory.reader() as two:
            assert one.get_bind() is two.get_bind()
        with factory() as three:
            assert three.get_bind() is not one.get_bind()


def test_ping_does_not_call_itself_saturated(postgres_server: PostgresServer) -> None:
    """Pings of a pool of one connection, side by side, are all well."""
    pool = PoolSettings(size=1, max_overflow=0)
    settings = DatabaseSettings(postgres_server.url, pool=pool)
    states: list[str] = []
    with SqlAlchemySessionFactory(settings) as factory:

        def ping() -> None:
            states.extend(factory.ping(timeout=10).state for _ in range(50))

        callers = [Caller(ping) for _ in range(4)]
        for caller in callers:
            caller.join()
    assert set(states) == {"ok"}
