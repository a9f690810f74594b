"""Async twin of ``conformance``."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.testing.conformance._requirements import (
    NOT_MADE,
    Attempt,
    Deliberate,
    Findings,
    expect,
    expect_closed,
    has_rows,
    kind_of,
    make_table,
    new_row,
    raise_if_given,
    remove_table,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from sqlalchemy.orm import Session

    from sessionfactory.interfaces import AsyncSessionFactory

    Sessions = AsyncSessionFactory[AsyncSession]
    Make = Callable[[], Sessions | AbstractAsyncContextManager[Sessions]]


async def check_async_session_factory(make: Make) -> None:
    """Async twin of ``check_session_factory``: check what ``AsyncSessionFactory`` promises.

    ``CancelledError`` stands for ``KeyboardInterrupt``, and another task for another task.

    Args:
        make: called for each promise; gives a factory, or an async context manager with a factory
            as its value, which is entered and left.

    Raises:
        ConformanceError: the factory breaks promises; the message lists them, with what was seen.
    """
    findings = Findings("AsyncSessionFactory")
    for promise, keeps in KINDS.items():
        with findings.about(promise):
            async with _probing(make) as probe:
                await keeps(probe)
    findings.tell()
    made_table = False
    for promise, keeps in PROMISES.items():
        with findings.about(promise):
            async with _probing(make) as probe:
                made_table |= await probe.prepare(make_table)
                await keeps(probe)
    if made_table:
        with findings.about("the table of this check can be dropped"):
            async with _probing(make) as probe:
                await probe.prepare(remove_table)
    findings.tell()


class _Probe:
    """The factory that is checked, with a memory for its sessions: what breaks leaves some open."""

    def __init__(self, sessions: AsyncSessionFactory[AsyncSession]) -> None:
        self.sessions = sessions
        self._given: list[AsyncSession] = []

    def __call__(self) -> AsyncSession:
        session = self.sessions()
        self._given.append(session)
        return session

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        async with self.sessions.begin() as session:
            self._given.append(session)
            yield session

    async def close(self) -> None:
        """Close every session that was given so far."""
        while self._given:
            await self._given.pop().close()

    async def prepare(self, work: Callable[[Session], bool]) -> bool:
        """Do something to the table."""
        async with self() as session:
            done = await session.run_sync(work)
            await session.commit()
        return done

    async def finds(self, *tokens: str) -> bool:
        """Return whether a new session sees these rows, while no other is open."""
        await self.close()
        async with self() as session:
            return await session.run_sync(has_rows, tokens)

    async def fail(self, attempt: Attempt, error: BaseException | None = None) -> Attempt:
        """Write a row in a transaction whose block raises; without an error, its commit has to."""
        try:
            async with self.begin() as session:
                attempt.session = session
                session.add(attempt.row)
                if error is not None:
                    await session.flush()
                raise_if_given(error)
        except BaseException as raised:  # noqa: BLE001 - CancelledError is among the errors
            attempt.raised = raised
        return attempt


@asynccontextmanager
async def _probing(make: Make) -> AsyncGenerator[_Probe]:
    made = make()
    manager = made if isinstance(made, AbstractAsyncContextManager) else nullcontext(made)
    async with manager as sessions:
        probe = _Probe(sessions)
        try:
            yield probe
        finally:
            await probe.close()


async def _call_gives_a_session(probe: _Probe) -> None:
    expect(not isinstance(probe.sessions, AsyncSession), NOT_MADE)  # by who gave the factory itself
    given = probe.sessions()
    expect(isinstance(given, AsyncSession), f"it gave {kind_of(given)}")
    await given.close()


async def _begin_gives_a_session(probe: _Probe) -> None:
    manager = probe.sessions.begin()
    expect(isinstance(manager, AbstractAsyncContextManager), f"it gave {kind_of(manager)}")
    async with manager as session:
        pass
    expect(isinstance(session, AsyncSession), f"its value was {kind_of(session)}")


async def _each_has_its_own(probe: _Probe) -> None:
    _, row = new_row()
    one, two = probe(), probe()
    one.add(row)
    expect(one is not two, "two calls gave the same one")
    expect(row not in two, "two sessions had the same objects")
    await two.close()
    expect(row in one, "closing one session closed another")
    async with probe.begin() as three:
        expect(three not in (one, two), "begin() gave the one that a call had given")
    async with probe.begin() as four:
        expect(three is not four, "two transactions had the same one")


async def _sessions_keep_what_is_committed(probe: _Probe) -> None:
    token, row = new_row()
    async with probe() as session:
        session.add(row)
        await session.commit()
    expect(await probe.finds(token), "the next session did not find it")


async def _sessions_drop_what_is_not(probe: _Probe) -> None:
    token, row = new_row()
    async with probe() as session:
        session.add(row)
        await session.flush()
    expect(not await probe.finds(token), "the next session found it")


async def _begin_commits(probe: _Probe) -> None:
    token, row = new_row()
    async with probe.begin() as session:
        session.add(row)
    expect(await probe.finds(token), "the next session did not find what it wrote")


async def _begin_closes(probe: _Probe) -> None:
    _, row = new_row()
    async with probe.begin() as session:
        session.add(row)
    expect_closed(session, row)


async def _begin_rolls_back(probe: _Probe) -> None:
    attempt = await probe.fail(Attempt(), Deliberate())
    expect(not await probe.finds(attempt.token), "the next session found what it wrote")


async def _begin_passes_errors_on(probe: _Probe) -> None:
    error = Deliberate()
    (await probe.fail(Attempt(), error)).expect_passed_on(error)


async def _begin_closes_after_an_error(probe: _Probe) -> None:
    (await probe.fail(Attempt(), Deliberate())).expect_closed()


async def _begin_does_so_after_an_interrupt(probe: _Probe) -> None:
    error = asyncio.CancelledError()
    attempt = await probe.fail(Attempt(), error)
    attempt.expect_passed_on(error)
    attempt.expect_closed()
    expect(not await probe.finds(attempt.token), "the next session found what it wrote")


async def _begin_survives_a_failed_commit(probe: _Probe) -> None:
    token, row = new_row()
    async with probe() as session:
        session.add(row)
        await session.commit()
    attempt = await probe.fail(Attempt(token))  # its key is taken
    expect(attempt.raised is not None, "the error was swallowed")
    attempt.expect_closed()


async def _begin_can_be_repeated(probe: _Probe) -> None:
    tokens: list[str] = []
    for _ in range(2):
        token, row = new_row()
        async with probe.begin() as session:
            session.add(row)
        tokens.append(token)
    expect(await probe.finds(*tokens), "what they wrote was not all there")


async def _begin_can_be_nested(probe: _Probe) -> None:
    outer_token, outer_row = new_row()
    inner_token, inner_row = new_row()
    async with probe.begin() as outer:
        try:
            async with probe.begin() as inner:
                inner.add(inner_row)
        except Exception:  # noqa: BLE001 - it may refuse in words of its own
            return
        outer.add(outer_row)
    expect(await probe.finds(outer_token, inner_token), "there was no error, but a row was lost")


async def _another_task_can_use_it(probe: _Probe) -> None:
    token, row = new_row()

    async def write() -> None:
        async with probe.begin() as session:
            session.add(row)

    await asyncio.create_task(write())
    expect(await probe.finds(token), "what it wrote was not there")


KINDS: Final = {
    "a call gives an AsyncSession": _call_gives_a_session,
    "begin() gives a context manager whose value is an AsyncSession": _begin_gives_a_session,
}
PROMISES: Final = {
    "each call and each transaction has a session of its own": _each_has_its_own,
    "a session that was called for keeps what it commits": _sessions_keep_what_is_committed,
    "a session that was called for does not commit by itself": _sessions_drop_what_is_not,
    "begin() commits when its block ends": _begin_commits,
    "begin() closes its session when its block ends": _begin_closes,
    "begin() rolls back when its block raises": _begin_rolls_back,
    "begin() passes on what its block raises": _begin_passes_errors_on,
    "begin() closes its session when its block raises": _begin_closes_after_an_error,
    "begin() does all three for CancelledError, too": _begin_does_so_after_an_interrupt,
    "begin() passes on what its commit raises, and closes": _begin_survives_a_failed_commit,
    "begin() works a second time": _begin_can_be_repeated,
    "begin() inside begin() works, or raises": _begin_can_be_nested,
    "another task can use the factory, one after the other": _another_task_can_use_it,
}
