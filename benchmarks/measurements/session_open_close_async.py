"""What an async session costs, safety under cancellation included: idle, and with ``SELECT 1``."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.setups.scopes import select_async
from benchmarks.setups.servers import socket_only
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest
from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from sqlalchemy import URL

    from benchmarks.tool.figures import Group
    from sessionfactory import AsyncSessionFactory

    Work = Callable[[AsyncSessionFactory], Awaitable[None]]

_OURS: Final = "AsyncSqlAlchemySessionFactory"
_PLAIN: Final = "async_sessionmaker"
_PRE_PING: Final = "async_sessionmaker, pool_pre_ping=True"
_UNIT: Final = Unit("µs per session", 1e6)
_NOTES: Final = (
    "Processor time of the process, its threads included; the server's is not in it.",
    "All sessions have autoflush=True and expire_on_commit=False.",
    "A round takes the fastest of several samples, which are taken in turn like all others.",
    "async_sessionmaker is on SQLAlchemy's default engine, which does not look at connections,",
    "keeps no books of who holds them, and tells no outcome to whoever is cancelled at COMMIT.",
    "On aiosqlite there, the driver sends no BEGIN before a SELECT, and so nothing to end it.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of each group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        idle: sessions in a sample, with no database work.
        busy: sessions in a sample, with ``SELECT 1``.
    """

    rounds: int
    passes: int = 5
    idle: int
    busy: int


FULL = Plan(rounds=61, idle=60, busy=12)
QUICK = Plan(rounds=5, idle=20, busy=4)


def measure(plan: Plan) -> Table:
    """Measure with no database work, then with ``SELECT 1`` by each driver."""
    with TemporaryDirectory() as directory, socket_only() as server:
        file = make_url(f"sqlite+aiosqlite:///{Path(directory) / 'app.db'}")
        idle = partial(_group, plan, plan.idle, file, pre_ping=False)
        busy = partial(_group, plan, plan.busy, work=_begun_busy)
        title = "begin() scope with SELECT 1, {}".format
        groups = (
            idle("open + close, no database work", work=_opened, target=Target("<=", 1)),
            idle("begin() scope, no database work", work=_begun, target=Target("<=", 0.95)),
            busy(_on(server, "asyncpg"), title("asyncpg"), target=Target("<=", 0.95)),
            busy(_on(server, "psycopg"), title("psycopg")),
            busy(file, title("aiosqlite"), target=Target("<=", 1), pre_ping=False),
        )
    title_of_all = "an async session, opened and closed, and one transaction"
    return Table(name="session_open_close_async", title=title_of_all, notes=_NOTES, groups=groups)


def _on(server: URL, driver: str) -> URL:
    return server.set(drivername=f"postgresql+{driver}")


def _group(  # noqa: PLR0913 - a group has so many sides
    plan: Plan,
    number: int,
    url: URL,
    title: str,
    *,
    work: Work,
    target: Target | None = None,
    pre_ping: bool = True,
) -> Group:
    with asyncio.Runner() as runner, _rivals(runner, url, pre_ping=pre_ping) as rivals:

        def sample(sessions: AsyncSessionFactory) -> float:
            return runner.run(_sample(sessions, work, number))

        candidates = {name: partial(sample, sessions) for name, sessions in rivals.items()}
        taken = alternate(candidates, plan.rounds * plan.passes)
    targets = {} if target is None else {_OURS: target}
    also = [(_OURS, _PRE_PING)] if pre_ping else []
    question = Question(title=title, unit=_UNIT, targets=targets, also=also)
    return compare(question, fastest(taken, plan.passes))


async def _sample(sessions: AsyncSessionFactory, work: Work, number: int) -> float:
    """Return the seconds of the processor that one session takes; the first few are not timed."""
    for _ in range(number // 4 + 1):
        await work(sessions)
    began = process_time()
    for _ in range(number):
        await work(sessions)
    return (process_time() - began) / number


async def _opened(sessions: AsyncSessionFactory) -> None:
    async with sessions():
        pass


async def _begun(sessions: AsyncSessionFactory) -> None:
    async with sessions.begin():
        pass


async def _begun_busy(sessions: AsyncSessionFactory) -> None:
    async with sessions.begin() as session:
        await select_async(session)


@contextmanager
def _rivals(
    runner: asyncio.Runner, url: URL, *, pre_ping: bool
) -> Generator[dict[str, AsyncSessionFactory]]:
    """Make one engine for each candidate, and close all of them."""
    with ExitStack() as stack:

        def plain(*, asking: bool) -> AsyncSessionFactory:
            engine = create_async_engine(url, pool_pre_ping=asking)
            stack.callback(lambda: runner.run(engine.dispose()))
            return async_sessionmaker(engine, autoflush=True, expire_on_commit=False)

        ours = AsyncSqlAlchemySessionFactory(DatabaseSettings(url))
        stack.callback(lambda: runner.run(_closed(ours)))
        asking = {_PRE_PING: plain(asking=True)} if pre_ping else {}
        yield {_PLAIN: plain(asking=False), **asking, _OURS: ours}


async def _closed(factory: AsyncSqlAlchemySessionFactory) -> None:
    await factory.aclose()
