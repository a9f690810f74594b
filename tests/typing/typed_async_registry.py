# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The async registry as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSessionFactory,
    AsyncSessionFactoryRegistry,
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    Health,
    Holder,
    PoolStatus,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class MySession(AsyncSession):
    """A session class of a user's own."""


class MyRegistry(AsyncSessionFactoryRegistry[MySession]):
    """A registry of a user's own."""


def plain(settings: DatabaseSettings, table: Mapping[str, object]) -> None:
    """Without a session class every constructor gives a registry of plain sessions."""
    assert_type(AsyncSessionFactoryRegistry(), AsyncSessionFactoryRegistry[AsyncSession])
    assert_type(
        AsyncSessionFactoryRegistry({"default": settings}),
        AsyncSessionFactoryRegistry[AsyncSession],
    )
    assert_type(
        AsyncSessionFactoryRegistry(databases={}), AsyncSessionFactoryRegistry[AsyncSession]
    )
    assert_type(
        AsyncSessionFactoryRegistry(require=("default",)), AsyncSessionFactoryRegistry[AsyncSession]
    )
    assert_type(
        AsyncSessionFactoryRegistry.from_mapping(table), AsyncSessionFactoryRegistry[AsyncSession]
    )
    assert_type(
        AsyncSessionFactoryRegistry.from_mapping(
            {"default": {"url": "sqlite://"}}, require=["default"]
        ),
        AsyncSessionFactoryRegistry[AsyncSession],
    )
    assert_type(
        AsyncSessionFactoryRegistry.from_toml("a.toml"), AsyncSessionFactoryRegistry[AsyncSession]
    )
    assert_type(
        AsyncSessionFactoryRegistry.from_toml(Path("a.toml"), environ={}, require={"default"}),
        AsyncSessionFactoryRegistry[AsyncSession],
    )
    assert_type(AsyncSessionFactoryRegistry.from_env(), AsyncSessionFactoryRegistry[AsyncSession])
    assert_type(
        AsyncSessionFactoryRegistry.from_env({}, names=("default",), require=("default",)),
        AsyncSessionFactoryRegistry[AsyncSession],
    )


async def own(settings: DatabaseSettings) -> None:
    """With a session class every constructor gives a registry of that class."""
    assert_type(
        AsyncSessionFactoryRegistry({"default": settings}, session_class=MySession),
        AsyncSessionFactoryRegistry[MySession],
    )
    assert_type(
        AsyncSessionFactoryRegistry.from_mapping({}, session_class=MySession),
        AsyncSessionFactoryRegistry[MySession],
    )
    assert_type(
        AsyncSessionFactoryRegistry.from_toml("a.toml", session_class=MySession),
        AsyncSessionFactoryRegistry[MySession],
    )
    registry = AsyncSessionFactoryRegistry.from_env(session_class=MySession)
    assert_type(registry, AsyncSessionFactoryRegistry[MySession])
    assert_type(registry.get(), AsyncSessionFactory[MySession])
    assert_type(registry.reader(), AsyncSessionFactory[MySession])
    async with registry.get().begin() as session:
        assert_type(session, MySession)


async def members(registry: AsyncSessionFactoryRegistry) -> None:
    """Every method has one static type."""
    assert_type(registry, AsyncSessionFactoryRegistry[AsyncSession])
    assert_type(registry.names, tuple[str, ...])
    assert_type(registry.get(), AsyncSessionFactory[AsyncSession])
    assert_type(registry.get("analytics"), AsyncSessionFactory[AsyncSession])
    assert_type(registry.get(name="analytics")(), AsyncSession)
    assert_type(registry.reader("analytics"), AsyncSessionFactory[AsyncSession])
    assert_type(registry.engine(), AsyncEngine)
    assert_type(registry.settings(), DatabaseSettings)
    assert_type(registry.sessionmaker(), async_sessionmaker[AsyncSession])
    assert_type(registry.engine("analytics"), AsyncEngine)
    assert_type(await registry.ping(), dict[str, Health])
    assert_type(await registry.ping(names=["default"], timeout=1.0), dict[str, Health])
    assert_type(registry.status(), dict[str, PoolStatus])
    assert_type(registry.status(names=("default",)), dict[str, PoolStatus])
    assert_type(await registry.aclose(), dict[str, tuple[Holder, ...]])
    assert_type(await registry.aclose(timeout=1.0), dict[str, tuple[Holder, ...]])
    async with AsyncSessionFactoryRegistry() as entered:
        assert_type(entered, AsyncSessionFactoryRegistry[AsyncSession])
    async with MyRegistry(session_class=MySession) as mine:
        assert_type(mine, MyRegistry)


def made_elsewhere(
    registry: AsyncSessionFactoryRegistry,
    owned: AsyncSessionFactoryRegistry[MySession],
    factory: AsyncSqlAlchemySessionFactory,
) -> None:
    """Any factory of the right session class can be registered, or stand in for another."""
    registry.register("a", async_sessionmaker())
    registry.register("b", factory)
    registry.register("c", AsyncNullSessionFactory("not here"))
    registry.register("d", async_sessionmaker(class_=MySession))
    owned.register("e", async_sessionmaker(class_=MySession))
    owned.register("f", AsyncNullSessionFactory("not here"))
    assert_type(registry.override("a", factory), AbstractContextManager[None])
    with registry.override("a", async_sessionmaker(), reader=AsyncNullSessionFactory("no reading")):
        registry.get("a")
    with owned.override("a", AsyncNullSessionFactory("not here"), reader=None):
        owned.get("a")


async def code_after_a_block_is_reachable(registry: AsyncSessionFactoryRegistry) -> int:
    """Neither block swallows an error, so that a function may end inside one."""
    async with registry:
        return 1


async def refused(
    registry: AsyncSessionFactoryRegistry,
    owned: AsyncSessionFactoryRegistry[MySession],
    scoped: async_scoped_session[AsyncSession],
    settings: DatabaseSettings,
) -> None:
    """What the registry does not take, and what only the concrete class has."""
    AsyncSessionFactoryRegistry({"default": "sqlite://"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    AsyncSessionFactoryRegistry({"default": settings}, AsyncSession)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSessionFactoryRegistry(session_class=str)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    AsyncSessionFactoryRegistry(pool_size=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSessionFactoryRegistry.from_env({}, ["default"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSessionFactoryRegistry.from_toml("a.toml", {})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSessionFactoryRegistry.from_mapping("sqlite://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.get().ping()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    registry.get().aclose()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    registry.get().status()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    registry.get().engine  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    registry.get(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await registry.ping(["default"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await registry.aclose(1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    registry.register("a", scoped)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    owned.register("a", async_sessionmaker())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.override("a", async_sessionmaker(), async_sessionmaker())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    registry.names = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    own: AsyncSessionFactory[MySession] = registry.get()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    own()
