"""What is checked before an engine is built, and what is refused."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import sqlalchemy
from sqlalchemy import create_engine, text
from sqlalchemy.engine import default

from sessionfactory import (
    DatabaseSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import connections, dialects, sqlalchemy_private
from sessionfactory.engine.managed import ManagedEngine
from sessionfactory.engine.views.options import TransactionOptions
from sessionfactory.engine.views.views import view_of

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import Engine


def test_what_this_release_cannot_do_is_refused() -> None:
    """Settings without an effect yet are refused, all of them at once, and never ignored."""
    settings = DatabaseSettings(
        "postgresql://app@db/app",
        replicas=["postgresql://app@replica/app"],
    )
    with pytest.raises(SettingsError, match="this release does not support this value") as caught:
        SqlAlchemySessionFactory(settings)
    assert [fault.path for fault in caught.value.faults] == ["replicas"]


def test_driver_argument_that_a_setting_covers() -> None:
    """A driver argument that a setting already gives is refused, for one of the two would lose."""
    settings = DatabaseSettings(
        "postgresql://app@db/app",
        statement_timeout=1,
        engine_options={"connect_args": {"options": "-c statement_timeout=0"}},
    )
    with pytest.raises(SettingsError, match=r"may not name what a setting covers: options"):
        SqlAlchemySessionFactory(settings)


def test_database_without_read_only_transactions() -> None:
    """Where nothing would enforce it, there is no reader."""
    dialect = default.DefaultDialect()
    dialect.name = "other"
    engine = create_engine("sqlite://")
    engine.dialect = dialect
    with pytest.raises(SettingsError, match="read_only: other cannot do this for one transaction"):
        view_of(engine, TransactionOptions(read_only=True))


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://db/app", "psycopg"),
        ("postgresql+psycopg2://db/app", "psycopg2"),
        ("mysql://db/app", "pymysql"),
        ("mariadb://db/app", "pymysql"),
        ("sqlite:///app.db", "pysqlite"),
    ],
)
def test_driver_of_a_url(url: str, driver: str) -> None:
    """A URL without a driver means the one that is installed, on every SQLAlchemy."""
    meant = dialects.with_driver(DatabaseSettings(url).url)
    assert meant.get_driver_name() == driver


def test_hold_from_nowhere() -> None:
    """A connection that no line of the user's code took is held by "unknown"."""
    settings = DatabaseSettings("sqlite://")
    with SqlAlchemySessionFactory(settings) as factory, factory() as session:
        session.execute(text("SELECT 1"))
        (checkout,) = factory._managed.ledger.checkouts
        nowhere = attrs.evolve(checkout, used=None, opened=None)
        assert nowhere.holder.where == "unknown"


def test_frames_are_dropped_from_groups() -> None:
    """The frames of every error in a chain or a group are dropped, and a loop does no harm."""
    try:
        raise ValueError("inner")  # noqa: TRY301
    except ValueError as error:
        inner = error
    group = ExceptionGroup("outer", [inner])
    inner.__cause__ = group
    connections.forget_arguments(group)
    assert inner.__traceback__ is None


def test_engine_built_by_somebody_faster() -> None:
    """Who waited for the lock while another built the engine takes that one."""
    managed = ManagedEngine(DatabaseSettings("sqlite://"), "default")
    seen: list[object] = []
    with managed._lock:
        late = threading.Thread(target=lambda: seen.append(managed.engine))
        late.start()
        managed._engine = engine = managed._build()
    late.join()
    assert cast("object", seen) == [engine]
    managed.close(0)


def test_connection_that_nobody_holds_any_more() -> None:
    """To cut off a holder who is gone already is to do nothing."""
    sqlalchemy_private.put_in_place(None, object())
    entry = create_engine("sqlite://").pool.connect()._connection_record  # its holder goes at once
    assert entry is not None
    with closing(cast("sqlite3.Connection", entry.dbapi_connection)):
        sqlalchemy_private.take_away(None, entry, object())
    assert entry.dbapi_connection is None


def test_instrumentation_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What replaces ``create_engine`` after this package was imported is called."""
    built: list[object] = []
    original = sqlalchemy.create_engine

    def traced(*arguments: Any, **keywords: Any) -> Engine:
        built.append(arguments)
        return original(*arguments, **keywords)

    monkeypatch.setattr(sqlalchemy, "create_engine", traced)
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as sessions:
        assert sessions.engine.url.database is None
    assert len(built) == 1


def test_arguments_of_sqlite3(url: str) -> None:
    """``check_same_thread=False`` is what is done anyway; what would be lost is refused."""

    def made(**arguments: object) -> SqlAlchemySessionFactory:
        options = {"connect_args": arguments}
        return SqlAlchemySessionFactory(DatabaseSettings(url, engine_options=options))

    with made(check_same_thread=False) as sessions, sessions() as session:
        assert session.scalar(text("SELECT 1")) == 1
    with pytest.raises(SettingsError, match="check_same_thread is False here"):
        made(check_same_thread=True)
    with pytest.raises(SettingsError, match="leave it away, or write isolation_level"):
        made(autocommit=False)
