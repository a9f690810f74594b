"""What a session class gets, and a factory as SQLAlchemy's `sessionmaker`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Query, Session, scoped_session, sessionmaker

from sessionfactory import (
    AsyncSessionFactoryRegistry,
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    SessionFactoryRegistry,
    SessionSettings,
    SettingsError,
    SqlAlchemySessionFactory,
    run_sync_in_transaction,
)

if TYPE_CHECKING:
    from pathlib import Path

MEMORY = DatabaseSettings("sqlite://")
METADATA = MetaData()
NUMBERS = Table("numbers", METADATA, Column("id", Integer, primary_key=True))


class Tracking(Session):
    """A session class that takes keywords only, as `sessionmaker` gives them."""

    def __init__(self, *, tenant: str = "none", **options: Any) -> None:
        self.tenant = tenant
        super().__init__(**options)


class AsyncTracking(AsyncSession):
    """Its twin."""

    def __init__(self, *, tenant: str = "none", **options: Any) -> None:
        self.tenant = tenant
        super().__init__(**options)


class OwnQuery(Query[Any]):
    """A class of queries."""


def with_options(**options: object) -> DatabaseSettings:
    """Return the settings of a database in memory whose sessions get options."""
    return DatabaseSettings("sqlite://", session=SessionSettings(options=options))


@pytest.mark.asyncio
async def test_a_session_class_gets_keywords() -> None:
    """A class whose constructor takes keywords only works in both halves, and gets its own."""
    settings = with_options(tenant="seven")
    with SqlAlchemySessionFactory(settings, session_class=Tracking) as one:
        for scope in (one(), one.begin(), one.reader()):
            with scope as session:
                assert session.tenant == "seven"
                assert session.scalar(text("SELECT 1")) == 1
    async with AsyncSqlAlchemySessionFactory(settings, session_class=AsyncTracking) as two:
        for other in (two(), two.begin(), two.reader()):
            async with other as waiting:
                assert waiting.tenant == "seven"
                assert await waiting.scalar(text("SELECT 1")) == 1


@pytest.mark.asyncio
async def test_options_of_sqlalchemy_s_session() -> None:
    """What `Session` takes, a factory's sessions take from the settings, in both halves."""
    settings = with_options(
        info={"app": "shop"}, query_cls=OwnQuery, join_transaction_mode="rollback_only"
    )
    with SqlAlchemySessionFactory(settings) as one, one() as session:
        assert session.info["app"] == "shop"
        assert isinstance(session.query(NUMBERS), OwnQuery)
        assert session.join_transaction_mode == "rollback_only"
    async with AsyncSqlAlchemySessionFactory(settings) as two, two() as waiting:
        assert waiting.info["app"] == "shop"


def test_info_of_one_session_is_not_the_next_one_s() -> None:
    """What a session notes in its `info` is gone with it."""
    with SqlAlchemySessionFactory(with_options(info={"app": "shop"})) as sessions:
        with sessions() as session:
            session.info["user"] = "ada"
        with sessions() as session:
            assert session.info.get("user") is None
            assert session.info["app"] == "shop"


def test_sessions_may_need_a_begin() -> None:
    """With `autobegin=False` a session does nothing before `begin()`, and `begin()` scopes work."""
    with SqlAlchemySessionFactory(with_options(autobegin=False)) as sessions:
        with sessions.begin() as session:
            assert session.scalar(text("SELECT 1")) == 1
        with sessions() as session, pytest.raises(Exception, match="Autobegin"):
            session.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    ("name", "instead"),
    [("bind", "url"), ("autoflush", r"session\.autoflush"), ("class_", "session_class")],
)
def test_an_option_that_a_setting_covers_is_refused(name: str, instead: str) -> None:
    """What would win silently over a setting is refused with the setting's name."""
    with pytest.raises(SettingsError, match=rf"options: .*{name} \(use {instead}\)"):
        SessionSettings(options={name: None})


def test_options_from_the_environment() -> None:
    """Options of the session class can be set by variables, too."""
    environ = {"DATABASE_URL": "sqlite://", "DATABASE_SESSION_OPTIONS__TWOPHASE": "true"}

    found = SessionFactoryRegistry.from_env(environ).settings().session.options

    assert found == {"twophase": True}


def test_it_is_a_sessionmaker_whose_sessions_are_the_factory_s(tmp_path: Path) -> None:
    """A tool gets a real `sessionmaker`, on the same pool, with the same settings and guards."""
    settings = DatabaseSettings(f"sqlite:///{tmp_path}/a.db")
    with SqlAlchemySessionFactory(settings, session_class=Tracking) as sessions:
        METADATA.create_all(sessions.engine)
        maker = sessions.sessionmaker

        assert isinstance(maker, sessionmaker)
        assert sessions.sessionmaker is maker
        with maker(autoflush=False, tenant="seven") as session:
            assert isinstance(session, Tracking)
            assert (session.autoflush, session.tenant) == (False, "seven")
            assert session.expire_on_commit is False
            session.execute(text("SELECT 1"))
            (holder,) = sessions.status().holders
            assert "test_session_maker.py" in holder.where
        with maker.begin() as session:
            session.execute(NUMBERS.insert().values(id=1))
        with sessions() as session:
            assert session.scalars(NUMBERS.select()).all() == [1]
    with pytest.raises(ClosedError):
        maker()


def test_a_transaction_of_the_maker_may_write_at_once(tmp_path: Path) -> None:
    """`begin()` of the maker takes SQLite's write lock, as that of the factory does."""
    file = tmp_path / "a.db"
    with (
        SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{file}")) as sessions,
        sessions.sessionmaker.begin() as session,
    ):
        session.execute(text("SELECT 1"))
        with (
            closing(sqlite3.connect(file, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")


def test_listeners_and_configuration() -> None:
    """A listener hears every session of the factory; `configure` changes those of the maker."""
    heard: list[Session] = []

    def hear(session: Session, *_: object) -> None:
        heard.append(session)

    with SqlAlchemySessionFactory(MEMORY) as sessions:
        before = sessions()
        maker = sessions.sessionmaker
        event.listen(maker, "after_begin", hear)
        maker.configure(autoflush=False)
        with sessions() as one, maker() as two, before:
            for session in (one, two, before):
                session.execute(text("SELECT 1"))
                session.rollback()
            assert (one.autoflush, two.autoflush) == (True, False)

            assert heard == [one, two]


def test_a_scoped_session_of_it() -> None:
    """`scoped_session` takes it, and its sessions are the factory's."""
    with SqlAlchemySessionFactory(MEMORY) as sessions:
        scoped = scoped_session(sessions.sessionmaker)
        assert scoped.scalar(text("SELECT 1")) == 1
        assert sessions.status().in_use == 1
        scoped.remove()
        assert sessions.status().in_use == 0


@pytest.mark.asyncio
async def test_the_async_half_has_one_too(tmp_path: Path) -> None:
    """The twin gives a real `async_sessionmaker` with the same promises."""
    settings = DatabaseSettings(f"sqlite:///{tmp_path}/a.db")
    async with AsyncSqlAlchemySessionFactory(settings, session_class=AsyncTracking) as sessions:
        async with sessions.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        maker = sessions.sessionmaker

        assert isinstance(maker, async_sessionmaker)
        assert sessions.sessionmaker is maker
        async with maker(tenant="seven") as session:
            assert isinstance(session, AsyncTracking)
            assert session.tenant == "seven"
        async with maker.begin() as session:
            await session.execute(NUMBERS.insert().values(id=1))
        await run_sync_in_transaction(
            maker, lambda session: session.execute(NUMBERS.insert().values(id=2))
        )
        scoped = async_scoped_session(maker, scopefunc=lambda: 1)
        assert (await scoped.scalars(NUMBERS.select())).all() == [1, 2]
        await scoped.remove()
    with pytest.raises(ClosedError):
        maker()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.asyncio
async def test_sqladmin_takes_it() -> None:
    """A tool that configures the maker, and reads its class, starts with either half."""
    from fastapi import FastAPI  # noqa: PLC0415 - of this test
    from sqladmin import Admin  # noqa: PLC0415

    with SqlAlchemySessionFactory(MEMORY) as one:
        assert Admin(FastAPI(), session_maker=one.sessionmaker).is_async is False
    async with AsyncSqlAlchemySessionFactory(MEMORY) as two:
        assert Admin(FastAPI(), session_maker=two.sessionmaker).is_async is True


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.asyncio
async def test_sqladmin_takes_what_a_registry_hands_out() -> None:
    """What is no `sessionmaker`, but has what such tools look for, is taken as well."""
    from fastapi import FastAPI  # noqa: PLC0415 - of this test
    from sqladmin import Admin  # noqa: PLC0415

    environ = {"DATABASE_URL": "sqlite://"}
    with SessionFactoryRegistry.from_env(environ) as one:
        given: Any = one.get()
        assert Admin(FastAPI(), session_maker=given).is_async is False
        with given(info={"page": "users"}) as session:
            assert session.info == {"page": "users"}
            assert session.autoflush is False  # as configured by the tool
        with one.get()() as session:
            assert session.autoflush is True
    async with AsyncSessionFactoryRegistry.from_env(environ) as two:
        given = two.get()
        assert Admin(FastAPI(), session_maker=given).is_async is True
