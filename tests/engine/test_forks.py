"""A forked process and the connections of its parent: the sync half."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import event, text

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    ForkedConnectionError,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from tests.support.child import Child, in_child

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

SEQUENCE = {
    "postgresql": "generate_series(1, 1000) AS n",
    "mysql": "(SELECT seq AS n FROM seq_1_to_1000) AS s",
}
ONE = text("SELECT 1")
SERVERS = {"psycopg": "postgres_server", "psycopg2": "postgres_server", "pymysql": "mariadb_server"}
REFUSED = r"forked while a session of 'default' was in use.*\(taken at .*test_forks.py:\d+ in "


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a real server, with each driver in turn."""
    server = request.getfixturevalue(SERVERS[request.param])
    return cast("str", server.url_for(driver=request.param))


@pytest.fixture
def factory(url: str) -> Generator[SqlAlchemySessionFactory]:
    """A factory of three connections, and an empty table ``forked(a)``."""
    settings = DatabaseSettings(url, pool=PoolSettings(size=3, max_overflow=0, timeout=10))
    with SqlAlchemySessionFactory(settings) as made:
        with made.begin() as session:
            session.execute(text("DROP TABLE IF EXISTS forked"))
            session.execute(text("CREATE TABLE forked (a integer)"))
        yield made


def rows(factory: SqlAlchemySessionFactory) -> list[int]:
    with factory() as session:
        return list(session.scalars(text("SELECT a FROM forked ORDER BY a")))


def insert(session: Session, number: int) -> None:
    session.execute(text("INSERT INTO forked VALUES (:number)"), {"number": number})


def server_process(session: Session) -> int:
    mysql = session.get_bind().dialect.name == "mysql"
    return session.scalar(text(f"SELECT {'connection_id' if mysql else 'pg_backend_pid'}()")) or 0


def fill(factory: SqlAlchemySessionFactory) -> set[int]:
    """Have three connections lie idle; return the server's numbers of them."""
    sessions = [factory() for _ in range(3)]
    numbers = {server_process(session) for session in sessions}
    for session in sessions:
        session.close()
    return numbers


def echo(factory: SqlAlchemySessionFactory) -> set[int]:
    """Have the server say tokens of this process again; return which connections did."""
    used: set[int] = set()
    for turn in range(30):
        token = f"{os.getpid()}-{turn}"
        with factory.begin() as session:
            used.add(server_process(session))
            assert session.scalar(text("SELECT :token"), {"token": token}) == token
    return used


def test_idle_connections(factory: SqlAlchemySessionFactory) -> None:
    """Processes forked from one with an idle pool, and this one, all get their own answers."""
    inherited = fill(factory)
    children = [Child(lambda: echo(factory)) for _ in range(3)]
    mine = echo(factory)
    theirs = [child.outcome() for child in children]
    assert mine <= inherited
    assert not set[int]().union(*theirs) & inherited
    assert sum(map(len, theirs)) == len(set[int]().union(*theirs))


def test_in_a_transaction(factory: SqlAlchemySessionFactory) -> None:
    """The child of a process in a transaction raises; the parent commits all that it wrote."""

    def use(session: Session) -> str:
        with pytest.raises(ForkedConnectionError, match=REFUSED) as refused:
            insert(session, 3)
        session.rollback()
        session.close()
        with factory.begin() as own:
            insert(own, 4)
        with pytest.raises(ClosedError):  # a session like any other
            insert(session, 5)
        return str(refused.value)

    with factory() as session:
        insert(session, 1)
        message = in_child(lambda: use(session))
        insert(session, 2)
        session.commit()
    assert message.endswith(
        "Close this session, which sends nothing, and open a new one; or fork while no session is"
        " open"
    )
    assert rows(factory) == [1, 2, 4]


@pytest.mark.parametrize("error", [None, KeyError("of the child")])
def test_end_of_a_block(
    factory: SqlAlchemySessionFactory,
    error: BaseException | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The child leaves the parent's block: to commit raises, to roll back is silent."""

    def leave() -> None:
        if error is not None:
            scope.__exit__(type(error), error, None)
        else:
            with pytest.raises(ForkedConnectionError, match=REFUSED):
                scope.__exit__(None, None, None)
        assert caplog.records == []
        assert factory.status().in_use == 0

    scope = factory.begin()
    session = scope.__enter__()
    insert(session, 1)
    in_child(leave)
    insert(session, 2)
    scope.__exit__(None, None, None)
    assert rows(factory) == [1, 2]


def test_dropped_sessions(
    factory: SqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that the child drops is dropped without a word."""
    sessions = [factory()]
    insert(sessions[0], 1)

    def drop() -> None:
        sessions.clear()
        gc.collect()
        assert caplog.records == []

    in_child(drop)
    sessions[0].commit()
    assert rows(factory) == [1]


def test_open_result(factory: SqlAlchemySessionFactory) -> None:
    """The child cannot read on in a result that streams; the parent reads every row of it."""
    numbers = text(f"SELECT n, repeat('x', 1000) FROM {SEQUENCE[factory.engine.dialect.name]}")
    options = {"stream_results": True, "max_row_buffer": 10}
    with factory() as session:
        result = session.execute(numbers, execution_options=options)
        first = result.fetchmany(10)

        def read_on() -> int:
            read = 10
            with pytest.raises(ForkedConnectionError, match=REFUSED):
                for _ in result:
                    read += 1
            session.close()
            return read

        assert in_child(read_on) < 1000
        assert [row[0] for row in (*first, *result)] == list(range(1, 1001))


def test_while_it_connects(postgres_server: PostgresServer) -> None:
    """Who forks while a connection is being set up waits for no thread in the child."""
    go_on = threading.Event()
    pool = PoolSettings(size=1, max_overflow=0, timeout=20)
    settings = DatabaseSettings(postgres_server.url, pool=pool)
    with SqlAlchemySessionFactory(settings) as factory:
        parent = os.getpid()
        held = threading.Event()

        @event.listens_for(factory.engine, "connect")
        def hold(*_: object) -> None:
            if os.getpid() == parent:
                held.set()
                assert go_on.wait(20)

        with ThreadPoolExecutor(1) as threads:
            mine = threads.submit(echo, factory)
            assert held.wait(20)
            child = Child(lambda: echo(factory))
            theirs = child.outcome()
            go_on.set()
            assert not mine.result() & theirs
