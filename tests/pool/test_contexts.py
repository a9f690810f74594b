"""The end of an async transaction runs in the context of its task, whatever makes tasks."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, PoolSettings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

    from sessionfactory.testing import PostgresServer

ONE = text("SELECT 1")
tenant: ContextVar[str] = ContextVar("tenant", default="none")


@pytest.mark.asyncio
async def test_a_context_variable_is_reset_by_a_listener() -> None:
    """What was set when the transaction began can be reset when it ends, and a value stays."""
    flushed: ContextVar[bool] = ContextVar("flushed", default=False)
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as sessions:
        for by_scope in (True, False):
            session = sessions()

            def began(session: Session, *_: object) -> None:
                session.info["token"] = tenant.set("seven")

            def committing(_: Session) -> None:
                flushed.set(True)

            def ended(session: Session, transaction: SessionTransaction) -> None:
                if transaction.parent is None and "token" in session.info:
                    tenant.reset(session.info.pop("token"))

            event.listen(session.sync_session, "after_begin", began)
            event.listen(session.sync_session, "before_commit", committing)
            event.listen(session.sync_session, "after_transaction_end", ended)
            if by_scope:
                async with session, session.begin():
                    await session.execute(ONE)
            else:
                await session.execute(ONE)
                await session.commit()
                await session.close()
            assert (tenant.get(), flushed.get()) == ("none", True)
            flushed.set(False)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("kind", ["fair", "none"])
def test_eager_tasks(postgres_server: PostgresServer, driver: str, kind: str) -> None:
    """A loop whose tasks begin at once opens connections, pings and closes."""
    pool = PoolSettings(kind="none" if kind == "none" else "fair", timeout=10)
    settings = DatabaseSettings(postgres_server.url_for(driver), pool=pool)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(vars(asyncio)["eager_task_factory"])
        async with AsyncSqlAlchemySessionFactory(settings) as sessions:
            async with sessions.begin() as session:
                assert await session.scalar(ONE) == 1
            assert (await sessions.ping()).ok

    asyncio.run(main())
