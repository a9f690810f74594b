"""All databases of a registry refuse at once, drain side by side, and share one deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import ClosedError, DatabaseSettings
from tests.support.halves import in_both_halves, registry_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.halves import Half

MANY = [f"database_{number}" for number in range(12)]


@in_both_halves
async def test_all_refuse_before_the_first_is_closed(half: Half, tmp_path: Path) -> None:
    """While one database drains, the others take no new sessions."""
    registry = registry_of(
        half, {name: DatabaseSettings(f"sqlite:///{tmp_path}/{name}.db") for name in ("a", "b")}
    )
    a, b = registry.get("a"), registry.get("b")  # "b" is the newest, and drains first
    taken, closed = half.signal(), half.signal()
    refused: list[str] = []

    async def hold() -> None:
        async with b() as session:
            await session.execute(text("SELECT 1"))
            taken.set()
            while not refused:
                try:
                    async with a() as other:
                        await other.execute(text("SELECT 1"))
                except ClosedError as error:
                    refused.append(str(error))
                else:
                    await half.breathe()
        closed.set()

    async with half.elsewhere(hold):
        await taken.wait()
        cut = await registry.aclose(timeout=20)
        await closed.wait()

    assert cut == {}
    assert "'a' is closed" in refused[0]


@in_both_halves
async def test_one_deadline_for_all_that_is_late(half: Half, tmp_path: Path) -> None:
    """Many databases whose connections stay out are cut at one deadline, and not in turn."""
    registry = registry_of(
        half, {name: DatabaseSettings(f"sqlite:///{tmp_path}/{name}.db") for name in MANY}
    )
    sessions = [registry.get(name)() for name in MANY]
    taken, leave = half.signal(), half.signal()

    async def hold() -> None:
        for session in sessions:
            await session.execute(text("SELECT 1"))
        taken.set()
        await leave.wait()
        for session in sessions:
            await session.close()

    async with half.elsewhere(hold) as holding:
        await taken.wait()
        began = time.monotonic()
        cut = await registry.aclose(timeout=0.2)
        took = time.monotonic() - began
        leave.set()

    assert sorted(cut) == sorted(MANY)
    assert {holder.owner for holders in cut.values() for holder in holders} == {holding}
    assert took < 0.2 * len(MANY)  # one after the other, the deadline alone would be this long


@in_both_halves
async def test_what_the_closer_holds_is_cut_in_every_database(half: Half, tmp_path: Path) -> None:
    """Connections of the closing thread or task end at once in all databases, and are reported."""
    registry = registry_of(
        half, {name: DatabaseSettings(f"sqlite:///{tmp_path}/{name}.db") for name in ("a", "b")}
    )
    async with registry.get("a")() as one, registry.get("b")() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))

        cut = await registry.aclose(timeout=60)

        assert sorted(cut) == ["a", "b"]
        with pytest.raises(ClosedError):
            await one.execute(text("SELECT 1"))
