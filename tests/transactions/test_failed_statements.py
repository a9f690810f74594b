"""A transaction that the database has given up is not reported as committed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    CommitRolledBackError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    on_commit,
    run_in_transaction,
)
from tests.support.payments import PAY, failing, rows
from tests.support.ways import HALVES, POSTGRESQL, Way

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory.testing import MariaDBServer, PostgresServer

OTHERS: Final = (Way("psycopg", plain=True), Way("psycopg", "async", plain=True))
MYSQL: Final = (
    *(Way("pymysql"), Way("pymysql", plain=True), Way("mysqlconnector")),
    *(Way("aiomysql", "async"), Way("asyncmy", "async", plain=True)),
)


def divide_by_zero(session: Session) -> None:
    """Let a statement fail, and go on as if nothing had happened."""
    with suppress(DBAPIError):
        session.execute(text("SELECT 1 / 0"))


@pytest.mark.parametrize("way", [*POSTGRESQL, *OTHERS], ids=str)
def test_a_commit_that_saves_nothing_is_an_error(way: Way, server: PostgresServer) -> None:
    """After a caught error, neither the work's result is returned, nor its callbacks run."""
    mails: list[str] = []
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(PAY)
        on_commit(session, lambda: mails.append("welcome"))
        divide_by_zero(session)

    with pytest.raises(CommitRolledBackError, match="Nothing of this transaction is saved"):
        way.run(server.url, work)
    assert (len(calls), mails, rows(server)) == (1, [], 0)


@pytest.mark.parametrize("way", HALVES, ids=str)
def test_a_caught_conflict_is_tried_again(way: Way, server: PostgresServer) -> None:
    """If the caught error was one that passes, the transaction is repeated."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            with suppress(DBAPIError):
                failing(session, "40001")
        return len(calls)

    assert way.run(server.url, work) == 2
    assert rows(server) == 1


@pytest.mark.parametrize("way", [*POSTGRESQL, *OTHERS], ids=str)
def test_an_error_in_a_savepoint_leaves_the_rest(way: Way, server: PostgresServer) -> None:
    """What was done around a savepoint that failed is committed."""

    def work(session: Session) -> None:
        session.execute(PAY)
        with suppress(DBAPIError), session.begin_nested():
            session.execute(text("SELECT 1 / 0"))

    way.run(server.url, work)

    assert rows(server) == 1


@pytest.mark.parametrize("options", [{}, {"pipeline": True}], ids=["plain", "pipeline"])
def test_scopes_and_commits_raise_it(options: dict[str, Any], server: PostgresServer) -> None:
    """The scope of a session, ``commit()``, and a connection of the engine raise the same error."""
    settings = DatabaseSettings(server.url, **options)
    with SqlAlchemySessionFactory(settings) as factory:
        with pytest.raises(CommitRolledBackError), factory.begin() as session:
            session.execute(PAY)
            divide_by_zero(session)
        with factory() as session:
            session.execute(PAY)
            divide_by_zero(session)
            with pytest.raises(CommitRolledBackError):
                session.commit()
        with pytest.raises(CommitRolledBackError), factory.engine.begin() as connection:
            connection.execute(PAY)
            with suppress(DBAPIError):
                connection.execute(text("SELECT 1 / 0"))
        with factory.begin() as session:
            session.execute(PAY)
        assert factory.status().in_use == 0
    assert rows(server) == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_scopes_of_the_async_half_raise_it(driver: str, server: PostgresServer) -> None:
    """The same holds for the async half, and the connection can be used on."""
    asyncio.run(_scopes(driver, server))
    assert rows(server) == 1


async def _scopes(driver: str, server: PostgresServer) -> None:
    settings = DatabaseSettings(server.url_for(driver=driver))
    async with AsyncSqlAlchemySessionFactory(settings) as factory:
        with pytest.raises(CommitRolledBackError):
            async with factory.begin() as session:
                await session.execute(PAY)
                await session.run_sync(divide_by_zero)
        async with factory() as session:
            await session.execute(PAY)
            await session.run_sync(divide_by_zero)
            with pytest.raises(CommitRolledBackError):
                await session.commit()
        async with factory.begin() as session:
            await session.execute(PAY)
        assert factory.status().in_use == 0


def test_a_failed_transaction_is_not_prepared(server: PostgresServer) -> None:
    """A two-phase commit fails while it can still be rolled back everywhere."""
    engine = create_engine(server.url)
    sessions = sessionmaker(engine, twophase=True)

    def work(session: Session) -> None:
        session.execute(PAY)
        divide_by_zero(session)

    with pytest.raises(CommitRolledBackError):
        run_in_transaction(sessions, work)
    engine.dispose()


@pytest.mark.parametrize("code", [1213, 1020], ids=["deadlock", "record changed"])
@pytest.mark.parametrize("way", MYSQL, ids=str)
def test_a_caught_conflict_saves_no_half(
    way: Way, code: int, mariadb_server: MariaDBServer
) -> None:
    """MariaDB rolls back at a conflict: what follows is not committed without what came before."""
    engine = create_engine(mariadb_server.url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE seat (id int PRIMARY KEY, taken int) ENGINE=InnoDB"))
        connection.execute(text("INSERT INTO seat VALUES (1, 0), (2, 0), (3, 0)"))
    calls: list[int] = []

    def take(session: Session, seat: int) -> None:
        session.execute(text("UPDATE seat SET taken = taken + 1 WHERE id = :seat"), {"seat": seat})

    def work(session: Session) -> None:
        calls.append(1)
        take(session, 3)
        if len(calls) == 1:
            with suppress(DBAPIError):
                session.execute(text(f"SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {code}"))
                pytest.fail("it is to fail")
        take(session, 2)

    try:
        way.run(mariadb_server.url, work)
        with engine.connect() as connection:
            taken = connection.execute(text("SELECT taken FROM seat ORDER BY id")).scalars().all()
        assert (len(calls), taken) == (2, [0, 1, 1])
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE seat"))
        engine.dispose()


def test_what_sqlite_rolled_back_is_not_committed_by_half(tmp_path: Path) -> None:
    """A constraint that rolls the transaction back ends it, although the error was caught."""
    with SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{tmp_path / 'a.db'}")) as factory:
        with factory.engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (n INT UNIQUE)"))
        with pytest.raises(CommitRolledBackError), factory.begin() as session:
            session.execute(text("INSERT INTO t VALUES (1)"))
            with suppress(DBAPIError):
                session.execute(text("INSERT OR ROLLBACK INTO t VALUES (1)"))
            session.execute(text("INSERT INTO t VALUES (2)"))
        with factory() as session:
            assert session.scalar(text("SELECT count(*) FROM t")) == 0


@pytest.mark.parametrize("way", MYSQL, ids=str)
def test_a_caught_lock_timeout_undoes_its_statement_alone(
    way: Way, mariadb_server: MariaDBServer
) -> None:
    """By default MariaDB keeps the transaction then, and so is it committed."""
    engine = create_engine(mariadb_server.url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE seat (id int PRIMARY KEY) ENGINE=InnoDB"))

    def work(session: Session) -> None:
        session.execute(text("INSERT INTO seat VALUES (1)"))
        with suppress(DBAPIError):
            session.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205"))

    try:
        way.run(mariadb_server.url, work)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM seat")) == 1
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE seat"))
        engine.dispose()
