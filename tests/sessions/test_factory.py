"""``SqlAlchemySessionFactory`` as its users see it."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    PoolSettings,
    SessionSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)


class CountingSession(Session):
    """A session class of the user's own."""


def count(factory: SqlAlchemySessionFactory) -> int:
    with factory() as session:
        return session.scalar(text("SELECT count(*) FROM t")) or 0


def test_begin_commits(factory: SqlAlchemySessionFactory) -> None:
    """A block that ends is committed, and its session closed."""
    with factory.begin() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
    assert count(factory) == 1
    assert factory.status().in_use == 0


def test_begin_rolls_back(factory: SqlAlchemySessionFactory) -> None:
    """A block that raises is rolled back, its session closed, and its error passed on."""
    with pytest.raises(KeyError), factory.begin() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        raise KeyError
    assert count(factory) == 0
    assert factory.status().in_use == 0


def test_begin_closes_after_failed_commit(factory: SqlAlchemySessionFactory) -> None:
    """A commit that fails still closes the session."""
    with factory.begin() as session:
        session.execute(text("CREATE TABLE u (a INTEGER PRIMARY KEY)"))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), factory.begin() as session:
        event.listen(session, "before_commit", fail)
        session.execute(text("INSERT INTO u VALUES (1)"))
    assert factory.status().in_use == 0
    with factory() as session:
        assert session.scalar(text("SELECT count(*) FROM u")) == 0


def test_begin_refuses_use_after_commit(factory: SqlAlchemySessionFactory) -> None:
    """A commit inside the block ends the transaction; using it on is SQLAlchemy's error."""
    with (
        pytest.raises(InvalidRequestError, match="closed transaction inside context manager"),
        factory.begin() as session,
    ):
        session.commit()
        session.execute(text("SELECT 1"))


def test_call_opens_a_session(factory: SqlAlchemySessionFactory) -> None:
    """A session from the factory commits only when it is told to."""
    with factory() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
    assert count(factory) == 0
    with factory() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        session.commit()
    assert count(factory) == 1


def test_each_call_gives_another_session(factory: SqlAlchemySessionFactory) -> None:
    """Two calls, or two transactions, never share a session."""
    with factory() as one, factory() as two, factory.begin() as three:
        assert len({id(one), id(two), id(three)}) == 3


def test_objects_stay_readable_after_the_scope(factory: SqlAlchemySessionFactory) -> None:
    """What a service returns after its scope can still be read, unlike in SQLAlchemy's default."""
    Base.metadata.create_all(factory.engine)
    with factory.begin() as session:
        thing = Thing()
        session.add(thing)
    assert thing.id == 1


def test_session_settings_reach_the_session(url: str) -> None:
    """The session's settings are handed to every session, of either method."""
    settings = DatabaseSettings(
        url, session=SessionSettings(autoflush=False, expire_on_commit=True)
    )
    with (
        SqlAlchemySessionFactory(settings) as factory,
        factory() as one,
        factory.begin() as two,
    ):
        for session in (one, two):
            assert not session.autoflush
            assert session.expire_on_commit


def test_session_class(url: str) -> None:
    """Sessions are of the class that was asked for, the reader's too."""
    with (
        SqlAlchemySessionFactory(DatabaseSettings(url), session_class=CountingSession) as factory,
        factory() as one,
        factory.begin() as two,
        factory.reader() as three,
    ):
        assert all(isinstance(session, CountingSession) for session in (one, two, three))
        assert type(one).__name__ == "CountingSession"


def test_engine_is_built_once_under_a_race(url: str) -> None:
    """Eight threads that race for the engine get the same one, built by one of them."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(url))
    start = threading.Barrier(8)

    def look() -> int:
        start.wait()
        return id(factory.engine)

    with ThreadPoolExecutor(8) as threads:
        seen = {future.result() for future in [threads.submit(look) for _ in range(8)]}
    assert seen == {id(factory.engine)}
    factory.close()


def test_nothing_is_built_before_use(url: str) -> None:
    """An unused factory has no engine and nothing to close."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(url))
    assert not factory._managed.built
    assert factory.status().size == 0
    assert factory.close() == ()


def test_closed_factory_refuses(factory: SqlAlchemySessionFactory) -> None:
    """After close, every way to a session raises one clear error, old views included."""
    idle, reader = factory(), factory.reader
    factory.close()
    message = "The session factory 'default' is closed; it opens no sessions"
    for use in (factory, factory.begin, lambda: factory.engine, lambda: factory.reader):
        with pytest.raises(ClosedError, match=message):
            use()
    with pytest.raises(ClosedError, match=message):
        idle.execute(text("SELECT 1"))
    with pytest.raises(ClosedError, match=message), reader.begin() as session:
        session.execute(text("SELECT 1"))
    assert factory.ping().state == "closed"
    assert factory.close() == ()


def test_scope_made_before_close_is_refused(factory: SqlAlchemySessionFactory) -> None:
    """A transaction that was prepared before the close and entered after it cannot connect."""
    scope = factory.begin()
    factory.close()
    with pytest.raises(ClosedError), scope as session:
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize("use", [SqlAlchemySessionFactory.__call__, SqlAlchemySessionFactory.begin])
def test_closed_while_the_first_session_is_made(
    factory: SqlAlchemySessionFactory,
    use: Callable[[SqlAlchemySessionFactory], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A close by another thread at the moment of the first session is seen, then and later."""
    opener = SqlAlchemySessionFactory[Session]._opener

    def closes(self: SqlAlchemySessionFactory, bind: Engine) -> object:
        made = opener(self, bind)
        self.close()
        return made

    monkeypatch.setattr(SqlAlchemySessionFactory, "_opener", closes)
    for _ in range(2):
        with pytest.raises(ClosedError):
            use(factory)


def test_forgotten_factory_warns(url: str) -> None:
    """A factory that is collected while its engine is open gives a ResourceWarning."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(url), name="forgotten")
    engine = factory.engine
    with pytest.warns(ResourceWarning, match="'forgotten'.* was not closed"):
        del factory
        gc.collect()
    engine.dispose()


def test_unused_or_closed_factory_does_not_warn(url: str) -> None:
    """A factory that built nothing, or was closed, is collected in silence."""
    SqlAlchemySessionFactory(DatabaseSettings(url))
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        assert factory.engine is factory.engine
    del factory
    gc.collect()


def test_text_instead_of_settings() -> None:
    """A URL where settings belong is told so, without quoting the URL."""
    with pytest.raises(SettingsError, match=r"expected DatabaseSettings: DatabaseSettings\(url\)"):
        SqlAlchemySessionFactory(cast("DatabaseSettings", "postgresql://u:CANARY@h/d"))


def test_unknown_engine_option(url: str) -> None:
    """An option that create_engine does not know is told at first use, and nothing stays behind."""
    settings = DatabaseSettings(url, engine_options={"ecko": True})
    factory = SqlAlchemySessionFactory(settings)
    with pytest.raises(SettingsError, match="engine_options: SQLAlchemy does not take them"):
        factory()
    assert not factory._managed.built


def test_engine_options_reach_the_engine(url: str) -> None:
    """Engine options and driver arguments are handed on."""
    options = {"logging_name": "mine", "connect_args": {"cached_statements": 7}}
    with SqlAlchemySessionFactory(DatabaseSettings(url, engine_options=options)) as factory:
        assert factory.engine.logging_name == "mine"
        with factory() as session:
            assert session.scalar(text("SELECT 1")) == 1


def test_connection_per_checkout(url: str) -> None:
    """With kind="none", a connection is opened per checkout and none is kept."""
    settings = DatabaseSettings(url, pool=PoolSettings(kind="none"))
    with SqlAlchemySessionFactory(settings) as factory:
        with factory() as session:
            session.execute(text("SELECT 1"))
            during = factory.status()
            factory.engine.dispose()
        assert (during.limit, during.size, during.in_use) == (None, 1, 1)
        assert factory.status().size == 0
    with pytest.raises(ClosedError):
        session.execute(text("SELECT 1"))


def test_repr_names_the_database() -> None:
    """The repr names the factory and shows no secret."""
    factory = SqlAlchemySessionFactory(DatabaseSettings("sqlite://"), name="main")
    assert repr(factory).startswith("SqlAlchemySessionFactory(name='main', url='")


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """Let no garbage of one test speak in another."""
    yield
    gc.collect()
