"""The registry: made from configuration, pinged, watched and closed as a whole."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from attrs import define, evolve
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    Health,
    NotConfiguredError,
    NullSessionFactory,
    PoolStatus,
    SessionFactoryRegistry,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMORY = DatabaseSettings("sqlite://")


@define
class Pinged:
    """A factory of another kind, which answers a ping when all of them are asked."""

    barrier: threading.Barrier
    timeouts: list[float]
    name: str = ""

    def make(self, settings: DatabaseSettings, *, name: str) -> Pinged:
        """Make a factory, as a kind does."""
        return evolve(self, name=name)

    def ping(self, *, timeout: float) -> Health:
        self.timeouts.append(timeout)
        self.barrier.wait(timeout=30)
        return Health("slow", None, self.name)


def test_an_empty_registry_is_legal() -> None:
    """A program without any database starts, and its registry says that it has none."""
    with SessionFactoryRegistry() as registry:
        assert registry.names == ()
        assert registry.ping() == {}
        assert registry.status() == {}
        assert repr(registry) == "<SessionFactoryRegistry: no databases>"


def test_it_shows_its_names() -> None:
    """A debugger shows which databases there are, and nothing of their settings."""
    registry = SessionFactoryRegistry({"b": MEMORY, "a": MEMORY})

    assert repr(registry) == "<SessionFactoryRegistry: a, b>"


def test_a_name_is_checked() -> None:
    """A name that no variable could spell is refused, with everything else that is wrong."""
    wrong: dict[str, DatabaseSettings] = {"Analytics": MEMORY, "other": "sqlite://"}  # type: ignore[dict-item]  # pyright: ignore[reportAssignmentType]

    with pytest.raises(SettingsError) as caught:
        SessionFactoryRegistry(wrong)

    assert [fault.path for fault in caught.value.faults] == ["Analytics", "other"]


def constructors(tmp_path: Path) -> dict[str, Callable[..., SessionFactoryRegistry]]:
    """Return every way to make a registry without databases."""
    file = tmp_path / "empty.toml"
    file.touch()

    def from_toml(**keywords: object) -> SessionFactoryRegistry:
        return SessionFactoryRegistry.from_toml(file, environ={}, **keywords)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def from_env(**keywords: object) -> SessionFactoryRegistry:
        return SessionFactoryRegistry.from_env({}, **keywords)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def from_mapping(**keywords: object) -> SessionFactoryRegistry:
        return SessionFactoryRegistry.from_mapping({}, **keywords)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    return {
        "direct": SessionFactoryRegistry,
        "mapping": from_mapping,
        "toml": from_toml,
        "env": from_env,
    }


@pytest.mark.parametrize(
    ("way", "what_to_do"),
    {
        "direct": "add 'default' to the mapping of databases",
        "mapping": "add 'default' to the mapping of databases",
        "toml": "add [databases.default] with a url to {file}, or set DATABASE_URL (environment)",
        "env": "set DATABASE_URL (environment)",
    }.items(),
)
def test_require_reports_every_missing_database(tmp_path: Path, way: str, what_to_do: str) -> None:
    """Whatever it is made from, a registry without a required database is not made at all."""
    with pytest.raises(NotConfiguredError) as caught:
        constructors(tmp_path)[way](require=("default", "analytics"))

    first, second = str(caught.value).splitlines()
    file = tmp_path / "empty.toml"
    assert first == f"Database 'default' is not configured: {what_to_do.format(file=file)}"
    assert second.startswith("Database 'analytics' is not configured: ")


def test_require_is_content_with_what_is_there() -> None:
    """A required database that is configured is not built, only looked for."""
    registry = SessionFactoryRegistry({"default": MEMORY}, require=("default",))

    assert registry.ping() == {}


@pytest.mark.parametrize("way", ["direct", "mapping", "toml", "env"])
def test_every_constructor_takes_a_session_class(tmp_path: Path, way: str) -> None:
    """The sessions are of the class that was asked for, however the registry was made."""

    class MySession(Session):
        pass

    url = f"sqlite:///{tmp_path}/own.db"
    (tmp_path / "own.toml").write_text(f'[databases.default]\nurl = "{url}"\n')
    of = SessionFactoryRegistry
    registry = {
        "direct": lambda: of({"default": DatabaseSettings(url)}, session_class=MySession),
        "mapping": lambda: of.from_mapping({"default": {"url": url}}, session_class=MySession),
        "toml": lambda: of.from_toml(tmp_path / "own.toml", session_class=MySession),
        "env": lambda: of.from_env({"DATABASE_URL": url}, session_class=MySession),
    }[way]()

    with registry:
        with registry.get()() as opened, registry.reader()() as reading:
            assert (type(opened), type(reading)) == (MySession, MySession)
        with registry.get().begin() as session:
            assert type(session) is MySession


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env()` reads what the process was started with."""
    monkeypatch.setenv("REGISTRY_TEST_DATABASE_URL", "sqlite://")

    registry = SessionFactoryRegistry.from_env(names=("registry_test",))

    assert registry.names == ("registry_test",)


def test_ping_asks_the_factories_that_were_built() -> None:
    """A database that nobody has used is not asked, and not built."""
    with SessionFactoryRegistry({"default": MEMORY, "other": MEMORY}) as registry:
        assert registry.ping() == {}
        registry.get()

        assert registry.ping() == {"default": Health("ok", 0.0, "in memory")}


def test_ping_asks_those_that_are_named() -> None:
    """Named databases are built and asked, and each says what it is, the missing one too."""
    broken = DatabaseSettings("nosuch://host/name")
    with SessionFactoryRegistry({"default": MEMORY, "broken": broken}) as registry:
        registry.register("plain", sessionmaker())

        health = registry.ping(names=("plain", "broken", "missing", "default"))

    assert list(health) == ["plain", "broken", "missing", "default"]
    assert {name: answer.state for name, answer in health.items()} == {
        "plain": "ok",
        "broken": "unreachable",
        "missing": "unconfigured",
        "default": "ok",
    }
    assert health["plain"].detail == "this kind of factory cannot be pinged"
    assert "there is no driver 'nosuch'" in health["broken"].detail
    assert health["missing"].detail.startswith("Database 'missing' is not configured")


def test_pings_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ping is under way before the first one ends, and each has the whole timeout."""
    pinged = Pinged(threading.Barrier(3), [])
    module = ModuleType("kinds_of_a_user")
    module.__dict__["make"] = pinged.make
    monkeypatch.setitem(sys.modules, module.__name__, module)
    table = {"url": "sqlite://", "factory": "kinds_of_a_user:make"}
    registry = SessionFactoryRegistry.from_mapping(dict.fromkeys("abc", table))

    health = registry.ping(names=("a", "b", "c"), timeout=0.25)

    assert [answer.detail for answer in health.values()] == ["a", "b", "c"]
    assert pinged.timeouts == [0.25] * 3


def test_a_ping_looks_at_an_override() -> None:
    """A test that replaced a database never has the real one asked."""
    with SessionFactoryRegistry({"default": DatabaseSettings("nosuch://host")}) as registry:
        with registry.override("default", NullSessionFactory("no database in this test")):
            health = registry.ping(names=("default",))

        assert health == {"default": Health("unconfigured", None, "no database in this test")}


def test_a_closed_registry_says_so_when_pinged() -> None:
    """A health check that outlives the registry gets an answer, and no exception."""
    registry = SessionFactoryRegistry({"default": MEMORY})
    registry.close()

    assert registry.ping(names=("default",))["default"].state == "closed"
    assert registry.ping() == {}


def test_status_tells_of_the_factories_that_were_built(tmp_path: Path) -> None:
    """Pools that exist are counted; factories that count nothing are left out."""
    settings = DatabaseSettings(f"sqlite:///{tmp_path}/a.db")
    with SessionFactoryRegistry({"default": settings, "other": MEMORY}) as registry:
        registry.register("plain", sessionmaker())
        assert registry.status() == {}
        with registry.get()() as session:
            session.execute(text("SELECT 1"))
            (name, status), *rest = registry.status().items()
        assert (name, status.in_use, rest) == ("default", 1, [])
        assert [holder.owner for holder in status.holders] == ["thread MainThread"]

        named = registry.status(names=("plain", "other"))

    assert list(named) == ["other"]
    assert named["other"] == PoolStatus(1, 0, 0, 0, 0, 0)


def test_one_text_is_not_several_names() -> None:
    """A text where several names belong is refused, and not read letter by letter."""
    registry = SessionFactoryRegistry()
    for slip in (
        lambda: SessionFactoryRegistry(require="default"),
        lambda: SessionFactoryRegistry.from_env({}, names="default"),
        lambda: registry.ping(names="default"),
        lambda: registry.status(names="default"),
    ):
        with pytest.raises(TypeError, match=r"write \['default'\]"):
            slip()


def test_a_closed_registry_takes_no_factory() -> None:
    """Once closed, a registry is not filled again."""
    registry = SessionFactoryRegistry()
    registry.close()
    with pytest.raises(ClosedError, match="takes no factory for 'late'"):
        registry.register("late", sessionmaker())


class _FailingPing(sessionmaker[Session]):
    def ping(self, *, timeout: float) -> Health:
        raise OSError(f"after {timeout} s")


def test_a_ping_that_fails_is_an_answer() -> None:
    """A factory of another kind whose ping raises does not take the others' answers away."""
    registry = SessionFactoryRegistry({"default": DatabaseSettings("sqlite://")})
    registry.register("other", _FailingPing())
    with registry:
        answers = registry.ping(names=["default", "other"])
    assert answers["default"].ok
    assert answers["other"].state == "unreachable"
    assert "after 2.0 s" in answers["other"].detail


def test_overrides_may_end_in_another_order() -> None:
    """Each override takes its own entry away, whichever ends first."""
    registry = SessionFactoryRegistry({"default": DatabaseSettings("sqlite://")})
    one, two = NullSessionFactory("one"), NullSessionFactory("two")
    first, second = registry.override("default", one), registry.override("default", two)
    with registry:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert registry.get() is two
        second.__exit__(None, None, None)
        assert registry.get() not in {one, two}
