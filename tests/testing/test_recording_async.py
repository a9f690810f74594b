"""The async recording factory; what it shares with its twin is tested there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sessionfactory.testing.recording.recording_async import AsyncRecordingSessionFactory

if TYPE_CHECKING:
    from sessionfactory import AsyncSessionFactory

pytestmark = pytest.mark.asyncio


class WithReader(async_sessionmaker[AsyncSession]):
    @property
    def reader(self) -> AsyncSessionFactory:
        return self


async def test_async_sessions_are_recorded_like_others() -> None:
    """Commit, rollback, close and the task that held the connection."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncRecordingSessionFactory(WithReader(engine)) as recorder:
        async with recorder.begin() as session:
            await session.execute(text("CREATE TABLE t (a INTEGER)"))
        async with recorder() as session:
            await session.execute(text("SELECT a FROM t"))
        async with recorder.reader.begin() as session:
            await session.execute(text("SELECT a FROM t"))
    await engine.dispose()

    recording = recorder.recording
    assert (recording.sessions, recording.closed, recording.transactions) == (3, 3, 3), recording
    assert (recording.commits, recording.rollbacks) == (2, 1), recording
    assert [statement.sql for statement in recording.writes] == ["CREATE TABLE t (a INTEGER)"]
    task = asyncio.current_task()
    assert task
    assert {holder.owner for holder in recording.held} == {f"task {task.get_name()}"}
    assert "in test_async_sessions_are_recorded_like_others" in recording.held[0].where
