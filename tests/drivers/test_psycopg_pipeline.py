"""BEGIN that travels, and an end that is not awaited: what might go wrong with either."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.util.concurrency import await_only

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    CommitRolledBackError,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import FaultProxy
from tests.support.child import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import URL, Connection

    from sessionfactory.testing import PostgresServer

ONE = text("SELECT CAST(:n AS int)")
PID = text("SELECT pg_backend_pid()")
READS = {"postgresql_readonly": True}


def settings_for(
    url: str | URL, *, pre_ping: bool = True, pipeline: bool = True, **arguments: object
) -> DatabaseSettings:
    """Return settings whose pool is one connection, which is pinged before it is used if asked."""
    return DatabaseSettings(
        url,
        pipeline=pipeline,
        pool=PoolSettings(size=1, max_overflow=0, pre_ping=pre_ping),
        engine_options={"connect_args": arguments},
    )


@pytest.fixture
def factory(postgres_server: PostgresServer) -> Generator[SqlAlchemySessionFactory]:
    """A factory that pipelines, on one connection."""
    with SqlAlchemySessionFactory(settings_for(postgres_server.url)) as made:
        yield made


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Generator[FaultProxy]:
    """What falls silent when it is told to."""
    with FaultProxy(postgres_server.url) as made:
        yield made


def driver_of(connection: Connection) -> Any:
    """Return psycopg's connection."""
    return connection.connection.driver_connection


def is_awaited(connection: Connection) -> bool:
    """Say whether the answer to the last command was read, as libpq sees it."""
    return bool(driver_of(connection).pgconn.transaction_status == TransactionStatus.IDLE)


@pytest.mark.parametrize("name", ["__call__", "begin"])
def test_end_of_a_read(name: str, proxy: FaultProxy) -> None:
    """The response to the end of a read is not waited for: it may never come."""
    with SqlAlchemySessionFactory(settings_for(proxy.url)) as factory:
        with factory.reader() as session:
            pid = session.scalar(PID)
        with getattr(factory.reader, name)() as session:
            assert session.scalar(PID) == pid
            proxy.black_hole()
        assert factory.status().in_use == 0
        proxy.restore()
        with factory.begin() as session:
            assert session.scalar(PID) == pid


def test_end_of_a_read_async(proxy: FaultProxy) -> None:
    """The async half does not wait for it, either."""

    async def run() -> None:
        async with AsyncSqlAlchemySessionFactory(settings_for(proxy.url)) as factory:
            async with factory.reader() as session:
                pid = await session.scalar(PID)
            async with factory.reader.begin() as session:
                assert await session.scalar(PID) == pid
                proxy.black_hole()
            assert factory.status().in_use == 0
            proxy.restore()
            async with factory.begin() as session:
                assert await session.scalar(PID) == pid

    asyncio.run(run())


def read_as(connection: Connection) -> None:
    """Read a value."""
    assert connection.scalar(ONE, {"n": 1}) == 1


def set_something(connection: Connection) -> None:
    """Set what a rollback would undo."""
    connection.execute(text("SET application_name = 'set'"))


def read_by_a_server_side_cursor(connection: Connection) -> None:
    """Read by a cursor of the server's."""
    found = connection.execute(ONE, {"n": 1}, execution_options={"stream_results": True})
    assert found.scalar() == 1


def read_by_another_cursor(connection: Connection) -> None:
    """Read by a cursor that is not ours."""
    assert psycopg.ClientCursor(driver_of(connection)).execute("SELECT 1").fetchone() == (1,)


def read_many(connection: Connection) -> None:
    """Read by executemany."""
    connection.execute(text("SELECT CAST(:n AS int)"), [{"n": 1}, {"n": 2}])


def fail(connection: Connection) -> None:
    """Fail."""
    with pytest.raises(DBAPIError, match="division by zero"):
        connection.execute(text("SELECT 1 / :n"), {"n": 0})


@pytest.mark.parametrize(
    ("options", "work", "awaited"),
    [
        (READS, read_as, False),
        (READS | {"isolation_level": "REPEATABLE READ"}, read_as, False),
        (READS | {"isolation_level": "SERIALIZABLE"}, read_as, True),
        (
            READS | {"isolation_level": "SERIALIZABLE", "postgresql_deferrable": True},
            read_as,
            False,
        ),
        (READS | {"postgresql_deferrable": True}, read_as, False),
        ({}, read_as, True),
        (READS, set_something, True),
        (READS, read_by_a_server_side_cursor, True),
        (READS, read_by_another_cursor, True),
        (READS, read_many, True),
        (READS, fail, True),
    ],
)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_which_ends_are_awaited(
    options: dict[str, Any],
    work: Callable[[Connection], None],
    awaited: bool,  # noqa: FBT001
    end: str,
    factory: SqlAlchemySessionFactory,
) -> None:
    """Awaited is the end of all but reads, and of reads that are true only once it succeeded."""
    with factory.engine.connect() as connection:
        connection.execution_options(**options)
        with connection.begin():
            work(connection)
            read_as(connection) if work is not fail else None
            given_up = work is fail and end == "commit"
            with pytest.raises(CommitRolledBackError) if given_up else nullcontext():
                getattr(connection.get_transaction(), end)()
            assert is_awaited(connection) is awaited


def test_serializable_by_default(postgres_server: PostgresServer) -> None:
    """That reads are SERIALIZABLE may be the session's own default, which the server is asked."""
    options = "-c default_transaction_isolation=serializable"
    with (
        SqlAlchemySessionFactory(settings_for(postgres_server.url, options=options)) as factory,
        factory.engine.connect() as connection,
    ):
        connection.execution_options(**READS)
        read_as(connection)
        connection.commit()
        assert is_awaited(connection)
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("SET default_transaction_isolation = 'read committed'")
        driver_of(connection).autocommit = False
        driver_of(connection).isolation_level = None
        read_as(connection)
        connection.commit()
        assert not is_awaited(connection)


def copy_out(connection: Connection) -> None:
    """COPY as the first operation."""
    with driver_of(connection).cursor().copy("COPY (SELECT 1) TO STDOUT") as copying:
        assert copying.read() == b"1\n"


def use_autocommit(connection: Connection) -> None:
    """Execute outside any transaction."""
    connection.execution_options(isolation_level="AUTOCOMMIT")
    assert connection.scalar(text("SELECT 1")) == 1
    assert is_awaited(connection)


def use_two_phases(connection: Connection) -> None:
    """Begin in two phases, and give up."""
    transaction = connection.begin_twophase()
    read_as(connection)
    transaction.rollback()


def use_drivers_pipeline(connection: Connection) -> None:
    """Use the driver's own pipeline mode."""
    driver = driver_of(connection)
    with driver.pipeline():
        cursor = driver.execute("SELECT %s::int", [1])
    assert cursor.fetchone() == (1,)
    driver.rollback()


def use_drivers_stream(connection: Connection) -> None:
    """Stream rows."""
    assert list(driver_of(connection).cursor().stream("SELECT 1")) == [(1,)]
    driver_of(connection).rollback()


def use_drivers_transaction(connection: Connection) -> None:
    """Use the driver's own transaction block."""
    with driver_of(connection).transaction():
        assert driver_of(connection).execute("SELECT 1").fetchone() == (1,)


def listen(connection: Connection) -> None:
    """Wait for notifications that do not come."""
    assert list(driver_of(connection).notifies(timeout=0)) == []


def ask_for_the_level(connection: Connection) -> None:
    """Ask for the isolation level, which SQLAlchemy does in a transaction that it ends."""
    assert connection.get_isolation_level() == "READ COMMITTED"
    assert driver_of(connection).info.transaction_status == TransactionStatus.IDLE


def ping(connection: Connection) -> None:
    """Ping."""
    inner = connection.connection.dbapi_connection
    assert inner is not None
    assert connection.dialect.do_ping(inner)


def end_again(connection: Connection) -> None:
    """End what is over, which sends nothing."""
    driver_of(connection).commit()
    driver_of(connection).rollback()
    assert driver_of(connection).info.transaction_status == TransactionStatus.IDLE
    assert not is_awaited(connection)


def close(connection: Connection) -> None:
    """Close the connection."""
    driver_of(connection).close()
    connection.invalidate()


def read_wrongly(connection: Connection) -> None:
    """Use a cursor that is closed, which sends nothing."""
    cursor = driver_of(connection).cursor()
    cursor.close()
    with pytest.raises(psycopg.InterfaceError, match="the cursor is closed"):
        cursor.execute("SELECT 1")
    connection.rollback()


def read_several(connection: Connection) -> None:
    """Execute two statements in one text."""
    assert connection.exec_driver_sql("SELECT 1; SELECT 2").scalar() == 1


@pytest.mark.parametrize(
    "work",
    [
        *(read_as, read_many, read_several, copy_out, use_autocommit, use_two_phases),
        *(use_drivers_pipeline, use_drivers_stream, use_drivers_transaction, listen),
        *(ask_for_the_level, ping, end_again, close, read_wrongly, set_something),
        *(read_by_a_server_side_cursor, read_by_another_cursor, fail),
    ],
)
def test_what_comes_after_an_end(
    work: Callable[[Connection], None], factory: SqlAlchemySessionFactory
) -> None:
    """Whatever comes after an end that was not awaited finds the connection at rest."""
    for _ in range(2):
        with factory.engine.connect() as connection:
            connection.execution_options(**READS)
            read_as(connection)
            connection.commit()
            assert not is_awaited(connection)
            work(connection)
        with factory.begin() as session:
            assert session.scalar(ONE, {"n": 2}) == 2


def use_drivers_stream_async(connection: Connection) -> None:
    """Stream rows, in the async half."""

    async def stream() -> list[object]:
        rows = [row async for row in driver_of(connection).cursor().stream("SELECT 1")]
        await driver_of(connection).rollback()
        return rows

    assert await_only(stream()) == [(1,)]


@pytest.mark.parametrize(
    "work",
    [
        *(read_as, read_many, read_several, use_autocommit, use_two_phases, ask_for_the_level),
        *(ping, read_by_a_server_side_cursor, set_something, fail, use_drivers_stream_async),
    ],
)
def test_what_comes_after_an_end_async(
    work: Callable[[Connection], None], postgres_server: PostgresServer
) -> None:
    """And so it does in the async half."""

    async def run() -> None:
        async with AsyncSqlAlchemySessionFactory(settings_for(postgres_server.url)) as factory:
            for _ in range(2):
                async with factory.engine.connect() as connection:
                    await connection.execution_options(**READS)
                    await connection.run_sync(read_as)
                    await connection.commit()
                    assert not await connection.run_sync(is_awaited)
                    await connection.run_sync(work)
                async with factory.begin() as session:
                    assert await session.scalar(ONE, {"n": 2}) == 2

    asyncio.run(run())


@pytest.mark.parametrize("pre_ping", [True, False])
@pytest.mark.parametrize("reads", [True, False])
def test_connection_that_died(pre_ping: bool, reads: bool, postgres_server: PostgresServer) -> None:  # noqa: FBT001
    """A connection that died after a transaction is replaced, or its loss is told as always."""
    settings = settings_for(postgres_server.url, pre_ping=pre_ping)
    with SqlAlchemySessionFactory(settings) as factory:
        with (factory.reader if reads else factory).begin() as session:
            pid = session.scalar(PID)
        postgres_server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        if not pre_ping:
            with pytest.raises(OperationalError) as caught, factory.begin() as session:
                session.scalar(PID)
            assert caught.value.connection_invalidated
        with factory.begin() as session:
            assert session.scalar(PID) != pid


def test_end_that_fails(
    factory: SqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """An end that fails, which takes a function that writes to a temporary table, is logged."""
    with factory.engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TEMP TABLE a (id int PRIMARY KEY);"
            "CREATE TEMP TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);"
            "CREATE FUNCTION pg_temp.breach() RETURNS int LANGUAGE sql"
            " AS 'INSERT INTO b VALUES (4711) RETURNING 1'"
        )
        connection.commit()
        connection.execution_options(**READS)
        connection.execute(text("SELECT pg_temp.breach()"))
        connection.commit()
        with caplog.at_level(logging.WARNING, "sessionfactory"):
            read_as(connection)
        assert "The end of a read-only transaction failed: insert or update" in caplog.text
        assert "4711" not in caplog.text


@pytest.mark.parametrize("pipeline", [False, True])
def test_server_that_goes_during_a_first_statement(
    postgres_server: PostgresServer,
    pipeline: bool,  # noqa: FBT001
) -> None:
    """Its caller gets the reason, as on the plain path."""
    settings = settings_for(postgres_server.url, pipeline=pipeline)
    with SqlAlchemySessionFactory(settings) as factory:
        end = text("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(:seconds)")
        with (
            pytest.raises(OperationalError, match="terminating connection due to") as caught,
            factory.begin() as session,
        ):
            session.execute(end, {"seconds": 5})
        assert caught.value.connection_invalidated
        with factory.begin() as session:
            assert session.scalar(ONE, {"n": 1}) == 1


def test_begin_that_fails(factory: SqlAlchemySessionFactory) -> None:
    """BEGIN's own error is the first statement's, and the connection is as before."""
    with factory.engine.connect() as connection:
        driver = driver_of(connection)
        driver._begin_statement = b"BEGIN ISOLATION LEVEL UNHEARD OF"
        with pytest.raises(ProgrammingError, match="UNHEARD"):
            read_as(connection)
        assert driver.info.transaction_status == TransactionStatus.IDLE
        connection.rollback()
        driver.isolation_level = None
        read_as(connection)


def test_first_statement_that_is_prepared(postgres_server: PostgresServer) -> None:
    """PREPARE travels along, too; a statement that cannot be prepared is not taken for prepared."""
    settings = settings_for(postgres_server.url, prepare_threshold=0)
    with (
        SqlAlchemySessionFactory(settings) as factory,
        factory.engine.connect() as connection,
    ):
        for _ in range(2):
            with pytest.raises(ProgrammingError, match="no_such_column"):
                connection.execute(text("SELECT no_such_column + :n"), {"n": 1})
            assert driver_of(connection).info.transaction_status == TransactionStatus.INERROR
            connection.rollback()
            fail(connection)  # it is prepared, and then fails
            connection.rollback()
            read_as(connection)
            connection.commit()


def test_statement_that_libpq_does_not_take(factory: SqlAlchemySessionFactory) -> None:
    """BEGIN is on its way when libpq refuses a statement; the transaction can be used."""
    with factory.engine.connect() as connection:
        cursor = driver_of(connection).cursor()
        with pytest.raises(psycopg.OperationalError, match="number of parameters"):
            cursor.execute("SELECT 1" + " + %s" * 70_000, [1] * 70_000)
        assert driver_of(connection).info.transaction_status == TransactionStatus.INTRANS
        assert cursor.execute("SELECT %s", [1]).fetchone() == (1,)


@pytest.mark.parametrize("comment", ["", "-- one\n /* two */\n", "/* /* nested */ */ "])
def test_copy_by_execute(comment: str, postgres_server: PostgresServer) -> None:
    """COPY by ``execute`` is psycopg's own error, and never hangs."""
    with psycopg.connect(postgres_server.url.replace("+psycopg", "")) as other:
        pid = other.info.backend_pid
    with SqlAlchemySessionFactory(settings_for(postgres_server.url)) as factory:
        with factory.engine.connect() as connection:
            cursor = driver_of(connection).cursor()
            with pytest.raises(psycopg.ProgrammingError, match=r"use copy\(\) instead"):
                cursor.execute(f"{comment}copy pg_class TO STDOUT")
            connection.invalidate()
        with factory.begin() as session:
            assert session.scalar(PID) != pid


def test_close_cancels_a_first_statement(postgres_server: PostgresServer) -> None:
    """close() cancels a transaction that is in its first flight, and names who had it."""
    began = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with made.begin() as session:
                began.set()
                session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 60})
        except BaseException as error:  # noqa: BLE001 - it is looked at
            errors.append(error)

    with SqlAlchemySessionFactory(settings_for(postgres_server.url)) as made:
        made.engine.connect().close()
        thread = threading.Thread(target=work)
        thread.start()
        assert began.wait(10)
        while not made.status().in_use:
            pass
        assert len(made.close(timeout=0)) == 1
        thread.join(10)
        assert not thread.is_alive()
        assert len(errors) == 1


def test_statement_timeout(postgres_server: PostgresServer) -> None:
    """A first statement that takes too long is cancelled by the server, BEGIN being done."""
    options = "-c statement_timeout=20"
    with (
        SqlAlchemySessionFactory(settings_for(postgres_server.url, options=options)) as factory,
        factory.engine.connect() as connection,
    ):
        with pytest.raises(OperationalError, match="statement timeout"):
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 60})
        assert driver_of(connection).info.transaction_status == TransactionStatus.INERROR
        connection.rollback()
        read_as(connection)


def test_cancelled_task(postgres_server: PostgresServer) -> None:
    """A task that is cancelled in a first statement leaves a pool that works."""

    async def run() -> None:
        async with AsyncSqlAlchemySessionFactory(settings_for(postgres_server.url)) as factory:
            for n in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), factory.begin() as session:
                        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 60})
                async with factory.reader() as session:
                    assert await session.scalar(ONE, {"n": n}) == n

    asyncio.run(run())


def test_event_loop_that_ends_after_a_read(postgres_server: PostgresServer) -> None:
    """The next event loop has a pool of its own, whatever was still to be read in the last one."""
    factory = AsyncSqlAlchemySessionFactory(settings_for(postgres_server.url))

    async def read(*, last: bool) -> object:
        async with factory.reader() as session:
            found = await session.scalar(ONE, {"n": 1})
        if last:
            await factory.aclose()
        return found

    assert asyncio.run(read(last=False)) == 1
    assert asyncio.run(read(last=True)) == 1


def test_fork_after_a_read(factory: SqlAlchemySessionFactory) -> None:
    """Parent and child both get their own answers when an end was not awaited at the fork."""

    def ask() -> object:
        with factory.reader() as session:
            return session.scalar(PID)

    pid = ask()
    assert in_child(ask) != pid
    assert ask() == pid
