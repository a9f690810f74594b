"""``InMemorySessionFactory`` as its users see it."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import MetaData, create_mock_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    PoolExhaustedError,
    ReadOnlyError,
    SessionSettings,
    SettingsError,
    SqlAlchemySessionFactory,
    SqliteSettings,
)
from sessionfactory.testing.memory._image import IsolationError
from sessionfactory.testing.memory.memory import InMemorySessionFactory
from tests.support.isolated import Base, Player, add_player, one_team, players

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.schema import ExecutableDDLElement

    from sessionfactory import SessionFactory


class OwnSession(Session):
    """A session class of the user's own."""


@pytest.fixture
def sessions() -> Generator[InMemorySessionFactory]:
    """A factory with one team and one player."""
    with InMemorySessionFactory(Base.metadata, seed=one_team) as made:
        yield made


def test_prepared(sessions: InMemorySessionFactory) -> None:
    """Tables are there, circular foreign keys included, and so are the rows of the seed."""
    assert players(sessions) == 1
    assert repr(sessions) == "InMemorySessionFactory(name='memory', url='sqlite://')"


def test_is_a_factory(sessions: InMemorySessionFactory) -> None:
    """It is a session factory like the real one, reader, ping and status included."""
    plain: SessionFactory = sessions
    assert isinstance(plain, SqlAlchemySessionFactory)
    add_player(plain)
    assert players(sessions.reader) == 2
    with pytest.raises(ReadOnlyError):
        add_player(sessions.reader)
    assert sessions.ping().ok
    assert sessions.status().limit == 1


def test_reset_60_times(sessions: InMemorySessionFactory) -> None:
    """Rows, tables and a pragma of a test are gone after each reset, on the same engine."""
    engine = sessions.engine
    for _ in range(60):
        add_player(sessions)
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE extra (a INTEGER)"))
            session.execute(text("ALTER TABLE team ADD COLUMN name TEXT"))
        with sessions() as session:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            session.execute(text("PRAGMA foreign_keys = OFF"))
        assert players(sessions) == 2
        sessions.reset()
        assert players(sessions) == 1
    assert sessions.engine is engine
    assert sessions.status().size == 1
    with sessions() as session:
        tables = session.scalars(text("SELECT name FROM sqlite_schema ORDER BY 1")).all()
        assert tables == ["player", "team"]
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) == 5000


def test_foreign_keys_are_enforced_after_a_reset(sessions: InMemorySessionFactory) -> None:
    """A row that points nowhere is refused, before and after a reset."""
    for _ in range(2):
        with pytest.raises(IntegrityError), sessions.begin() as session:
            session.add(Player(team_id=7))
        sessions.reset()


def test_foreign_keys_of_a_metadata_that_a_server_had_before() -> None:
    """A circular foreign key that was made by ALTER elsewhere is enforced here, and made there."""
    metadata = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    sent: list[str] = []

    def send(ddl: ExecutableDDLElement, *_: object, **__: object) -> None:
        sent.append(str(ddl))

    server = create_mock_engine("postgresql+psycopg://", send)
    metadata.create_all(server, checkfirst=False)
    assert sum("ALTER TABLE" in ddl for ddl in sent) == 2

    with InMemorySessionFactory(metadata) as sessions:
        for row in ("team (captain_id)", "player (team_id)"):
            with pytest.raises(IntegrityError, match="FOREIGN KEY"), sessions.begin() as session:
                session.execute(text(f"INSERT INTO {row} VALUES (7)"))

    before, sent[:] = sorted(sent), []
    metadata.create_all(server, checkfirst=False)
    assert sorted(sent) == before


def test_rolls_back_after_a_reset(sessions: InMemorySessionFactory) -> None:
    """Transactions work on the restored database as they did before."""
    sessions.reset()
    with pytest.raises(ZeroDivisionError), sessions.begin() as session:
        session.add(Player())
        session.flush()
        raise ZeroDivisionError
    assert players(sessions) == 1


@pytest.mark.parametrize("left", ["CREATE TEMP TABLE t (a INT)", "ATTACH ':memory:' AS other"])
def test_reset_removes_what_is_beside_the_database(
    sessions: InMemorySessionFactory, left: str
) -> None:
    """Temporary tables and attached databases do not survive a reset."""
    add_player(sessions)
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        session.execute(text(left))
    sessions.reset()
    assert players(sessions) == 1
    with sessions() as session:
        assert len(session.execute(text("PRAGMA database_list")).all()) == 1
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_reset_with_an_open_session(sessions: InMemorySessionFactory) -> None:
    """A reset is refused while a session has the connection, and the message says where."""
    with sessions.begin() as session:
        session.add(Player())
        session.flush()
        with pytest.raises(IsolationError) as caught:
            sessions.reset()
    message = str(caught.value)
    assert message.startswith(
        "The in-memory database 'memory' cannot be reset while a session is open."
        " Close it first; its connection is in use by: "
    )
    assert "in test_reset_with_an_open_session, thread MainThread, for 0.0 s" in message
    assert players(sessions) == 2


def test_lost_connection(sessions: InMemorySessionFactory) -> None:
    """A test that closes the connection under the fake is told, and a reset mends it."""
    add_player(sessions)
    with sessions() as session:
        session.connection().invalidate()
    with pytest.raises(IsolationError) as caught:
        players(sessions)
    assert str(caught.value) == (
        "The connection of the in-memory database 'memory' was closed, and the database was lost"
        " with it. reset() brings the prepared one back"
    )
    sessions.reset()
    assert players(sessions) == 1
    sessions.engine.dispose()
    sessions.reset()
    assert players(sessions) == 1


def test_threads_take_turns(sessions: InMemorySessionFactory) -> None:
    """Read-modify-writes of eight threads lose nothing."""

    def raise_captain(_: int) -> None:
        with sessions.begin() as session:
            number = session.scalar(text("SELECT max(id) FROM player"))
            session.add(Player(id=number + 1))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(raise_captain, range(200)))
    assert players(sessions) == 201


def test_nested_sessions() -> None:
    """A session inside another's transaction is told who has the connection."""
    with InMemorySessionFactory(Base.metadata) as sessions:
        with sessions.begin() as session:
            session.add(Player())
            session.flush()
            with pytest.raises(PoolExhaustedError) as caught:
                players(sessions)
        assert "or use a file: a database in memory has one connection" in str(caught.value)
        assert "in test_nested_sessions, thread MainThread" in str(caught.value)
        assert players(sessions) == 1


def test_short_wait_by_default(sessions: InMemorySessionFactory) -> None:
    """Nested sessions do not hold a test up for long."""
    assert sessions.settings.pool.timeout == 5.0


def test_settings() -> None:
    """Settings reach the sessions, the connection and the driver, and stay so after a reset."""
    settings = DatabaseSettings(
        "sqlite://",
        sqlite=SqliteSettings(foreign_keys=False),
        session=SessionSettings(autoflush=False),
        engine_options={"connect_args": {"cached_statements": 7}},
    )
    with InMemorySessionFactory(
        Base.metadata, settings=settings, session_class=OwnSession, name="fake"
    ) as sessions:
        sessions.reset()
        with sessions.begin() as session:
            assert isinstance(session, OwnSession)
            assert not session.autoflush
            session.add(Player(team_id=7))
    assert repr(sessions) == "InMemorySessionFactory(name='fake', url='sqlite://')"


@pytest.mark.parametrize("url", ["sqlite:///a.db", "postgresql://localhost/a"])
def test_settings_of_another_database(url: str) -> None:
    """A file or a server is refused: nothing that is there is ever written to."""
    with pytest.raises(SettingsError) as caught:
        InMemorySessionFactory(Base.metadata, settings=DatabaseSettings(url))
    assert str(caught.value) == (
        "Invalid database settings: url: expected sqlite://, a database in memory"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Base, r"expected a MetaData, not Base: say Base\.metadata$"),
        (None, "expected a MetaData, not NoneType object$"),
        ("postgresql://ada:secret@db/shop", "^expected a MetaData, not str object$"),
    ],
)
def test_no_metadata(given: object, message: str) -> None:
    """A declarative base, or nothing, in place of metadata is a mistake that is named."""
    with pytest.raises(TypeError, match=message):
        InMemorySessionFactory(cast("MetaData", given))


def test_no_tables() -> None:
    """An empty database is one that can be reset, too."""
    with InMemorySessionFactory(MetaData()) as sessions:
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE t (a INTEGER)"))
        sessions.reset()
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM sqlite_schema")) == 0


def test_failed_seed() -> None:
    """A seed that raises is passed on, and the half-made factory is closed without a warning."""

    def fail(_: Session) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        InMemorySessionFactory(Base.metadata, seed=fail)
    gc.collect()


def test_closed(sessions: InMemorySessionFactory) -> None:
    """A closed factory opens nothing and is not reset."""
    sessions.close()
    with pytest.raises(ClosedError):
        sessions.reset()
    assert sessions.ping().state == "closed"
