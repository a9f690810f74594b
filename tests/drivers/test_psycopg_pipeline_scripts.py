"""Whatever is done on a connection, the pipelined path does the same as the plain one."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, make_url
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import PostgresServer
from tests.support.available import running_or_skipped
from tests.support.scripts import OPERATIONS, TABLES, run, start_over

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine

    from tests.support.scripts import Outcome

scripts = st.lists(st.sampled_from(list(OPERATIONS)), min_size=1, max_size=16)


@pytest.fixture(scope="module")
def urls() -> Generator[dict[bool, URL]]:
    """Two databases on a server that knows two phases: for the plain path, and the pipelined."""
    # A script may wait for a lock of its own prepared transaction, which only this timeout ends.
    limits: dict[str, str | int] = {"max_prepared_transactions": 4, "lock_timeout": "200ms"}
    with running_or_skipped(PostgresServer(settings=limits)) as server:
        urls: dict[bool, URL] = {}
        for pipeline in (False, True):
            name = f"pipeline_{pipeline}".lower()
            server.execute(f"CREATE DATABASE {name}")
            for table in TABLES:
                server.execute(table, database=name)
            urls[pipeline] = make_url(server.url_for("psycopg", name))
        yield urls


def described(url: URL, *, pipeline: bool) -> DatabaseSettings:
    """Return settings whose pool is one connection, so that a script meets what it left there."""
    return DatabaseSettings(url, pipeline=pipeline, pool=PoolSettings(size=1, max_overflow=0))


def perform(engine: Engine, script: list[str]) -> list[Outcome]:
    """Run a script on fresh tables."""
    start_over(engine)
    return run(engine, script)


def test_scripts(urls: dict[bool, URL]) -> None:
    """Results, errors and what is left are those of the plain path, whatever the script."""
    with (
        SqlAlchemySessionFactory(described(urls[False], pipeline=False)) as plain,
        SqlAlchemySessionFactory(described(urls[True], pipeline=True)) as ahead,
    ):

        @settings(max_examples=50, deadline=None)
        @given(scripts)
        def compare(script: list[str]) -> None:
            assert perform(ahead.engine, script) == perform(plain.engine, script)

        compare()


@pytest.mark.filterwarnings("ignore:.*ServerCursor .* was deleted while still open:ResourceWarning")
def test_scripts_async(urls: dict[bool, URL]) -> None:
    """The same of the async half."""

    async def performed(script: list[str], *, pipeline: bool) -> list[Outcome]:
        settings_ = described(urls[pipeline], pipeline=pipeline)
        async with AsyncSqlAlchemySessionFactory(settings_) as factory:
            return await greenlet_spawn(perform, factory.engine.sync_engine, script)

    @settings(max_examples=25, deadline=None)
    @given(scripts)
    def compare(script: list[str]) -> None:
        ahead = asyncio.run(performed(script, pipeline=True))
        assert ahead == asyncio.run(performed(script, pipeline=False))

    compare()
    gc.collect()  # SQLAlchemy leaves server-side cursors open that failed, on either path
