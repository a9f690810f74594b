"""A reader stays read-only, whatever its session, its engine or its statements ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    ReadOnlyError,
    SettingsError,
    SqlAlchemySessionFactory,
    with_options,
)
from tests.support.halves import in_both_halves

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from sessionfactory import SessionFactory
    from sessionfactory.testing import MariaDBServer, PostgresServer
    from tests.support.halves import Half


class Base(DeclarativeBase):
    """Tables of these tests."""


class Order(Base):
    """A row that a reader tries to write."""

    __tablename__ = "orders_of_readers"
    id: Mapped[int] = mapped_column(primary_key=True)


WRITE = text("INSERT INTO orders_of_readers VALUES (1)")
COUNT = text("SELECT count(*) FROM orders_of_readers")


def readers_of(sessions: SqlAlchemySessionFactory) -> list[SessionFactory[Session]]:
    """Return a factory's reader, and a read-only view of it."""
    return [sessions.reader, with_options(sessions, read_only=True)]


@pytest.mark.parametrize("way", ["get_bind", "binds"])
def test_sessions_that_choose_their_engine(way: str, url: str) -> None:
    """A class of sessions that routes reads through read-only connections of what it chooses."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)

    class Routing(Session):
        def get_bind(self, *_: Any, **__: Any) -> Engine:
            return engine

    class Bound(Session):
        def __init__(self, bind: Engine | None = None, **options: Any) -> None:
            super().__init__(bind, binds={Order: engine}, **options)

    kind = Routing if way == "get_bind" else Bound
    with SqlAlchemySessionFactory(DatabaseSettings(url), session_class=kind) as sessions:
        for reader in (sessions.reader, with_options(sessions, read_only=True)):
            with pytest.raises(ReadOnlyError), reader.begin() as session:
                session.add(Order())
        with sessions.begin() as session:
            session.add(Order())
    engine.dispose()


@pytest.mark.parametrize("place", ["isolation_level", "execution_options"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_engine_in_autocommit(driver: str, place: str, postgres_server: PostgresServer) -> None:
    """On an engine in AUTOCOMMIT, the database refuses what readers write, and nothing stays."""
    level = {"isolation_level": "AUTOCOMMIT"}
    options = level if place == "isolation_level" else {"execution_options": level}
    settings = DatabaseSettings(postgres_server.url_for(driver), engine_options=options)
    with SqlAlchemySessionFactory(settings) as sessions:
        Base.metadata.create_all(sessions.engine)
        for reader in readers_of(sessions):
            with reader() as session, pytest.raises(ReadOnlyError):
                session.execute(WRITE)
            with sessions() as session:
                session.execute(text("DELETE FROM orders_of_readers"))
        Base.metadata.drop_all(sessions.engine)


def made_for(half: Half, settings: DatabaseSettings) -> Any:
    """Return a factory of a half."""
    make: Callable[..., Any] = AsyncSqlAlchemySessionFactory
    return half.make(make, settings)


def view_of(half: Half, sessions: object, **options: object) -> Any:
    """Return a view of a factory of a half."""
    make: Callable[..., Any] = with_options
    return half.make(make, sessions, **options)


@in_both_halves
async def test_options_that_autocommit_would_drop(
    half: Half, postgres_server: PostgresServer
) -> None:
    """A tenant or a time limit that cannot be set is refused, and not left out."""
    level = {"isolation_level": "AUTOCOMMIT"}
    settings = DatabaseSettings(postgres_server.url, engine_options=level)
    async with made_for(half, settings) as sessions:
        for options in ({"local": {"app.tenant": "7"}}, {"statement_timeout": 1.0}):
            view: Any = view_of(half, sessions, **options)
            async with view() as session:
                with pytest.raises(SettingsError, match="AUTOCOMMIT has none"):
                    await session.execute(text("SELECT 1"))
    async with made_for(half, DatabaseSettings(postgres_server.url)) as sessions:
        tenant: Any = view_of(half, sessions, local={"app.tenant": "7"})
        async with tenant() as session:
            with pytest.raises(SettingsError, match="AUTOCOMMIT"):
                await session.connection(execution_options=level)


TAKING_BACK = [
    "SET TRANSACTION READ WRITE",
    "set /* now */ transaction_read_only = off",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "BEGIN READ WRITE",
    "COMMIT",
    "SELECT 1; COMMIT; SELECT 2",
    "/* a /* comment */ in a comment */ SET TRANSACTION READ WRITE",
    "SELECT '--'; SET TRANSACTION READ WRITE",
    'SET "transaction_read_only" TO off',
    'SET U&"transaction\\005fread_only" TO off',
    "SELECT set_config('default_transaction_read_only', 'off', false)",
]


@pytest.mark.parametrize("statement", TAKING_BACK)
@in_both_halves
async def test_statements_that_would_end_it(
    half: Half, statement: str, postgres_server: PostgresServer
) -> None:
    """A statement cannot take back that a transaction is read-only."""
    settings = DatabaseSettings(postgres_server.url)
    async with made_for(half, settings) as sessions, sessions.reader() as session:
        with pytest.raises(ReadOnlyError, match="would end that"):
            await session.execute(text(statement))
        await session.execute(text("SAVEPOINT here"))
        await session.execute(text("ROLLBACK TO SAVEPOINT here"))
        async with session.begin_nested():
            assert await session.scalar(
                text("SELECT 'SET x; READ WRITE', '--', 5 # 3 /* ; COMMIT */")
            )
            assert await session.scalar(text("SELECT set_config('app.tenant', '7', true)"))
            assert await session.scalar(text("SELECT $$; COMMIT$$, E'\\'; COMMIT' -- ; COMMIT"))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_connections_and_engines_of_a_reader(driver: str, postgres_server: PostgresServer) -> None:
    """A reader's session, its connection and engines derived from its engine do not write."""
    autocommit = {"isolation_level": "AUTOCOMMIT"}
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url_for(driver))) as sessions:
        Base.metadata.create_all(sessions.engine)
        for reader in readers_of(sessions):
            for options in (autocommit, {"postgresql_readonly": False}):
                with reader() as session, pytest.raises(SettingsError, match="read-only"):
                    session.connection(execution_options=options)
            with reader() as session:
                engine = session.connection().engine
            with pytest.raises(SettingsError, match="read-only"):
                engine.execution_options(**autocommit)
            derived = engine.execution_options(logging_token="derived")
            with derived.connect() as connection, pytest.raises(ReadOnlyError):
                connection.execute(WRITE)
            with with_options(sessionmaker(derived), lock_timeout=1.0)() as session:
                assert session.scalar(text("SHOW lock_timeout")) == "1s"
                with pytest.raises(ReadOnlyError):
                    session.execute(WRITE)
        with sessions.begin() as session:
            assert session.scalar(COUNT) == 0
        Base.metadata.drop_all(sessions.engine)


@pytest.mark.parametrize(
    "statement",
    [
        "SET SESSION TRANSACTION READ WRITE",
        "START TRANSACTION READ WRITE",
        "/*! SET SESSION tx_read_only = 0 */",
        "/*M!100000 SET SESSION tx_read_only = 0 */",
        "# now\nSET SESSION tx_read_only = 0",
        "-- now\nSET `tx_read_only` = 0",
        "EXECUTE IMMEDIATE 'START TRANSACTION READ WRITE'",
        "PREPARE statement FROM 'SET SESSION tx_read_only = 0'",
    ],
)
def test_mariadb(statement: str, mariadb_server: MariaDBServer) -> None:
    """The variables of a reader's session stay, and an engine derived from it has them."""
    with SqlAlchemySessionFactory(DatabaseSettings(mariadb_server.url)) as sessions:
        Base.metadata.create_all(sessions.engine)
        for reader in readers_of(sessions):
            with reader() as session:
                with pytest.raises(ReadOnlyError, match="would end that"):
                    session.execute(text(statement))
                assert session.scalar(text("SELECT '\\'; COMMIT', 1 -- ; COMMIT\n + 1 # ; COMMIT"))
                derived = session.connection().engine.execution_options(logging_token="derived")
            with derived.connect() as connection, pytest.raises(ReadOnlyError):
                connection.execute(WRITE)
        with sessions.begin() as session:
            session.execute(WRITE)
        Base.metadata.drop_all(sessions.engine)


def test_sqlite(url: str) -> None:
    """The switch of a reader's connection stays, and so it does in an engine derived from it."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as sessions:
        Base.metadata.create_all(sessions.engine)
        for reader in readers_of(sessions):
            with reader() as session:
                with pytest.raises(ReadOnlyError, match="would end that"):
                    session.execute(text("PRAGMA query_only = OFF"))
                with pytest.raises(ReadOnlyError):
                    session.connection().exec_driver_sql(WRITE.text)
                derived = session.connection().engine.execution_options(logging_token="derived")
            with derived.connect() as connection, pytest.raises(ReadOnlyError):
                connection.execute(WRITE)
        with sessions.begin() as session:
            session.execute(WRITE)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_listener_that_leaves_a_transaction_open(
    driver: str, postgres_server: PostgresServer
) -> None:
    """A reader works on a new connection whose listener has begun a transaction."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url_for(driver))) as sessions:

        @event.listens_for(sessions.engine, "connect")
        def register(connection: Any, _record: object) -> None:
            connection.cursor().execute("SET application_name = 'registered'")

        with sessions.reader() as session:
            assert session.scalar(text("SHOW application_name")) == "registered"
            assert session.scalar(text("SHOW transaction_read_only")) == "on"
        with sessions() as session:
            assert session.scalar(text("SHOW application_name")) == "registered"
