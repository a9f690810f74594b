"""Closing a registry: newest first, everything, once, under one deadline."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from attrs import Factory, define
from sqlalchemy import text

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    SessionFactoryRegistry,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sessionfactory import Holder, SessionFactory

WAIT = 30.0


@define
class Log:
    """What the factories of the kind below were asked, and which of them fail."""

    closed: list[tuple[str, float]] = Factory(list[tuple[str, float]])
    failing: dict[str, BaseException] = Factory(dict[str, BaseException])

    def make(self, settings: DatabaseSettings, *, name: str) -> Logged:
        """Make a factory, as a kind does."""
        return Logged(self, name)

    def make_without_end(self, settings: DatabaseSettings, *, name: str) -> object:
        """Make something that cannot be closed."""
        return object()

    @property
    def names(self) -> list[str]:
        """The names of what was closed, in order."""
        return [name for name, _ in self.closed]


@define
class Logged:
    """A factory of another kind."""

    log: Log
    name: str

    def close(self, *, timeout: float) -> tuple[Holder, ...]:
        self.log.closed.append((self.name, timeout))
        began = time.monotonic()
        while time.monotonic() == began:
            pass  # so that the next one has less time left
        if self.name in self.log.failing:
            raise self.log.failing[self.name]
        return ()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A kind that can be named as ``kinds_of_a_user:make``."""
    log = Log()
    module = ModuleType("kinds_of_a_user")
    module.__dict__.update(make=log.make, make_without_end=log.make_without_end)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return log


def built(*names: str, kind: str = "make") -> SessionFactoryRegistry:
    """Return a registry that has built factories of these names, in this order."""
    table = {"url": "sqlite://", "factory": f"kinds_of_a_user:{kind}"}
    registry = SessionFactoryRegistry.from_mapping(dict.fromkeys(sorted(names), table))
    for name in names:
        registry.get(name)
    return registry


@contextmanager
def connections_out(*factories: SessionFactory) -> Generator[None]:
    """Have another thread hold a connection of each factory, as long as the block runs."""
    taken, leave = threading.Event(), threading.Event()

    def hold() -> None:
        sessions = [factory() for factory in factories]
        for session in sessions:
            session.execute(text("SELECT 1"))
        taken.set()
        leave.wait(WAIT)
        for session in sessions:
            session.close()

    thread = threading.Thread(target=hold, name="holder")
    thread.start()
    try:
        assert taken.wait(WAIT)
        yield
    finally:
        leave.set()
        thread.join(WAIT)


def test_the_newest_is_closed_first(log: Log) -> None:
    """What was built last may lean on what was built before, so it goes first."""
    registry = built("b", "c", "a")

    registry.close()

    assert log.names == ["a", "c", "b"]


def test_what_was_never_asked_for_is_not_closed(log: Log) -> None:
    """Closing builds nothing, not even to close it."""
    table = {"url": "sqlite://", "factory": "kinds_of_a_user:make"}
    registry = SessionFactoryRegistry.from_mapping({"used": table, "unused": table})
    registry.get("used")

    registry.close()

    assert log.names == ["used"]


def test_all_are_closed_even_when_one_fails(log: Log) -> None:
    """The failure is told when everything is closed, with the name of its database."""
    registry = built("a", "b", "c")
    log.failing = {"b": LookupError("no more b")}

    with pytest.raises(ExceptionGroup) as caught:
        registry.close()

    assert log.names == ["c", "b", "a"]
    (error,) = caught.value.exceptions
    assert error is log.failing["b"]
    assert error.__notes__ == ["while closing the database 'b'"]


def test_every_failure_is_told(log: Log) -> None:
    """When several fail, no failure hides another."""
    registry = built("a", "b")
    log.failing = {"a": LookupError("no more a"), "b": OSError("no more b")}

    with pytest.raises(ExceptionGroup, match="databases that could not be closed") as caught:
        registry.close()

    assert [*caught.value.exceptions] == [log.failing["b"], log.failing["a"]]


def test_a_registry_that_failed_to_close_is_closed(log: Log) -> None:
    """After a failure nothing is closed a second time, and nothing is given any more."""
    registry = built("a")
    log.failing = {"a": LookupError("no more a")}
    with pytest.raises(ExceptionGroup):
        registry.close()

    assert registry.close() == {}
    assert log.names == ["a"]
    with pytest.raises(ClosedError):
        registry.get("a")


def test_closing_twice_is_closing_once(log: Log) -> None:
    """`close` may stand in a `finally` beside a `with`."""
    registry = built("a")

    with registry:
        registry.close()

    assert log.names == ["a"]


def test_one_deadline_holds_for_all(log: Log) -> None:
    """Each factory gets what the ones before it have left of the time."""
    registry = built("a", "b", "c")

    registry.close(timeout=5.0)

    given = [timeout for _, timeout in log.closed]
    assert 5.0 >= given[0] > given[1] > given[2] > 0


def test_a_deadline_that_is_over_is_zero(log: Log) -> None:
    """A factory is never given a negative time."""
    registry = built("a", "b")

    registry.close(timeout=0)

    assert log.closed == [("b", 0.0), ("a", 0.0)]


def test_a_kind_without_close_is_left_alone(log: Log) -> None:
    """What cannot be closed does not keep the others from it."""
    assert built("a", kind="make_without_end").close() == {}


def test_the_block_closes_what_was_built_in_it(tmp_path: Path) -> None:
    """The registry is a context manager, and its factories say that they are closed."""
    with SessionFactoryRegistry(
        {"default": DatabaseSettings(f"sqlite:///{tmp_path}/a.db")}
    ) as registry:
        factory = registry.get()
        with factory.begin() as session:
            session.execute(text("SELECT 1"))

    for use in (factory, factory.begin):
        with pytest.raises(ClosedError, match="The session factory 'default' is closed"):
            use()


def test_the_block_s_own_error_passes_through(log: Log) -> None:
    """An error in the block is neither swallowed nor replaced, and everything is closed."""
    with pytest.raises(KeyError, match="the program's own"), built("a"):
        raise KeyError("the program's own")

    assert log.names == ["a"]


def test_a_closed_registry_takes_no_new_life(log: Log) -> None:
    """A thread that comes late gets `ClosedError`, and builds nothing."""
    registry = built("a")
    registry.close()

    with pytest.raises(ClosedError, match="The registry is closed"):
        registry.get("a")

    assert log.names == ["a"]


def test_connections_that_come_back_in_time_are_not_cut() -> None:
    """A registry whose databases are idle has nobody to report."""
    with SessionFactoryRegistry({"default": DatabaseSettings("sqlite://")}) as registry:
        with registry.get().begin() as session:
            session.execute(text("SELECT 1"))

        assert registry.close() == {}


def test_who_exceeds_the_deadline_is_cut_off(tmp_path: Path) -> None:
    """Connections that stay out are cut in every database, and their holders reported by name."""
    names = ("default", "analytics", "idle")
    registry = SessionFactoryRegistry(
        {name: DatabaseSettings(f"sqlite:///{tmp_path}/{name}.db") for name in names}
    )
    registry.get("idle")

    with connections_out(registry.get(), registry.get("analytics")):
        cut = registry.close(timeout=0.05)

    assert list(cut) == ["analytics", "default"]
    for holders in cut.values():
        (holder,) = holders
        assert holder.owner == "thread holder"
        assert "test_registry_closing.py" in holder.where


def test_connections_of_the_closing_thread_are_cut_at_once(tmp_path: Path) -> None:
    """Nobody could give them back while the thread waits, so that it does not wait."""
    with SqlAlchemySessionFactory(
        DatabaseSettings(f"sqlite:///{tmp_path}/elsewhere.db")
    ) as elsewhere:
        registry = SessionFactoryRegistry(
            {"default": DatabaseSettings(f"sqlite:///{tmp_path}/a.db")}
        )
        registry.register("elsewhere", elsewhere)
        with registry.get()() as ours, registry.get("elsewhere")() as theirs:
            ours.execute(text("SELECT 1"))
            theirs.execute(text("SELECT 1"))

            cut = registry.close(timeout=20)

            assert list(cut) == ["default"]
            assert theirs.execute(text("SELECT 2")).scalar_one() == 2


def test_an_interrupt_hurries_the_others(url: str) -> None:
    """Ctrl-C while one is closed closes the others at once, and is passed on."""
    other = url.replace("app.db", "other.db")
    registry = SessionFactoryRegistry(
        {"default": DatabaseSettings(url), "other": DatabaseSettings(other)}
    )
    first, second = registry.get(), registry.get("other")
    assert isinstance(first, SqlAlchemySessionFactory)
    assert isinstance(second, SqlAlchemySessionFactory)
    assert first.engine is not second.engine

    def interrupt(timeout: float) -> tuple[Holder, ...]:
        raise KeyboardInterrupt

    real, second._managed.close = second._managed.close, interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        registry.close()
    assert not first._managed.built
    real(0)
