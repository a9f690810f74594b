"""Pings of a registry: all databases side by side, and an answer for each."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

from attrs import define, evolve
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSessionFactoryRegistry,
    DatabaseSettings,
    Health,
)
from tests.support.awaited import Awaited
from tests.support.halves import SyncHalf, in_both_halves, registry_of

if TYPE_CHECKING:
    import pytest

    from tests.support.halves import Half

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


@define
class AsyncPinged:
    """Its twin."""

    barrier: asyncio.Barrier
    timeouts: list[float]
    name: str = ""

    def make(self, settings: DatabaseSettings, *, name: str) -> AsyncPinged:
        """Make a factory, as a kind does."""
        return evolve(self, name=name)

    async def ping(self, *, timeout: float) -> Health:
        self.timeouts.append(timeout)
        await self.barrier.wait()
        return Health("slow", None, self.name)


@in_both_halves
async def test_ping_asks_the_factories_that_were_built(half: Half) -> None:
    """An unused database is not pinged, and not built."""
    async with registry_of(half, {"default": MEMORY, "other": MEMORY}) as registry:
        assert await registry.ping() == {}
        registry.get()

        assert await registry.ping() == {"default": Health("ok", 0.0, "in memory")}


@in_both_halves
async def test_ping_asks_those_that_are_named(half: Half) -> None:
    """Named databases are built and asked, and each says what it is, the missing one too."""
    broken = DatabaseSettings("nosuch://host/name")
    async with registry_of(half, {"default": MEMORY, "broken": broken}) as registry:
        registry.register("plain", half.make(async_sessionmaker))

        health = await registry.ping(names=("plain", "broken", "missing", "default"))

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


@in_both_halves
async def test_pings_run_side_by_side(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ping is under way before the first one ends, and each has the whole timeout."""
    pinged = (
        Pinged(threading.Barrier(3), [])
        if isinstance(half, SyncHalf)
        else AsyncPinged(asyncio.Barrier(3), [])
    )
    module = ModuleType("kinds_of_a_user")
    module.__dict__["make"] = pinged.make
    monkeypatch.setitem(sys.modules, module.__name__, module)
    table = {"url": "sqlite://", "factory": "kinds_of_a_user:make"}
    registry = half.make(
        AsyncSessionFactoryRegistry.from_mapping,
        dict.fromkeys("abc", table),
        session_class=AsyncSession,
    )

    health = await registry.ping(names=("a", "b", "c"), timeout=0.25)

    assert [answer.detail for answer in health.values()] == ["a", "b", "c"]
    assert pinged.timeouts == [0.25] * 3


@in_both_halves
async def test_a_ping_looks_at_an_override(half: Half) -> None:
    """A test that replaced a database never has the real one asked."""
    null = half.make(AsyncNullSessionFactory, "no database in this test")
    async with registry_of(half, {"default": DatabaseSettings("nosuch://host")}) as registry:
        with registry.override("default", null):
            health = await registry.ping(names=("default",))

        assert health == {"default": Health("unconfigured", None, "no database in this test")}


@in_both_halves
async def test_a_closed_registry_says_so_when_pinged(half: Half) -> None:
    """A health check that outlives the registry gets an answer, and no exception."""
    registry = registry_of(half, {"default": MEMORY})
    await registry.aclose()

    assert (await registry.ping(names=("default",)))["default"].state == "closed"
    assert await registry.ping() == {}


class FailingPing(sessionmaker[Session]):
    def ping(self, *, timeout: float) -> Health:
        raise OSError(f"after {timeout} s")


class AsyncFailingPing(async_sessionmaker[AsyncSession]):
    async def ping(self, *, timeout: float) -> Health:
        raise OSError(f"after {timeout} s")


@in_both_halves
async def test_a_ping_that_fails_is_an_answer(half: Half) -> None:
    """A factory of another kind whose ping raises does not take the others' answers away."""
    other = Awaited(FailingPing()) if isinstance(half, SyncHalf) else AsyncFailingPing()
    async with registry_of(half, {"default": MEMORY}) as registry:
        registry.register("other", other)
        answers = await registry.ping(names=["default", "other"])
    assert answers["default"].ok
    assert answers["other"].state == "unreachable"
    assert "after 2.0 s" in answers["other"].detail
