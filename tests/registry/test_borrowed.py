"""What a registry hands out is borrowed: only the registry closes it."""

from __future__ import annotations

import copy
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import pytest
import svcs
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from sessionfactory import (
    AsyncSessionFactory,
    AsyncSessionFactoryRegistry,
    DatabaseSettings,
    SessionFactory,
    SessionFactoryRegistry,
    SqlAlchemySessionFactory,
)

ENVIRON = {"DATABASE_URL": "sqlite://"}


def test_a_container_does_not_close_the_factory_of_the_application() -> None:
    """A container that enters context managers serves a second request as it served the first."""
    with SessionFactoryRegistry.from_env(ENVIRON) as databases, svcs.Registry() as services:
        services.register_factory(SessionFactory, databases.get)
        for _ in range(2):
            with svcs.Container(services) as container:
                sessions: SessionFactory = container.get_abstract(SessionFactory)
                with sessions.begin() as session:
                    assert session.scalar(text("SELECT 1")) == 1


@pytest.mark.asyncio
async def test_nor_does_one_of_the_async_half() -> None:
    """The same holds for a container that awaits."""
    async with AsyncSessionFactoryRegistry.from_env(ENVIRON) as databases:
        with svcs.Registry() as services:
            services.register_factory(AsyncSessionFactory, databases.get)
            for _ in range(2):
                async with svcs.Container(services) as container:
                    sessions: AsyncSessionFactory = await container.aget_abstract(
                        AsyncSessionFactory
                    )
                    async with sessions.begin() as session:
                        assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("name", ["close", "aclose", "__enter__", "__exit__", "__aenter__"])
@pytest.mark.asyncio
async def test_it_has_nothing_that_ends_it(name: str) -> None:
    """Neither half, its reader included, can be closed or entered, and the error says by whom."""
    with SessionFactoryRegistry.from_env(ENVIRON) as one:
        async with AsyncSessionFactoryRegistry.from_env(ENVIRON) as two:
            for sessions in (one.get(), two.get(), one.reader(), two.reader()):
                assert not hasattr(sessions, name)
                assert name not in dir(sessions)
                assert not isinstance(
                    sessions, AbstractContextManager | AbstractAsyncContextManager
                )
            with pytest.raises(AttributeError, match="close the registry instead"):
                getattr(one.get(), name)


def test_all_else_is_there() -> None:
    """Engine, reader, ping and status of the factory are found, by the registry and by tools."""
    with SessionFactoryRegistry.from_env(ENVIRON) as registry:
        sessions = registry.get()

        assert getattr(sessions, "engine") is registry.engine()  # noqa: B009 - no member of the type
        assert registry.ping()["default"].ok
        assert registry.status()["default"].in_use == 0
        assert "engine" in dir(sessions)
        assert repr(sessions).startswith("SqlAlchemySessionFactory(")


def test_a_copy_is_of_the_same_factory() -> None:
    """Frameworks that copy what they inject get the same factory."""
    with SessionFactoryRegistry.from_env(ENVIRON) as registry:
        assert copy.copy(registry.get()) == registry.get()


def test_a_factory_made_elsewhere_is_borrowed_too() -> None:
    """A registered or overriding factory is its maker's to close; the registry's is an equal."""
    with (
        SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as theirs,
        SessionFactoryRegistry.from_env(ENVIRON) as registry,
    ):
        registry.register("elsewhere", theirs)
        with registry.override("default", theirs):
            for name in ("default", "elsewhere"):
                assert registry.get(name) == theirs
                assert not hasattr(registry.get(name), "close")
            assert len({registry.get(), registry.get("elsewhere"), theirs}) == 1
        assert registry.get() != theirs


def test_what_cannot_be_closed_is_given_as_it_is() -> None:
    """A plain `sessionmaker` is handed out itself."""
    maker = sessionmaker()
    with SessionFactoryRegistry() as registry:
        registry.register("default", maker)

        assert registry.get() is maker
