"""A limit on the statements of a block: what counts, what the error reports, the fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from sessionfactory.testing import (
    AsyncRecordingSessionFactory,
    QueryBudgetError,
    RecordingSessionFactory,
    max_queries,
)
from tests.support.inner_pytest import ASYNCIO, inner

if TYPE_CHECKING:
    from sessionfactory import SqlAlchemySessionFactory
    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

READ = text("SELECT a FROM t")


@pytest.fixture
def recorder(factory: SqlAlchemySessionFactory) -> RecordingSessionFactory:
    """A recorder of a factory on a SQLite file with a table ``t(a)``."""
    return RecordingSessionFactory(factory)


def read(sessions: RecordingSessionFactory, times: int) -> None:
    """Send one statement several times."""
    with sessions.begin() as session:
        for _ in range(times):
            session.execute(READ)


def test_a_block_within_its_limit_passes(recorder: RecordingSessionFactory) -> None:
    """What was sent before the block does not count, nor do BEGIN and COMMIT."""
    read(recorder, 5)
    with max_queries(recorder, 2):
        read(recorder, 2)
    with max_queries(recorder, 0):
        pass


def test_too_many_are_reported_with_their_call_sites(recorder: RecordingSessionFactory) -> None:
    """The most repeated statement comes first, with the function that sends it."""
    with pytest.raises(QueryBudgetError) as caught, max_queries(recorder, 2):
        with recorder.begin() as session:
            session.execute(text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
        read(recorder, 2)
        read(recorder, 1)

    lines = str(caught.value).splitlines()
    assert lines[0] == "4 statements were sent where at most 2 are allowed:"
    assert lines[1] == "  3 times: SELECT a FROM t"
    assert lines[2].startswith("      at ")
    assert lines[2].endswith(" in read")
    assert lines[3] == "  1 times: INSERT INTO t VALUES (?) (2 rows)"
    assert lines[4].endswith(" in test_too_many_are_reported_with_their_call_sites")
    assert isinstance(caught.value, AssertionError)


def test_one_statement_from_two_places_lists_both(recorder: RecordingSessionFactory) -> None:
    """Each call site has its own count."""
    with pytest.raises(QueryBudgetError) as caught, max_queries(recorder, 0):
        read(recorder, 2)
        with recorder() as session:
            session.execute(READ)

    sites = [line.strip() for line in str(caught.value).splitlines()[2:]]
    assert [site.partition(" at ")[0] for site in sites] == ["2 times", "1 times"]


def test_an_error_of_the_block_is_the_one_that_is_raised(
    recorder: RecordingSessionFactory,
) -> None:
    """A block that fails by itself is not blamed for its statements."""
    with pytest.raises(LookupError), max_queries(recorder, 0):
        read(recorder, 1)
        raise LookupError


def test_blocks_nest_and_survive_a_reset(recorder: RecordingSessionFactory) -> None:
    """An outer block counts what the inner one sends; after a reset, what followed it."""
    with pytest.raises(QueryBudgetError, match="3 statements were"), max_queries(recorder, 2):
        read(recorder, 1)
        with max_queries(recorder, 2):
            read(recorder, 2)
    with max_queries(recorder, 1):
        read(recorder, 3)
        recorder.recording.reset()
        read(recorder, 1)


@pytest.mark.parametrize("limit", [-1, True, 1.5, "2"])
def test_a_limit_is_a_number(recorder: RecordingSessionFactory, limit: int) -> None:
    """Anything else is refused before the block."""
    with pytest.raises(ValueError, match="0 or more, not"), max_queries(recorder, limit):
        pass


@pytest.mark.asyncio
async def test_statements_of_the_async_half_count() -> None:
    """The call site is that of the task's own code, though SQLAlchemy runs in a greenlet."""
    engine = create_async_engine("sqlite+aiosqlite://")
    recorder = AsyncRecordingSessionFactory(async_sessionmaker(engine))
    try:
        with pytest.raises(QueryBudgetError) as caught, max_queries(recorder, 1):
            async with recorder.begin() as session:
                await session.execute(text("SELECT 1"))
                await session.execute(text("SELECT 1"))
    finally:
        await engine.dispose()

    assert "2 times: SELECT 1" in str(caught.value)
    assert str(caught.value).count(" in test_statements_of_the_async_half_count") == 2


def test_the_fixture_limits_what_a_test_sends(inner: InnerPytest) -> None:
    """It counts what goes through the factory and through the registry, and isolates as ever."""
    inner.tests("""
from sessionfactory.testing import QueryBudgetError

@pytest.mark.parametrize("turn", [1, 2])
def test_within(max_queries, session_factory, session_registry, turn):
    with max_queries(3):
        add(session_factory)
        assert count(session_registry.get()) == 1
        assert count(session_registry.reader()) == 1

def test_beyond(session_factory, max_queries):
    with pytest.raises(QueryBudgetError, match="2 times: SELECT count"):
        with max_queries(1):
            count(session_factory)
            count(session_factory)
    """)

    inner.passes(passed=3)

    assert inner.rows() == 0


def test_the_fixture_limits_async_tests(inner: InnerPytest) -> None:
    """The async factory of the test is counted as well."""
    inner.ini("asyncio_default_fixture_loop_scope = function")
    inner.tests("""
from sessionfactory.testing import QueryBudgetError

@pytest.mark.asyncio
async def test_beyond(async_session_factory, max_queries):
    with pytest.raises(QueryBudgetError, match="2 statements were sent where at most 1"):
        with max_queries(1):
            async with async_session_factory() as session:
                await session.execute(text("SELECT 1"))
                await session.execute(text("SELECT 2"))
    """)

    inner.passes(*ASYNCIO, passed=1)
