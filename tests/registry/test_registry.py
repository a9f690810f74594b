"""The registries: made from configuration, and watched as a whole."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSessionFactoryRegistry,
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    NotConfiguredError,
    PoolStatus,
    SessionFactoryRegistry,
    SettingsError,
)
from tests.support.awaited import OwnAsyncSession, OwnSession
from tests.support.halves import in_both_halves, registry_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from sessionfactory import AsyncSessionFactory
    from tests.support.halves import Half

MEMORY = DatabaseSettings("sqlite://")


@in_both_halves
async def test_an_empty_registry_is_legal(half: Half) -> None:
    """A program without any database starts, and its registry says that it has none."""
    async with registry_of(half) as registry:
        assert registry.names == ()
        assert await registry.ping() == {}
        assert registry.status() == {}
        assert repr(registry).endswith("SessionFactoryRegistry: no databases>")


@in_both_halves
async def test_it_shows_its_names(half: Half) -> None:
    """A debugger shows which databases there are and where, without a password."""
    far = DatabaseSettings("postgresql://ada:canary@db/app")
    registry = registry_of(half, {"b": MEMORY, "a": far})

    assert repr(registry).endswith(
        "SessionFactoryRegistry: a (postgresql://ada@db/app), b (sqlite://)>"
    )


def test_a_registry_that_was_refused_can_be_shown() -> None:
    """A debugger that stops in a failed constructor can show the object."""
    for cls in (SessionFactoryRegistry, AsyncSessionFactoryRegistry):
        assert repr(cls.__new__(cls)).endswith("SessionFactoryRegistry: not usable>")


@in_both_halves
async def test_a_name_is_checked(half: Half) -> None:
    """A name that no variable could spell is refused, with everything else that is wrong."""
    wrong: dict[str, DatabaseSettings] = {"Analytics": MEMORY, "other": "sqlite://"}  # type: ignore[dict-item]  # pyright: ignore[reportAssignmentType]

    with pytest.raises(SettingsError) as caught:
        registry_of(half, wrong)

    assert [fault.path for fault in caught.value.faults] == ["Analytics", "other"]


def made(
    half: Half, way: str, folder: Path, url: str | None = None, **keywords: object
) -> AsyncSessionFactoryRegistry:
    """Make a registry of one database, or of none, in one of the four ways."""
    of = AsyncSessionFactoryRegistry
    file = folder / "own.toml"
    file.write_text(f'[databases.default]\nurl = "{url}"\n' if url else "")
    ways: dict[str, tuple[Callable[..., AsyncSessionFactoryRegistry], object]] = {
        "direct": (of, {"default": DatabaseSettings(url)} if url else {}),
        "mapping": (of.from_mapping, {"default": {"url": url}} if url else {}),
        "toml": (partial(of.from_toml, environ={}), file),
        "env": (of.from_env, {"DATABASE_URL": url} if url else {}),
    }
    make, source = ways[way]
    return half.make(make, source, **keywords)


@pytest.mark.parametrize(
    ("way", "what_to_do"),
    {
        "direct": "add 'default' to the mapping of databases",
        "mapping": "add 'default' to the mapping of databases",
        "toml": "add [databases.default] with a url to {file}, or set DATABASE_URL (environment)",
        "env": "set DATABASE_URL (environment)",
    }.items(),
)
@in_both_halves
async def test_require_reports_every_missing_database(
    half: Half, tmp_path: Path, way: str, what_to_do: str
) -> None:
    """Whatever it is made from, a registry without a required database is not made at all."""
    with pytest.raises(NotConfiguredError) as caught:
        made(half, way, tmp_path, require=("default", "analytics"))

    first, second = str(caught.value).splitlines()
    file = tmp_path / "own.toml"
    assert first == f"Database 'default' is not configured: {what_to_do.format(file=file)}"
    assert second.startswith("Database 'analytics' is not configured: ")


@in_both_halves
async def test_require_is_content_with_what_is_there(half: Half) -> None:
    """A required database that can be used is one of those that a ping asks."""
    async with registry_of(half, {"default": MEMORY}, require=("default",)) as registry:
        assert [*await registry.ping()] == ["default"]


@pytest.mark.parametrize("way", ["direct", "mapping", "toml", "env"])
@in_both_halves
async def test_every_constructor_takes_a_session_class(
    half: Half, tmp_path: Path, way: str
) -> None:
    """The sessions are of the class that was asked for, however the registry was made."""
    url = f"sqlite:///{tmp_path}/own.db"
    async with (
        made(half, way, tmp_path, url, session_class=OwnAsyncSession) as registry,
        registry.get()() as one,
        registry.reader()() as two,
        registry.get().begin() as three,
    ):
        for session in (one, two, three):
            assert isinstance(session.sync_session, OwnSession)


@in_both_halves
async def test_the_environment_of_the_process_is_the_default(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_env()` reads what the process was started with."""
    monkeypatch.setenv("REGISTRY_TEST_DATABASE_URL", "sqlite://")

    from_env: Callable[..., AsyncSessionFactoryRegistry] = AsyncSessionFactoryRegistry.from_env
    registry = half.make(from_env, names=("registry_test",))

    assert registry.names == ("registry_test",)


@in_both_halves
async def test_it_gives_the_engine_of_its_half(half: Half) -> None:
    """The engine is the one of the factory; a name without a database says what to set."""
    async with registry_of(half, {"default": MEMORY}) as registry:
        async with registry.engine().connect() as connection:
            assert await connection.scalar(text("SELECT 42")) == 42
        with pytest.raises(NotConfiguredError, match="Database 'other' is not configured"):
            registry.engine("other")


@in_both_halves
async def test_status_tells_of_the_factories_that_were_built(half: Half, tmp_path: Path) -> None:
    """Pools that exist are counted; factories that count nothing are left out."""
    settings = DatabaseSettings(f"sqlite:///{tmp_path}/a.db")
    async with registry_of(half, {"default": settings, "other": MEMORY}) as registry:
        registry.register("plain", half.make(async_sessionmaker))
        assert registry.status() == {}
        async with registry.get()() as session:
            await session.execute(text("SELECT 1"))
            (name, status), *rest = registry.status().items()
        assert (name, status.in_use, rest) == ("default", 1, [])
        assert [holder.owner for holder in status.holders] == [half.me()]

        named = registry.status(names=("plain", "other"))

    assert list(named) == ["other"]
    assert named["other"] == PoolStatus(1, 0, 0, 0, 0, 0)


@in_both_halves
async def test_one_text_is_not_several_names(half: Half) -> None:
    """A text where several names belong is refused, and not read letter by letter."""
    from_env: Callable[..., AsyncSessionFactoryRegistry] = AsyncSessionFactoryRegistry.from_env
    registry = registry_of(half)
    with pytest.raises(TypeError, match=r"write \['default'\]"):
        registry_of(half, require="default")
    with pytest.raises(TypeError, match=r"write \['default'\]"):
        half.make(from_env, {}, names="default")
    with pytest.raises(TypeError, match=r"write \['default'\]"):
        await registry.ping(names="default")
    with pytest.raises(TypeError, match=r"write \['default'\]"):
        registry.status(names="default")


@in_both_halves
async def test_what_is_no_mapping_of_databases_is_refused(half: Half) -> None:
    """The settings of one database, in place of all by name, are told with an example."""
    with pytest.raises(SettingsError, match=r"such as {'default': DatabaseSettings\(url\)}"):
        registry_of(half, cast("dict[str, DatabaseSettings]", MEMORY))


@in_both_halves
async def test_what_is_no_name_is_refused(half: Half) -> None:
    """A name that is no text, such as a member of an enumeration, is told."""
    with pytest.raises(TypeError, match="the name of a database is text, not int"):
        registry_of(half).get(cast("str", 3))


@pytest.mark.parametrize("given", [None, MEMORY, create_engine("sqlite://")])
@in_both_halves
async def test_what_is_no_factory_is_refused(half: Half, given: object) -> None:
    """Nothing, settings or an engine in a factory's place are refused where they are given."""
    none = cast("AsyncSessionFactory", given)
    name = re.escape(type(given).__name__)
    async with registry_of(half, {"default": MEMORY}) as registry:
        good = registry.get()
        with pytest.raises(TypeError, match=f"register takes a session factory, not {name}"):
            registry.register("other", none)
        with pytest.raises(TypeError, match=f"override takes a session factory, not {name}"):
            registry.override("default", none)
        if given is not None:
            with pytest.raises(TypeError, match=f"override takes a session factory, not {name}"):
                registry.override("default", good, reader=none)
        assert registry.names == ("default",)
        assert registry.get() == good


@pytest.mark.parametrize("given", [dict, MEMORY, Engine])
@in_both_halves
async def test_what_is_no_class_of_sessions_is_refused(half: Half, given: object) -> None:
    """A class that no session can be of is told when the factory is made, and not when used."""
    name = given.__name__ if isinstance(given, type) else "DatabaseSettings"
    with pytest.raises(TypeError, match=rf"session_class is a subclass of \w+, not {name}"):
        half.make(
            AsyncSqlAlchemySessionFactory, MEMORY, session_class=cast("type[AsyncSession]", given)
        )


@in_both_halves
async def test_a_closed_registry_takes_no_factory(half: Half) -> None:
    """Once closed, a registry is not filled again."""
    registry = registry_of(half)
    await registry.aclose()
    with pytest.raises(ClosedError, match="takes no factory for 'late'"):
        registry.register("late", half.make(async_sessionmaker))


@in_both_halves
async def test_overrides_may_end_in_another_order(half: Half) -> None:
    """Each override takes its own entry away, whichever ends first."""
    one = half.make(AsyncNullSessionFactory, "one")
    two = half.make(AsyncNullSessionFactory, "two")
    async with registry_of(half, {"default": MEMORY}) as registry:
        first, second = registry.override("default", one), registry.override("default", two)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert registry.get() == registry.reader() == two
        second.__exit__(None, None, None)
        assert registry.get() not in {one, two}
