"""What each driver's errors mean: real ones where a server runs here, recorded ones elsewhere."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sessionfactory import is_transient
from sessionfactory.drivers.error_codes import is_answer, kind_of
from sessionfactory.pool_errors import ConnectTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from sqlalchemy import URL, Connection

    from sessionfactory.testing import MariaDBServer, PostgresServer

POSTGRESQL: Final = ("psycopg", "psycopg2", "asyncpg")
MYSQL: Final = ("pymysql", "mysqlconnector", "aiomysql", "asyncmy")
ASYNC: Final = frozenset({"asyncpg", "aiomysql", "asyncmy", "aiosqlite"})


def run_on(url: URL | str, driver: str, block: Callable[[Connection], object]) -> None:
    """Run a block on a connection of a driver; async ones in a greenlet."""
    url = make_url(url)
    url = url.set(drivername=f"{url.get_backend_name()}+{driver}")
    if driver not in ASYNC:
        engine = create_engine(url)
        try:
            with engine.connect() as connection:
                block(connection)
        finally:
            engine.dispose()
        return

    async def main() -> None:
        engine = create_async_engine(url)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(block)
        finally:
            await engine.dispose()

    asyncio.run(main())


def error_of(url: URL | str, driver: str, block: Callable[[Connection], object]) -> Exception:
    """Return the error in which a block ends."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
        run_on(url, driver, block)
    return caught.value


def meaning(error: Exception) -> tuple[str | None, bool]:
    """Return an error's kind, and whether it would be an answer to COMMIT."""
    assert is_transient(error) == (kind_of(error) is not None)
    return kind_of(error), is_answer(error)


class Other:
    """Another client of the same database, which holds locks on the rows of ``held``."""

    def __init__(self, url: str, prepare: tuple[str, ...] = ()) -> None:
        self.engine = create_engine(url)
        self.connection = self.engine.connect()
        for statement in prepare:
            self.execute(statement)

    def execute(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement)

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()


TABLE: Final = (
    "CREATE TABLE held (id int PRIMARY KEY, value int)",
    "INSERT INTO held VALUES (1, 0), (2, 0)",
)
PATIENT: Final = "SET deadlock_timeout = '60s'"


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Generator[Other]:
    """Another client of PostgreSQL."""
    other = Other(postgres_server.url, TABLE)
    other.connection.commit()
    yield other
    other.connection.rollback()
    other.execute("DROP TABLE held")
    other.connection.commit()
    other.close()


@pytest.fixture
def mariadb(mariadb_server: MariaDBServer) -> Generator[Other]:
    """Another client of MariaDB."""
    other = Other(mariadb_server.url, TABLE)
    other.connection.commit()
    yield other
    other.connection.rollback()
    other.execute("DROP TABLE held")
    other.close()


UPDATE: Final = "UPDATE held SET value = value + 1 WHERE id = "


def deadlock(connection: Connection, other: Other, waits: Callable[[], bool]) -> None:
    """Wait for a row of the other transaction, which waits for one of ours."""
    connection.exec_driver_sql(f"{UPDATE}1")
    other.execute(f"{UPDATE}2")
    waiting = threading.Thread(target=other.execute, args=(f"{UPDATE}1",))
    waiting.start()
    try:
        while not waits():
            pass
        connection.exec_driver_sql(f"{UPDATE}2")
    finally:
        connection.rollback()
        waiting.join()


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_deadlock_on_postgresql(
    driver: str, postgres: Other, postgres_server: PostgresServer
) -> None:
    """The victim of a deadlock may be tried again."""
    postgres.execute(PATIENT)
    postgres.connection.commit()

    def waits() -> bool:
        return postgres_server.execute("SELECT 1 FROM pg_locks WHERE NOT granted") == "1"

    def block(connection: Connection) -> None:
        connection.exec_driver_sql("SET deadlock_timeout = '1ms'")
        deadlock(connection, postgres, waits)

    assert meaning(error_of(postgres_server.url, driver, block)) == ("conflict", True)


@pytest.mark.parametrize("driver", MYSQL)
def test_deadlock_on_mariadb(driver: str, mariadb: Other, mariadb_server: MariaDBServer) -> None:
    """The victim of a deadlock may be tried again; it is the one that has changed less."""
    mariadb.execute("INSERT INTO held SELECT seq + 2, 0 FROM seq_1_to_50")
    look = create_engine(mariadb_server.url, isolation_level="AUTOCOMMIT")

    def waits() -> bool:
        with look.connect() as connection:
            found = "SELECT count(*) FROM information_schema.innodb_lock_waits"
            return bool(connection.exec_driver_sql(found).scalar())

    try:
        error = error_of(
            mariadb_server.url, driver, lambda connection: deadlock(connection, mariadb, waits)
        )
    finally:
        look.dispose()
    assert meaning(error) == ("conflict", True)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_serialization_failure(
    driver: str, postgres: Other, postgres_server: PostgresServer
) -> None:
    """A row that changed since the transaction's snapshot is a conflict."""

    def block(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("SELECT * FROM held")
        postgres.execute(f"{UPDATE}1")
        postgres.connection.commit()
        connection.exec_driver_sql(f"{UPDATE}1")

    assert meaning(error_of(postgres_server.url, driver, block)) == ("conflict", True)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_lock_timeout_on_postgresql(
    driver: str, postgres: Other, postgres_server: PostgresServer
) -> None:
    """A lock that was waited for too long is told apart from a conflict."""

    def block(connection: Connection) -> None:
        postgres.execute(f"{UPDATE}1")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '1ms'")
        connection.exec_driver_sql(f"{UPDATE}1")

    assert meaning(error_of(postgres_server.url, driver, block)) == ("lock timeout", True)


@pytest.mark.parametrize("driver", MYSQL)
def test_lock_timeout_on_mariadb(
    driver: str, mariadb: Other, mariadb_server: MariaDBServer
) -> None:
    """MariaDB's error for it has no SQLSTATE of its own."""

    def block(connection: Connection) -> None:
        mariadb.execute(f"{UPDATE}1")
        connection.exec_driver_sql("SELECT * FROM held WHERE id = 1 FOR UPDATE NOWAIT")

    assert meaning(error_of(mariadb_server.url, driver, block)) == ("lock timeout", True)


@pytest.mark.parametrize("driver", POSTGRESQL)
@pytest.mark.parametrize("statement", ["INSERT INTO held VALUES (1, 0)", "SELECT 1 / 0", "oh"])
def test_what_would_fail_again_on_postgresql(
    statement: str, driver: str, postgres: Other, postgres_server: PostgresServer
) -> None:
    """An ordinary error is not transient."""
    error = error_of(
        postgres_server.url, driver, lambda connection: connection.exec_driver_sql(statement)
    )

    assert meaning(error) == (None, True)


@pytest.mark.parametrize("driver", MYSQL)
@pytest.mark.parametrize("statement", ["INSERT INTO held VALUES (1, 0)", "oh"])
def test_what_would_fail_again_on_mariadb(
    statement: str, driver: str, mariadb: Other, mariadb_server: MariaDBServer
) -> None:
    """An ordinary error is not transient."""
    error = error_of(
        mariadb_server.url, driver, lambda connection: connection.exec_driver_sql(statement)
    )

    assert meaning(error) == (None, True)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_killed_connection_to_postgresql(driver: str, postgres_server: PostgresServer) -> None:
    """A connection that the server has ended is lost, and would leave a COMMIT in doubt."""

    def block(connection: Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        postgres_server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        connection.exec_driver_sql("SELECT 1")

    assert meaning(error_of(postgres_server.url, driver, block)) == ("lost", False)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_connection_that_was_idle_for_too_long(
    driver: str, postgres_server: PostgresServer
) -> None:
    """A transaction that idled until the server had enough is lost."""

    def block(connection: Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '1ms'")
        while postgres_server.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
            pass
        connection.exec_driver_sql("SELECT 1")

    assert meaning(error_of(postgres_server.url, driver, block)) == ("lost", False)


@pytest.mark.parametrize("driver", MYSQL)
def test_a_killed_connection_to_mariadb(
    driver: str, mariadb: Other, mariadb_server: MariaDBServer
) -> None:
    """A connection that the server has ended is lost, and would leave a COMMIT in doubt."""

    def block(connection: Connection) -> None:
        number = connection.exec_driver_sql("SELECT connection_id()").scalar()
        mariadb.execute(f"KILL {number}")
        for _ in range(100):  # until the driver has noticed
            connection.exec_driver_sql("SELECT 1")

    assert meaning(error_of(mariadb_server.url, driver, block)) == ("lost", False)


@pytest.fixture
def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("driver", [*POSTGRESQL, *MYSQL])
def test_nobody_listens(driver: str, closed_port: int) -> None:
    """A server that cannot be reached is away; asyncpg's error is the system's, as it is."""
    backend = "postgresql" if driver in POSTGRESQL else "mysql"
    url = f"{backend}://somebody:secret@127.0.0.1:{closed_port}/database"

    assert meaning(error_of(url, driver, lambda _: None)) == ("away", False)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_server_that_takes_nobody_in(driver: str, postgres_server: PostgresServer) -> None:
    """A server in recovery says so, and may take clients in later."""
    with postgres_server.standby(settings={"hot_standby": "off"}) as standby:
        error = error_of(standby.url_for(), driver, lambda _: None)

    assert kind_of(error) in {"lost", "away"}


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_who_is_turned_down_is_turned_down_again(
    driver: str, postgres_server: PostgresServer
) -> None:
    """A wrong password or an unknown database is not transient."""
    url = make_url(postgres_server.url)

    for wrong in (url.set(password="wrong"), url.set(database="nowhere")):
        assert not is_transient(error_of(wrong, driver, lambda _: None))


@pytest.mark.parametrize("driver", ["pysqlite", "aiosqlite"])
def test_sqlite(driver: str, tmp_path: Path) -> None:
    """A database that another one writes to is busy, and so is an outdated snapshot."""
    url = f"sqlite:///{tmp_path / 'app.db'}?timeout=0"
    other = Other(url, (*TABLE, "COMMIT", "PRAGMA journal_mode = WAL"))

    def busy(connection: Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        finally:
            other.execute("ROLLBACK")

    def outdated(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT * FROM held").all()
        other.execute(f"{UPDATE}1")
        other.execute("COMMIT")
        connection.exec_driver_sql(f"{UPDATE}1")

    def refused(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO held VALUES (1, 0)")

    try:
        assert meaning(error_of(url, driver, busy)) == ("conflict", True)
        assert meaning(error_of(url, driver, outdated)) == ("conflict", True)
        assert meaning(error_of(url, driver, refused)) == (None, True)
    finally:
        other.close()


class Told:
    """What an error of oracledb has in its arguments."""

    def __init__(self, full_code: str) -> None:
        self.full_code = full_code


RECORDED: Final[list[tuple[str, list[object], tuple[str | None, bool]]]] = [
    ("oracledb.exceptions", [Told("ORA-08177")], ("conflict", True)),
    ("oracledb.exceptions", [Told("ORA-00060")], ("conflict", True)),
    ("oracledb.exceptions", [Told("ORA-00054")], ("lock timeout", True)),
    ("oracledb.exceptions", [Told("ORA-03113")], ("lost", False)),
    ("oracledb.exceptions", [Told("DPY-4011")], ("lost", False)),
    ("oracledb.exceptions", [Told("DPY-6005")], ("away", False)),
    ("oracledb.exceptions", [Told("ORA-00001")], (None, True)),
    ("oracledb.exceptions", [], (None, False)),
    (
        "pyodbc",
        ["40001", "[40001] [Microsoft] deadlock victim. (1205) (SQLExecDirectW)"],
        ("conflict", True),
    ),
    (
        "pyodbc",
        ["42000", "[42000] Snapshot isolation transaction aborted (3960)"],
        ("conflict", True),
    ),
    (
        "pyodbc",
        ["42000", "[42000] Lock request time out period exceeded. (1222)"],
        ("lock timeout", True),
    ),
    ("pyodbc", ["HYT00", "[HYT00] Query timeout expired (0)"], ("lock timeout", False)),
    ("pyodbc", ["08S01", "[08S01] Communication link failure (10054)"], ("lost", False)),
    ("pyodbc", ["08001", "[08001] TCP Provider: no connection (10061)"], ("away", False)),
    ("pyodbc", ["23000", "[23000] Violation of PRIMARY KEY constraint (2627)"], (None, True)),
    ("MySQLdb", [1213, "Deadlock found when trying to get lock"], ("conflict", True)),
    ("MySQLdb", [1205, "Lock wait timeout exceeded"], ("lock timeout", True)),
    ("MySQLdb", [2013, "Lost connection to server during query"], ("lost", False)),
    ("MySQLdb", [2006, "Server has gone away"], ("lost", False)),
    ("MySQLdb", [1062, "Duplicate entry"], (None, True)),
    # Galera and failover
    ("pymysql.err", [1047, "WSREP has not yet prepared node for application use"], ("away", True)),
    ("pymysql.err", [1180, "Got error 5 during COMMIT"], (None, False)),
    ("pymysql.err", [0, ""], (None, False)),
    ("psycopg.errors", ["no code"], (None, False)),
]


@pytest.mark.parametrize(("module", "arguments", "expected"), RECORDED)
def test_recorded_errors(
    module: str, arguments: list[object], expected: tuple[str | None, bool]
) -> None:
    """The errors of drivers whose servers do not run here, as their documentation has them."""
    error = type("DatabaseError", (Exception,), {"__module__": module})(*arguments)

    assert meaning(error) == expected
    assert meaning(DBAPIError("SELECT 1", {}, error)) == expected
    is_lost = DBAPIError("SELECT 1", {}, error, connection_invalidated=True)
    assert is_transient(is_lost)  # for whatever reason: a server that reads only, since a failover


def test_a_server_that_does_not_answer_is_away() -> None:
    """A connection that could not be opened in time may be opened the next time."""
    assert meaning(ConnectTimeoutError("no answer")) == ("away", True)


def test_errors_of_nobodys_driver() -> None:
    """What is not from a database is not judged, however much it looks like it."""
    assert meaning(ConnectionRefusedError("elsewhere")) == (None, False)
    assert meaning(TimeoutError()) == (None, False)
    assert meaning(ValueError("40001")) == (None, False)
