"""The engine's care on real servers: PostgreSQL by two drivers, MariaDB."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    Health,
    PoolSettings,
    ReadOnlyError,
    SettingsError,
    SqlAlchemySessionFactory,
)
from sessionfactory.engine import timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy.orm import Session

    from sessionfactory import Secret
    from sessionfactory.testing import PostgresServer

    Make = Callable[..., SqlAlchemySessionFactory]


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row_of_servers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


@pytest.fixture(params=["psycopg", "psycopg2", "pymysql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real server, with each driver in turn."""
    name = "mariadb_server" if request.param == "pymysql" else "postgres_server"
    server = request.getfixturevalue(name)
    return cast("str", server.url_for(driver=request.param))


@pytest.fixture
def make() -> Generator[Make]:
    """Make factories that are closed at the end."""
    made: list[SqlAlchemySessionFactory] = []

    def make(url: str, **settings: object) -> SqlAlchemySessionFactory:
        given = cast("dict[str, Any]", settings)  # the tests name the settings
        made.append(SqlAlchemySessionFactory(DatabaseSettings(url, **given)))
        return made[-1]

    yield make
    for factory in made:
        factory.close(timeout=0)


@pytest.fixture
def factory(server_url: str, make: Make) -> Generator[SqlAlchemySessionFactory]:
    """A factory on a real server with an empty table."""
    factory = make(server_url)
    Base.metadata.create_all(factory.engine)
    yield factory
    with SqlAlchemySessionFactory(DatabaseSettings(server_url)) as last:
        Base.metadata.drop_all(last.engine)


def scalar(session: Session, sql: str) -> object:
    return session.scalar(text(sql))


def test_transactions(factory: SqlAlchemySessionFactory) -> None:
    """A block commits or rolls back as on any database."""
    with factory.begin() as session:
        session.add(Row(id=1))
    with pytest.raises(KeyError), factory.begin() as session:
        session.add(Row(id=2))
        session.flush()
        raise KeyError
    with factory() as session:
        assert scalar(session, "SELECT count(*) FROM row_of_servers") == 1


def test_reader_is_enforced(factory: SqlAlchemySessionFactory) -> None:
    """The database refuses writes of a reader, on flush and in raw SQL; others write on."""
    with factory.reader.begin() as session:
        assert scalar(session, "SELECT count(*) FROM row_of_servers") == 0
    with pytest.raises(ReadOnlyError, match="read-only"), factory.reader.begin() as session:
        session.add(Row(id=1))
    with pytest.raises(ReadOnlyError), factory.reader() as session:
        session.execute(text("INSERT INTO row_of_servers VALUES (1)"))
    with factory.begin() as session:
        session.add(Row(id=1))
    assert factory.status().size == 1  # on the same pool


def test_idle_connections_are_asked(factory: SqlAlchemySessionFactory, server_url: str) -> None:
    """A connection that died while it was idle is replaced before anybody uses it."""
    with SqlAlchemySessionFactory(
        DatabaseSettings(server_url, pool=PoolSettings(ping_after=0))
    ) as asking:
        with asking() as one, asking() as two:
            _kill_after_use(factory, one, two)
        with asking.begin() as session:
            assert scalar(session, "SELECT 1") == 1


def test_nothing_is_looked_at_without_pre_ping(
    factory: SqlAlchemySessionFactory, server_url: str
) -> None:
    """Without pre_ping, a dead connection shows in use."""
    settings = DatabaseSettings(server_url, pool=PoolSettings(pre_ping=False))
    with SqlAlchemySessionFactory(settings) as trusting:
        with trusting() as session:
            _kill_after_use(factory, session)
        with pytest.raises(DBAPIError), trusting() as session:
            session.execute(text("SELECT 1"))


def _backend(session: Session) -> int:
    dialect = session.get_bind().dialect.name
    function = "pg_backend_pid()" if dialect == "postgresql" else "connection_id()"
    return cast("int", scalar(session, f"SELECT {function}"))


def _kill_after_use(factory: SqlAlchemySessionFactory, *sessions: Session) -> None:
    """Kill the connections of sessions once they have given them back."""
    backends = [_backend(session) for session in sessions]
    for session in sessions:
        session.close()
    with factory.engine.connect() as connection:
        for backend in backends:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_terminate_backend({backend}, 5000)")
            else:
                connection.exec_driver_sql(f"KILL {backend}")


def test_time_limits(server_url: str, make: Make) -> None:
    """Every connection obeys the limits, and a statement that runs too long is ended."""
    factory = make(
        server_url, statement_timeout=0.25, lock_timeout=3, idle_in_transaction_timeout=90
    )
    shown: dict[str, dict[str, object]] = {
        "postgresql": {
            "SHOW statement_timeout": "250ms",
            "SHOW lock_timeout": "3s",
            "SHOW idle_in_transaction_session_timeout": "90s",
        },
        "mysql": {
            "SELECT @@max_statement_time": 0.25,
            "SELECT @@innodb_lock_wait_timeout": 3,
            "SELECT @@lock_wait_timeout": 3,
            "SELECT @@idle_transaction_timeout": 90,
        },
    }
    with factory() as session:
        dialect = factory.engine.dialect.name
        for sql, value in shown[dialect].items():
            assert str(scalar(session, sql)).replace("1min 30s", "90s").rstrip("0") == str(
                value
            ).rstrip("0")
        sleep = "SELECT pg_sleep(60)" if dialect == "postgresql" else "SELECT sleep(60) FROM dual"
        with pytest.raises(DBAPIError, match=r"statement timeout|max_statement_time|interrupted"):
            session.execute(text(sleep if dialect == "postgresql" else _LONG_ON_MARIADB))


_LONG_ON_MARIADB = "SELECT count(*) FROM seq_1_to_100000 a, seq_1_to_100000 b"


def test_options_of_the_url_win(postgres_server: PostgresServer, make: Make) -> None:
    """Start-up options of the URL are kept, and win over the settings."""
    url = make_url(postgres_server.url).update_query_dict(
        {"options": "-c lock_timeout=7000 -c search_path=elsewhere"}
    )
    factory = make(url, lock_timeout=3, statement_timeout=4)
    with factory() as session:
        assert scalar(session, "SHOW lock_timeout") == "7s"
        assert scalar(session, "SHOW statement_timeout") == "4s"
        assert scalar(session, "SHOW search_path") == "elsewhere"


def test_limits_of_mysql_itself() -> None:
    """MySQL has other names than MariaDB, and no limit for idle transactions."""
    asked = {"statement_timeout": 0.25, "lock_timeout": 0.5}
    assert timeouts.mysql_variables(asked, mariadb=False) == {
        "max_execution_time": 250,
        "innodb_lock_wait_timeout": 1,
        "lock_wait_timeout": 1,
    }
    with pytest.raises(SettingsError, match="idle_in_transaction_timeout: MySQL has no such limit"):
        timeouts.mysql_variables({"idle_in_transaction_timeout": 1}, mariadb=False)


@pytest.mark.parametrize("limit", timeouts._ALL_LIMITS)
def test_limits_that_sqlite_lacks(limit: str, make: Make) -> None:
    """A limit that the database does not know is refused, and not ignored."""
    message = f"{limit}: sqlite has no such limit; use sqlite.busy_timeout"
    with pytest.raises(SettingsError, match=message):
        make("sqlite://", **{limit: 1.0})


def test_ping(factory: SqlAlchemySessionFactory) -> None:
    """A server that answers is well, and the ping leaves nothing out."""
    health = factory.ping()
    assert (health.state, health.detail) == ("ok", "")
    assert health.latency is not None
    assert factory.status().in_use == 0


def test_ping_refused(server_url: str, make: Make) -> None:
    """A wrong password is a refusal; the detail has the server's words and no secret."""
    url = make_url(server_url).set(password="canary-4711")
    health = make(url).ping()
    assert health.state == "refused", health
    assert "canary" not in repr(health)


def test_ping_unreachable(server_url: str, make: Make) -> None:
    """A port without a listener is unreachable."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = make_url(server_url).set(port=unheard.getsockname()[1])
        assert make(url).ping().state == "unreachable"


def test_ping_of_a_server_that_never_accepts(server_url: str, make: Make) -> None:
    """A listener that never accepts cannot hold the ping; two at a time share one attempt."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:
        url = make_url(server_url).set(port=deaf.getsockname()[1])
        factory = make(url, connect_timeout=2)
        before = threading.active_count()
        for _ in range(3):
            health = factory.ping(timeout=0.05)
            assert health == Health("unreachable", None, "no connection within 0.05 s")
        assert threading.active_count() <= before + 2  # one waits, one connects


def test_ping_saturated(server_url: str, make: Make) -> None:
    """A pool that is all out is saturated, at once and without waiting."""
    factory = make(server_url, pool=PoolSettings(size=1, max_overflow=0))
    with factory() as session:
        session.execute(text("SELECT 1"))
        assert factory.ping(timeout=3600).state == "saturated"
    assert factory.ping().ok


def test_ping_slow(own_postgres: PostgresServer, make: Make) -> None:
    """A server that took the connection and does not answer in time is slow."""
    factory = make(own_postgres.url)
    with factory() as session:
        backend = _backend(session)
    os.kill(backend, signal.SIGSTOP)
    try:
        health = factory.ping(timeout=0.05)
    finally:
        os.kill(backend, signal.SIGCONT)
    assert health == Health("slow", None, "connected, but no answer within 0.05 s")


def test_close_cancels_a_running_statement(postgres_server: PostgresServer, make: Make) -> None:
    """A statement that runs past the deadline is cancelled, and its server process is gone."""
    factory = make(postgres_server.url)
    ready, errors, backends = threading.Event(), list[BaseException](), list[int]()

    def work() -> None:
        try:
            with factory.begin() as session:
                backends.append(_backend(session))
                ready.set()
                session.execute(text("SELECT pg_sleep(600)"))
        except (DBAPIError, ClosedError) as error:
            errors.append(error)

    worker = threading.Thread(target=work, name="sleeper")
    worker.start()
    assert ready.wait(10)
    (holder,) = factory.close(timeout=0.05)
    worker.join(10)
    assert holder.owner == "thread sleeper"
    assert len(errors) == 1
    watching = make(postgres_server.url)
    with watching.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {backends[0]}"
        while connection.exec_driver_sql(query).scalar():
            pass


def test_close_cuts_an_idle_transaction(factory: SqlAlchemySessionFactory, make: Make) -> None:
    """Who sits in a transaction past the deadline is cut off; nothing of it is committed."""
    url = factory.settings.url.set(password=cast("Secret", factory.settings.password).reveal())
    ready, closed = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with factory.begin() as session:
                session.add(Row(id=7))
                session.flush()
                ready.set()
                assert closed.wait(10)
        except ClosedError as error:
            errors.append(error)

    worker = threading.Thread(target=work, name="sitter")
    worker.start()
    assert ready.wait(10)
    (holder,) = factory.close(timeout=0.05)
    closed.set()
    worker.join(10)
    assert holder.owner == "thread sitter"
    assert len(errors) == 1
    with make(url)() as session:
        assert scalar(session, "SELECT count(*) FROM row_of_servers") == 0


def test_wrong_password_is_the_drivers_error(server_url: str, make: Make) -> None:
    """A failed connect is SQLAlchemy's own error, raised anew without the frames that saw it."""
    url = make_url(server_url).set(password="canary-4711")
    with pytest.raises(OperationalError) as caught, make(url).begin() as session:
        session.execute(text("SELECT 1"))
    assert "canary" not in str(caught.value)
