"""The same scopes by ``sessionmaker``, without and with pre-ping, and by this package."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.setups.databases import disposing, factory_on, plain_sessions
from benchmarks.setups.scopes import scope, select, select_async
from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, with_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import URL

    from sessionfactory import AsyncSessionFactory, SessionFactory, SqlAlchemySessionFactory

    Scopes = Callable[[int], None]
    """Runs so many scopes, one after the other."""

PLAIN: Final = "sessionmaker"
PRE_PING: Final = "sessionmaker, pool_pre_ping=True"
OURS: Final = "SqlAlchemySessionFactory"
READER: Final = f"{OURS}, reader"
AUTOCOMMIT: Final = f"{OURS}, AUTOCOMMIT view"
TENANT: Final = f"{OURS}, tenant view"


@frozen
class Driver:
    """A driver, and which half it is for."""

    name: str
    is_async: bool = False

    @contextmanager
    def rivals(self, url: URL) -> Generator[dict[str, Scopes]]:
        """Make engines for all candidates; each runs ``begin()`` scopes of one statement.

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
        } | {name: _repeated(view) for name, view in _views(ours).items()}


def _views(ours: SqlAlchemySessionFactory) -> dict[str, SessionFactory]:
    return {
        OURS: ours,
        READER: ours.reader,
        AUTOCOMMIT: with_options(ours, isolation_level="AUTOCOMMIT", read_only=True),
        TENANT: with_options(ours, local={"app.tenant": "7"}),
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
        } | {name: repeated(view) for name, view in _async_views(ours).items()}


def _async_views(ours: AsyncSqlAlchemySessionFactory) -> dict[str, AsyncSessionFactory]:
    return {
        OURS: ours,
        READER: ours.reader,
        AUTOCOMMIT: with_options(ours, isolation_level="AUTOCOMMIT", read_only=True),
        TENANT: with_options(ours, local={"app.tenant": "7"}),
    }


async def _begun(sessions: AsyncSessionFactory, number: int) -> None:
    for _ in range(number):
        async with sessions.begin() as session:
            await select_async(session)


async def _closed(factory: AsyncSqlAlchemySessionFactory) -> None:
    await factory.aclose()
