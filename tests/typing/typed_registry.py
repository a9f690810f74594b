# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The registry as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sessionfactory import (
    DatabaseSettings,
    Health,
    Holder,
    NullSessionFactory,
    PoolStatus,
    SessionFactory,
    SessionFactoryRegistry,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class MySession(Session):
    """A session class of a user's own."""


class MyRegistry(SessionFactoryRegistry[MySession]):
    """A registry of a user's own."""


def plain(settings: DatabaseSettings, table: Mapping[str, object]) -> None:
    """Without a session class every constructor gives a registry of plain sessions."""
    assert_type(SessionFactoryRegistry(), SessionFactoryRegistry[Session])
    assert_type(SessionFactoryRegistry({"default": settings}), SessionFactoryRegistry[Session])
    assert_type(SessionFactoryRegistry(databases={}), SessionFactoryRegistry[Session])
    assert_type(SessionFactoryRegistry(require=("default",)), SessionFactoryRegistry[Session])
    assert_type(SessionFactoryRegistry.from_mapping(table), SessionFactoryRegistry[Session])
    assert_type(
        SessionFactoryRegistry.from_mapping({"default": {"url": "sqlite://"}}, require=["default"]),
        SessionFactoryRegistry[Session],
    )
    assert_type(SessionFactoryRegistry.from_toml("a.toml"), SessionFactoryRegistry[Session])
    assert_type(
        SessionFactoryRegistry.from_toml(Path("a.toml"), environ={}, require={"default"}),
        SessionFactoryRegistry[Session],
    )
    assert_type(SessionFactoryRegistry.from_env(), SessionFactoryRegistry[Session])
    assert_type(
        SessionFactoryRegistry.from_env({}, names=("default",), require=("default",)),
        SessionFactoryRegistry[Session],
    )


def own(settings: DatabaseSettings) -> None:
    """With a session class every constructor gives a registry of that class."""
    assert_type(
        SessionFactoryRegistry({"default": settings}, session_class=MySession),
        SessionFactoryRegistry[MySession],
    )
    assert_type(
        SessionFactoryRegistry.from_mapping({}, session_class=MySession),
        SessionFactoryRegistry[MySession],
    )
    assert_type(
        SessionFactoryRegistry.from_toml("a.toml", session_class=MySession),
        SessionFactoryRegistry[MySession],
    )
    registry = SessionFactoryRegistry.from_env(session_class=MySession)
    assert_type(registry, SessionFactoryRegistry[MySession])
    assert_type(registry.get(), SessionFactory[MySession])
    assert_type(registry.reader(), SessionFactory[MySession])
    with registry.get().begin() as session:
        assert_type(session, MySession)


def members(registry: SessionFactoryRegistry) -> None:
    """Every method has one static type."""
    assert_type(registry, SessionFactoryRegistry[Session])
    assert_type(registry.names, tuple[str, ...])
    assert_type(registry.get(), SessionFactory[Session])
    assert_type(registry.get("analytics"), SessionFactory[Session])
    assert_type(registry.get(name="analytics")(), Session)
    assert_type(registry.reader("analytics"), SessionFactory[Session])
    assert_type(registry.engine(), Engine)
    assert_type(registry.settings(), DatabaseSettings)
    assert_type(registry.sessionmaker(), sessionmaker[Session])
    assert_type(registry.engine("analytics"), Engine)
    assert_type(registry.ping(), dict[str, Health])
    assert_type(registry.ping(names=["default"], timeout=1.0), dict[str, Health])
    assert_type(registry.status(), dict[str, PoolStatus])
    assert_type(registry.status(names=("default",)), dict[str, PoolStatus])
    assert_type(registry.close(), dict[str, tuple[Holder, ...]])
    assert_type(registry.close(timeout=1.0), dict[str, tuple[Holder, ...]])
    with SessionFactoryRegistry() as entered:
        assert_type(entered, SessionFactoryRegistry[Session])
    with MyRegistry(session_class=MySession) as mine:
        assert_type(mine, MyRegistry)


def made_elsewhere(
    registry: SessionFactoryRegistry,
    owned: SessionFactoryRegistry[MySession],
    factory: SqlAlchemySessionFactory,
) -> None:
    """Any factory of the right session class can be registered, or stand in for another."""
    registry.register("a", sessionmaker())
    registry.register("b", factory)
    registry.register("c", NullSessionFactory("not here"))
    registry.register("d", sessionmaker(class_=MySession))
    owned.register("e", sessionmaker(class_=MySession))
    owned.register("f", NullSessionFactory("not here"))
    assert_type(registry.override("a", factory), AbstractContextManager[None])
    with registry.override("a", sessionmaker(), reader=NullSessionFactory("no reading")):
        registry.get("a")
    with owned.override("a", NullSessionFactory("not here"), reader=None):
        owned.get("a")


def code_after_a_block_is_reachable(registry: SessionFactoryRegistry) -> int:
    """Neither block swallows an error, so that a function may end inside one."""
    with registry:
        return 1


def refused(
    registry: SessionFactoryRegistry,
    owned: SessionFactoryRegistry[MySession],
    scoped: scoped_session[Session],
    settings: DatabaseSettings,
) -> None:
    """What the registry does not take, and what only the concrete class has."""
    SessionFactoryRegistry({"default": "sqlite://"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    SessionFactoryRegistry({"default": settings}, Session)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SessionFactoryRegistry(session_class=str)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    SessionFactoryRegistry(pool_size=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SessionFactoryRegistry.from_env({}, ["default"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SessionFactoryRegistry.from_toml("a.toml", {})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SessionFactoryRegistry.from_mapping("sqlite://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.get().ping()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    registry.get().close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    registry.get().status()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    registry.get().engine  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    registry.get(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.ping(["default"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    registry.close(1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    registry.register("a", scoped)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    owned.register("a", sessionmaker())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.override("a", sessionmaker(), sessionmaker())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    registry.names = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    own: SessionFactory[MySession] = registry.get()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    own()
