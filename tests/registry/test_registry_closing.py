"""Closing a registry: newest first, everything, once, under one deadline."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from attrs import Factory, define
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from sessionfactory import (
    AsyncSessionFactoryRegistry,
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
)
from tests.support.halves import in_both_halves, registry_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessionfactory import Holder
    from tests.support.halves import Half

Registry = AsyncSessionFactoryRegistry


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

    async def aclose(self, *, timeout: float) -> tuple[Holder, ...]:
        return self.close(timeout=timeout)

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


def built(half: Half, *names: str, kind: str = "make") -> Registry:
    """Return a registry that has built factories of these names, in this order."""
    table = {"url": "sqlite://", "factory": f"kinds_of_a_user:{kind}"}
    from_mapping: Callable[..., Registry] = Registry.from_mapping
    registry = half.make(from_mapping, dict.fromkeys(sorted(names), table))
    for name in names:
        registry.get(name)
    return registry


@in_both_halves
async def test_the_newest_is_closed_first(half: Half, log: Log) -> None:
    """What was built last may lean on what was built before, so it goes first."""
    registry = built(half, "b", "c", "a")

    await registry.aclose()

    assert log.names == ["a", "c", "b"]


@in_both_halves
async def test_what_was_never_asked_for_is_not_closed(half: Half, log: Log) -> None:
    """Closing builds nothing, not even to close it."""
    table = {"url": "sqlite://", "factory": "kinds_of_a_user:make"}
    from_mapping: Callable[..., Registry] = Registry.from_mapping
    registry = half.make(from_mapping, {"used": table, "unused": table})
    registry.get("used")

    await registry.aclose()

    assert log.names == ["used"]


@in_both_halves
async def test_all_are_closed_even_when_one_fails(half: Half, log: Log) -> None:
    """The failure is told when everything is closed, with the name of its database."""
    registry = built(half, "a", "b", "c")
    log.failing = {"b": LookupError("no more b")}

    with pytest.raises(ExceptionGroup) as caught:
        await registry.aclose()

    assert log.names == ["c", "b", "a"]
    (error,) = caught.value.exceptions
    assert error is log.failing["b"]
    assert error.__notes__ == ["while closing the database 'b'"]


@in_both_halves
async def test_every_failure_is_told(half: Half, log: Log) -> None:
    """When several fail, no failure hides another."""
    registry = built(half, "a", "b")
    log.failing = {"a": LookupError("no more a"), "b": OSError("no more b")}

    with pytest.raises(ExceptionGroup, match="databases that could not be closed") as caught:
        await registry.aclose()

    assert [*caught.value.exceptions] == [log.failing["b"], log.failing["a"]]


@in_both_halves
async def test_a_registry_that_failed_to_close_is_closed(half: Half, log: Log) -> None:
    """After a failure nothing is closed a second time, and nothing is given any more."""
    registry = built(half, "a")
    log.failing = {"a": LookupError("no more a")}
    with pytest.raises(ExceptionGroup):
        await registry.aclose()

    assert await registry.aclose() == {}
    assert log.names == ["a"]
    with pytest.raises(ClosedError):
        registry.get("a")


@in_both_halves
async def test_closing_twice_is_closing_once(half: Half, log: Log) -> None:
    """`close` may stand in a `finally` beside a `with`."""
    registry = built(half, "a")

    async with registry:
        await registry.aclose()

    assert log.names == ["a"]


@in_both_halves
async def test_one_deadline_holds_for_all(half: Half, log: Log) -> None:
    """Each factory gets what the ones before it have left of the time."""
    registry = built(half, "a", "b", "c")

    await registry.aclose(timeout=5.0)

    given = [timeout for _, timeout in log.closed]
    assert 5.0 >= given[0] > given[1] > given[2] > 0


@in_both_halves
async def test_a_deadline_that_is_over_is_zero(half: Half, log: Log) -> None:
    """A factory is never given a negative time."""
    registry = built(half, "a", "b")

    await registry.aclose(timeout=0)

    assert log.closed == [("b", 0.0), ("a", 0.0)]


@in_both_halves
async def test_a_kind_without_close_is_left_alone(half: Half, log: Log) -> None:
    """What cannot be closed does not keep the others from it."""
    assert await built(half, "a", kind="make_without_end").aclose() == {}


@in_both_halves
async def test_the_block_closes_what_was_built_in_it(half: Half, tmp_path: Path) -> None:
    """The registry is a context manager, and its factories say that they are closed."""
    settings = DatabaseSettings(f"sqlite:///{tmp_path}/a.db")
    async with registry_of(half, {"default": settings}) as registry:
        factory = registry.get()
        async with factory.begin() as session:
            await session.execute(text("SELECT 1"))

    for use in (factory, factory.begin):
        with pytest.raises(ClosedError, match="The session factory 'default' is closed"):
            use()


@in_both_halves
async def test_the_block_s_own_error_passes_through(half: Half, log: Log) -> None:
    """An error in the block is neither swallowed nor replaced, and everything is closed."""
    with pytest.raises(KeyError, match="the program's own"):
        async with built(half, "a"):
            raise KeyError("the program's own")

    assert log.names == ["a"]


@in_both_halves
async def test_a_closed_registry_takes_no_new_life(half: Half, log: Log) -> None:
    """A thread that comes late gets `ClosedError`, and builds nothing."""
    registry = built(half, "a")
    await registry.aclose()

    with pytest.raises(ClosedError, match="The registry is closed"):
        registry.get("a")

    assert log.names == ["a"]


@in_both_halves
async def test_connections_that_come_back_in_time_are_not_cut(half: Half) -> None:
    """A registry whose databases are idle reports no holder."""
    async with registry_of(half, {"default": DatabaseSettings("sqlite://")}) as registry:
        async with registry.get().begin() as session:
            await session.execute(text("SELECT 1"))

        assert await registry.aclose() == {}


@in_both_halves
async def test_who_exceeds_the_deadline_is_cut_off(half: Half, tmp_path: Path) -> None:
    """Connections that stay out are cut in every database, and their holders reported by name."""
    names = ("default", "analytics", "idle")
    registry = registry_of(
        half, {name: DatabaseSettings(f"sqlite:///{tmp_path}/{name}.db") for name in names}
    )
    registry.get("idle")
    factories = [registry.get(), registry.get("analytics")]
    taken, leave = half.signal(), half.signal()

    async def hold() -> None:
        async with factories[0]() as one, factories[1]() as two:
            await one.execute(text("SELECT 1"))
            await two.execute(text("SELECT 1"))
            taken.set()
            await leave.wait()

    async with half.elsewhere(hold) as holding:
        await taken.wait()
        cut = await registry.aclose(timeout=0.05)
        leave.set()

    assert list(cut) == ["analytics", "default"]
    for holders in cut.values():
        (holder,) = holders
        assert holder.owner == holding
        assert "test_registry_closing.py" in holder.where


@in_both_halves
async def test_connections_of_the_closer_are_cut_at_once(half: Half, tmp_path: Path) -> None:
    """Connections of the caller itself cannot come back, so that it does not wait for them."""
    async with half.make(
        AsyncSqlAlchemySessionFactory,
        DatabaseSettings(f"sqlite:///{tmp_path}/elsewhere.db"),
        session_class=AsyncSession,
    ) as elsewhere:
        settings = DatabaseSettings(f"sqlite:///{tmp_path}/a.db")
        registry = registry_of(half, {"default": settings})
        registry.register("elsewhere", elsewhere)
        async with registry.get()() as ours, registry.get("elsewhere")() as theirs:
            await ours.execute(text("SELECT 1"))
            await theirs.execute(text("SELECT 1"))

            cut = await registry.aclose(timeout=20)

            assert list(cut) == ["default"]
            assert await theirs.scalar(text("SELECT 2")) == 2


@in_both_halves
async def test_an_interrupt_hurries_the_others(half: Half, log: Log) -> None:
    """Ctrl-C while one is closed closes the others at once, and is passed on."""
    log.failing["b"] = KeyboardInterrupt()
    registry = built(half, "a", "b", "c")

    with pytest.raises(KeyboardInterrupt) as caught:
        await registry.aclose(timeout=20)

    assert caught.value is log.failing["b"]
    assert log.names == ["c", "b", "a"]
    assert [timeout > 0 for _, timeout in log.closed] == [True, True, False]
