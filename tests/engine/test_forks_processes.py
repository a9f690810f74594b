"""Servers that fork their workers, multiprocessing, and threads that are in the midst of it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import warnings
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, column, event, make_url, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from sessionfactory import (
    DatabaseSettings,
    ForkedConnectionError,
    PoolSettings,
    RotatingSecret,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import sqlalchemy_private
from sessionfactory.engine import forks
from tests.support.child import Child, fork, in_child
from tests.support.observe import until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.testing import PostgresServer

ONE = text("SELECT 1")
MINE = text("SELECT pg_backend_pid()")


@pytest.fixture
def factory(postgres_server: PostgresServer) -> Generator[SqlAlchemySessionFactory]:
    """A factory of three connections, with a warning of those that are held."""
    pool = PoolSettings(size=3, max_overflow=0, timeout=10, hold_warning=3600)
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url, pool=pool)) as made:
        yield made


def ask(factory: SqlAlchemySessionFactory) -> int:
    with factory.begin() as session:
        return session.scalar(ONE) or 0


@contextmanager
def meanwhile(work: Callable[[threading.Event, threading.Event], None]) -> Generator[None]:
    """Run the work in a thread until it is ready; it goes on when the block ends."""
    ready, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=(ready, go_on))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        go_on.set()
        thread.join(10)


def work_for(factory: SqlAlchemySessionFactory, seconds: float) -> int:
    """Let the server return tokens of this process, and count them."""
    end, turns = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turns += 1
        token = f"{os.getpid()}-{threading.get_ident()}-{turns}"
        with factory.begin() as session:
            assert session.scalar(text("SELECT :token"), {"token": token}) == token
    return turns


def test_workers_of_a_server(factory: SqlAlchemySessionFactory) -> None:
    """A master that loaded the program, and used it, forks workers while its threads work on."""
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(work_for(factory, 0.5))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    workers = [Child(lambda: work_for(factory, 0.3)) for _ in range(4)]
    assert all(worker.outcome() for worker in workers)
    for thread in threads:
        thread.join()
    assert len(counts) == 3


def test_multiprocessing(factory: SqlAlchemySessionFactory) -> None:
    """The workers of multiprocessing ask by themselves, though a transaction is open here."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def work() -> None:
        gc.collect()
        queue.put(ask(factory))

    with factory.begin() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        session.execute(text("CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT 1 AS a"))
        processes = [context.Process(target=work) for _ in range(2)]
        for process in processes:
            process.start()
        assert [queue.get() for _ in processes] == [1, 1]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert session.scalar(text("SELECT a FROM mine")) == 1


def test_killed_parent(factory: SqlAlchemySessionFactory, postgres_server: PostgresServer) -> None:
    """A child does not keep the connections of a parent open that is gone."""
    go_on, stop = os.pipe()

    def open_and_die() -> None:
        sessions = [factory() for _ in range(3)]
        pids = [session.scalar(MINE) for session in sessions]
        sessions.pop().close()  # one is idle
        if fork() == 0:
            os.read(go_on, 1)
            os._exit(0)
        os.write(stop_master, repr(pids).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    told, stop_master = os.pipe()
    child = fork()
    if child == 0:
        try:
            open_and_die()
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    pids = os.read(told, 1000).decode().strip("[]")
    alive = text(f"SELECT count(*) FROM pg_stat_activity WHERE pid IN ({pids})")
    try:
        with factory() as session:
            end = time.monotonic() + 10
            while session.scalar(alive):
                assert time.monotonic() < end
                session.rollback()
    finally:
        os.write(stop, b"!")
        for descriptor in (go_on, stop, told, stop_master):
            os.close(descriptor)


def test_detached_connection(factory: SqlAlchemySessionFactory) -> None:
    """A connection that was taken out of the pool for good stays the parent's as well."""
    kept = factory.engine.connect()
    dropped = factory.engine.connect()
    for connection in (kept, dropped):
        connection.detach()
    dropped.close()

    def use() -> None:
        with pytest.raises(ForkedConnectionError, match="forked while a session of 'default'"):
            kept.execute(ONE)
        kept.close()

    in_child(use)
    assert kept.scalar(ONE) == 1
    kept.close()


def test_other_errors(factory: SqlAlchemySessionFactory) -> None:
    """An error that has nothing to do with a fork stays what it is."""
    with pytest.raises(ProgrammingError, match="no_such_table"), factory() as session:
        session.execute(text("SELECT * FROM no_such_table"))
    unreachable = factory.settings.url.set(port=1)
    with (
        SqlAlchemySessionFactory(DatabaseSettings(unreachable)) as other,
        pytest.raises(OperationalError, match="refused"),
        other() as session,
    ):
        session.execute(ONE)


def test_locks_of_other_threads(postgres_server: PostgresServer) -> None:
    """No lock that another thread had at the fork holds the child up."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url))
    managed = factory._managed
    ask(factory)

    def hold(ready: threading.Event, go_on: threading.Event) -> None:
        with managed._lock:
            ready.set()
            go_on.wait()

    def use() -> None:
        session.close()
        assert factory.ping(timeout=30).ok
        assert ask(factory) == 1
        factory.close()

    with factory() as session:
        session.execute(ONE)
        with meanwhile(hold):
            in_child(use)
    factory.close()


@pytest.mark.parametrize(("module", "name"), sqlalchemy_private._COUNTERS)
def test_counters_of_sqlalchemy(factory: SqlAlchemySessionFactory, module: str, name: str) -> None:
    """Nor does a lock that SQLAlchemy has for the whole process."""
    counter = getattr(import_module(module), name)
    (lock,) = (
        cell.cell_contents for cell in counter.__closure__ if hasattr(cell.cell_contents, "locked")
    )

    def hold(ready: threading.Event, go_on: threading.Event) -> None:
        with lock:
            ready.set()
            go_on.wait()

    def use() -> list[int]:
        with factory() as session:
            statement = select(column("n", Integer)).select_from(text("generate_series(1, 2) n"))
            return list(session.scalars(statement, execution_options={"stream_results": True}))

    with meanwhile(hold):
        assert in_child(use) == [1, 2]


def test_unbuilt_engine(postgres_server: PostgresServer) -> None:
    """An engine that another thread was building is built in the child."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        build = factory._managed._build

        def slow(ready: threading.Event, go_on: threading.Event) -> None:
            def wait() -> Any:
                ready.set()
                go_on.wait()
                return build()

            factory._managed._build = wait  # type: ignore[method-assign]
            ask(factory)

        def use() -> int:
            factory._managed._build = build  # type: ignore[method-assign]
            return ask(factory)

        with meanwhile(slow):
            assert in_child(use) == 1


def test_first_connection_under_way(factory: SqlAlchemySessionFactory) -> None:
    """A child does not wait for the parent's thread that opens the first connection."""
    parent = os.getpid()

    def connect(ready: threading.Event, go_on: threading.Event) -> None:
        def wait(*_: object) -> None:
            if os.getpid() == parent:
                ready.set()
                go_on.wait()

        event.listen(factory.engine, "connect", wait)
        ask(factory)

    with meanwhile(connect):
        assert in_child(lambda: ask(factory)) == 1


def test_watch_over_long_holds(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A child watches its own connections, though the thread that did so is not there."""
    pool = PoolSettings(hold_warning=0.5)
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url, pool=pool)) as factory:

        def hold(ready: threading.Event, go_on: threading.Event) -> None:
            with factory() as session:
                session.execute(ONE)
                ready.set()
                go_on.wait()

        def use() -> None:
            caplog.clear()
            with factory() as session:
                session.execute(ONE)
                until(lambda: bool(caplog.messages))

        with meanwhile(hold):
            in_child(use)


def test_password_that_is_asked_for(postgres_server: PostgresServer) -> None:
    """A child asks for itself, and does not wait for a thread that asked."""
    url = make_url(postgres_server.url)
    secret = RotatingSecret(lambda: url.password or "", cached_for=0)
    settings = DatabaseSettings(url._replace(password=None), password=secret)

    def hold(ready: threading.Event, go_on: threading.Event) -> None:
        with secret._lock:
            ready.set()
            go_on.wait()

    with SqlAlchemySessionFactory(settings) as factory, meanwhile(hold):
        assert in_child(lambda: ask(factory)) == 1


def test_closing_parent(factory: SqlAlchemySessionFactory) -> None:
    """The child of a process that closes its factory has a closed one, and poisoned sessions."""
    session = factory()
    session.execute(ONE)
    closing = threading.Thread(target=factory.close)
    closing.start()
    while not factory._managed.ledger.closed:
        pass

    def use() -> None:
        with pytest.raises(ForkedConnectionError):
            session.execute(ONE)
        session.close()
        assert factory.ping().state == "closed"

    in_child(use)
    assert session.scalar(ONE) == 1
    session.close()
    closing.join()


def test_one_that_fails(factory: SqlAlchemySessionFactory) -> None:
    """An engine that cannot restart in the child does not keep others from it."""

    class Failing:
        """Wants to be told of forks, and fails."""

        def before_fork(self) -> None: ...

        def start_anew(self) -> None:
            raise KeyError(os.getpid())

    ask(factory)
    inherited = factory.status().size
    failing = [Failing() for _ in range(20)]  # no order is promised
    for each in failing:
        forks.register(each)
    assert inherited == 1
    assert in_child(lambda: (factory.status().size, ask(factory))) == (0, 1)
