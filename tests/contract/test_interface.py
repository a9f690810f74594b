"""What every session factory promises: the two methods, real or fake."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from tests.support.places import FAKES, FILES, REAL, ROOMY, Place, Row, ids, on


@on(*REAL, *FAKES)
async def test_a_call_opens_a_session_that_commits_when_told(place: Place) -> None:
    """What a session did is gone when it is closed without a commit, and kept with one."""
    async with place.sessions() as sessions:
        async with sessions() as session:
            session.add(Row(id=1))
            await session.flush()
        assert await ids(sessions) == []
        async with sessions() as session:
            session.add(Row(id=2))
            await session.commit()
        assert await ids(sessions) == [2]


@on(*REAL, *FAKES)
async def test_begin_commits_and_closes(place: Place) -> None:
    """A block that ends is committed, and its session closed; what it returns can still be read."""
    async with place.sessions() as sessions:
        async with sessions.begin() as session:
            row = Row(id=1)
            session.add(row)
        assert row not in session
        assert not session.in_transaction()
        assert row.id == 1
        assert await ids(sessions) == [1]


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
@on(*REAL, *FAKES)
async def test_begin_rolls_back_and_passes_the_error_on(
    place: Place, kind: type[BaseException]
) -> None:
    """A block that raises is rolled back, its session closed, and its error as it was."""
    error, row, given = kind("mine"), Row(id=1), list[AsyncSession]()
    async with place.sessions() as sessions:
        with pytest.raises(kind) as caught:
            async with sessions.begin() as session:
                given.append(session)
                session.add(row)
                await session.flush()
                raise error
        assert caught.value is error
        assert (error.__cause__, error.__context__) == (None, None)
        assert not hasattr(error, "__notes__")
        assert row not in given[0]
        assert not given[0].in_transaction()
        assert await ids(sessions) == []


@on(*REAL, *FAKES)
async def test_begin_closes_after_a_commit_that_failed(place: Place) -> None:
    """A commit that fails raises the database's error, and still closes the session."""
    again, given = Row(id=1), list[AsyncSession]()
    async with place.sessions() as sessions:
        async with sessions.begin() as session:
            session.add(Row(id=1))
        with pytest.raises(IntegrityError):
            async with sessions.begin() as session:
                given.append(session)
                session.add_all([Row(id=2), again])
        assert again not in given[0]
        assert not given[0].in_transaction()
        assert await ids(sessions) == [1]


@on(*REAL, *FAKES)
async def test_a_commit_inside_the_block_ends_it(place: Place) -> None:
    """Using the session on after a commit inside the block is SQLAlchemy's error."""
    async with place.sessions() as sessions:
        with pytest.raises(InvalidRequestError, match="closed transaction inside context manager"):
            async with sessions.begin() as session:
                session.add(Row(id=1))
                await session.commit()
                await session.execute(text("SELECT 1"))
        assert await ids(sessions) == [1]


@on(*REAL, *FAKES)
async def test_savepoints_nest(place: Place) -> None:
    """A savepoint that is rolled back takes its own work with it, and no other."""
    async with place.sessions() as sessions:
        async with sessions.begin() as session:
            session.add(Row(id=1))
            async with session.begin_nested():
                session.add(Row(id=2))
                with pytest.raises(KeyError):
                    async with session.begin_nested():
                        session.add(Row(id=3))
                        await session.flush()
                        raise KeyError
            savepoint = await session.begin_nested()
            session.add(Row(id=4))
            await savepoint.rollback()
        assert await ids(sessions) == [1, 2]


@on(*REAL, *FAKES)
async def test_each_call_has_a_session_of_its_own(place: Place) -> None:
    """Two calls, or two transactions, never share a session."""
    async with place.sessions() as sessions, sessions() as one, sessions() as two:
        async with sessions.begin() as three:
            pass
        async with sessions.begin() as four:
            assert len({id(one), id(two), id(three), id(four)}) == 4


@on(*ROOMY)
async def test_sessions_are_independent(place: Place) -> None:
    """What one session has not committed, another one does not see."""
    async with place.factory() as sessions, sessions.begin() as session:
        session.add(Row(id=1))
        await session.flush()
        assert sessions.status().in_use == 1
        assert await ids(sessions) == []


@on(*FILES)
async def test_a_scope_is_entered_once(place: Place) -> None:
    """A second entering is refused, and the first one's session is none the worse."""
    async with place.factory() as sessions:
        scope = sessions.begin()
        async with scope as session:
            session.add(Row(id=1))
            with pytest.raises(RuntimeError, match="scope is entered once; call begin"):
                await scope.__aenter__()
        assert await ids(sessions) == [1]


@on(*FILES)
async def test_a_scope_that_cannot_begin_leaves_nothing(place: Place) -> None:
    """A session class of the user's whose transactions do not begin is closed again."""
    made: list[object] = []

    class Failing(Session):
        def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002
            made.append(self)
            raise LookupError("no transaction today")

        def close(self) -> None:
            made.remove(self)
            super().close()

    class AsyncFailing(AsyncSession):
        sync_session_class = Failing

    async with place.factory(session_class=AsyncFailing) as sessions:
        with pytest.raises(LookupError, match="no transaction today"):
            async with sessions.begin():
                pytest.fail("the block must not run")
        assert made == []
