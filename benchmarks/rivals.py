"""The same scopes by ``sessionmaker``, without and with pre-ping, and by this package."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.databases import disposing, factory_on, plain_sessions
from benchmarks.scopes import scope, select, select_async
from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, with_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import URL

    from sessionfactory import AsyncSessionFactory, SessionFactory

    Scopes = Callable[[int], None]
    """Runs so many scopes, one after the other."""

PLAIN: Final = "sessionmaker"
PRE_PING: Final = "sessionmaker, pool_pre_ping=True"
OURS: Final = "SqlAlchemySessionFactory"
READS: Final = "with_options(AUTOCOMMIT, read-only)"


@frozen
class Driver:
    """A driver, and which half it is for."""

    name: str
    is_async: bool = False

    @contextmanager
    def rivals(self, url: URL) -> Generator[dict[str, Scopes]]:
        """Make one engine for each candidate; each runs ``begin()`` scopes of one statement.

        Args:
            url: the database, for psycopg.
        """
        url = url.set(drivername=f"postgresql+{self.name}")
        with (_async_rivals if self.is_async else _sync_rivals)(url) as found:
            yield found


@contextmanager
def _sync_rivals(url: URL) -> Generator[dict[str, Scopes]]:
    with (
        disposing(create_engine(url)) as plain,
        disposing(create_engine(url, pool_pre_ping=True)) as asking,
        factory_on(url) as ours,
    ):
        yield {
            PRE_PING: _repeated(plain_sessions(asking)),
            PLAIN: _repeated(plain_sessions(plain)),
            OURS: _repeated(ours),
            READS: _repeated(with_options(ours, isolation_level="AUTOCOMMIT", read_only=True)),
        }


def _repeated(sessions: SessionFactory) -> Scopes:
    one = scope(sessions.begin, select)

    def run(number: int) -> None:
        for _ in range(number):
            one()

    return run


@contextmanager
def _async_rivals(url: URL) -> Generator[dict[str, Scopes]]:
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())

        def plain(*, pre_ping: bool) -> AsyncSessionFactory:
            engine = create_async_engine(url, pool_pre_ping=pre_ping)
            stack.callback(lambda: runner.run(engine.dispose()))
            return async_sessionmaker(engine, autoflush=True, expire_on_commit=False)

        ours = AsyncSqlAlchemySessionFactory(DatabaseSettings(url))
        stack.callback(lambda: runner.run(_closed(ours)))

        def repeated(sessions: AsyncSessionFactory) -> Scopes:
            return lambda number: runner.run(_begun(sessions, number))

        yield {
            PRE_PING: repeated(plain(pre_ping=True)),
            PLAIN: repeated(plain(pre_ping=False)),
            OURS: repeated(ours),
            READS: repeated(with_options(ours, isolation_level="AUTOCOMMIT", read_only=True)),
        }


async def _begun(sessions: AsyncSessionFactory, number: int) -> None:
    for _ in range(number):
        async with sessions.begin() as session:
            await select_async(session)


async def _closed(factory: AsyncSqlAlchemySessionFactory) -> None:
    await factory.aclose()
