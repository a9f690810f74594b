"""A table whose COMMITs can be held up on the server, and let go on or fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory.pool.shielded import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from sessionfactory import AsyncSqlAlchemySessionFactory

_ON_POSTGRES = (
    "CREATE TABLE IF NOT EXISTS ended (id int PRIMARY KEY)",
    """
    CREATE OR REPLACE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS '
    BEGIN
        PERFORM pg_advisory_xact_lock(77);
        IF NEW.id < 0 THEN RAISE check_violation; END IF;
        RETURN NULL;
    END'""",
    "DROP TRIGGER IF EXISTS at_commit ON ended",
    """
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON ended
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()""",
)
_ON_MARIADB = ("CREATE TABLE IF NOT EXISTS ended (id int PRIMARY KEY)",)


class Base(DeclarativeBase):
    """What the table is declared on."""


class Ended(Base):
    """A row; one with a negative number fails at COMMIT, on PostgreSQL."""

    __tablename__ = "ended"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Control:
    """A connection of its own to the server, past all proxies."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._is_postgres = self.url.get_backend_name() == "postgresql"
        driver = "postgresql+psycopg" if self._is_postgres else "mysql+pymysql"
        self._engine = create_engine(
            self.url.set(drivername=driver), isolation_level="AUTOCOMMIT", pool_size=1
        )
        self._holding: Connection = self._engine.connect()
        self._looking: Connection = self._engine.connect()
        for statement in (*(_ON_POSTGRES if self._is_postgres else _ON_MARIADB),):
            self._looking.execute(text(statement))
        self._looking.execute(text("DELETE FROM ended"))
        # What tests before left running on the server, whose clients hung up, is not ours.
        self._others = self._open_transactions()

    def close(self) -> None:
        """Let everything go."""
        self.release()
        self._holding.close()
        self._looking.close()
        self._engine.dispose()

    def hold_commits_of(self, factory: AsyncSqlAlchemySessionFactory) -> None:
        """Hold up the next COMMIT of a factory."""
        self.before_commit(factory, self._hold_commits)

    def before_commit(
        self, factory: AsyncSqlAlchemySessionFactory, call: Callable[[], object]
    ) -> None:
        """Make a call right before the next COMMIT of a factory is sent."""

        def listen(_: Connection) -> None:
            call()

        event.listen(factory.engine.sync_engine, "commit", listen, once=True)

    def _hold_commits(self) -> None:
        if self._is_postgres:
            self._holding.execute(text("SELECT pg_advisory_lock(77)"))
        else:
            self._holding.execute(text("FLUSH TABLES WITH READ LOCK"))

    def hold_writes(self) -> None:
        """Hold up every INSERT from now on."""
        if self._is_postgres:
            self._holding.execute(text("BEGIN"))
            self._holding.execute(text("LOCK TABLE ended IN SHARE MODE"))
        else:
            self._holding.execute(text("LOCK TABLES ended READ"))

    def release(self) -> None:
        """Hold up nothing any more."""
        if self._is_postgres:
            self._holding.execute(text("ROLLBACK"))
            self._holding.execute(text("SELECT pg_advisory_unlock_all()"))
        else:
            self._holding.execute(text("UNLOCK TABLES"))

    async def until_held_up(self) -> None:
        """Wait until a statement is held up."""
        async with asyncio.timeout(20):
            while not self._held_up():  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0)

    def kill_held_up(self) -> None:
        """End the server's processes that are held up."""
        for pid in self._held_up():
            self._looking.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    def rows(self) -> list[int]:
        """Return the numbers of the rows that are there."""
        return list(self._looking.scalars(text("SELECT id FROM ended ORDER BY id")))

    def left_open(self) -> int:
        """Return how many transactions are open, but for this."""
        return len(self._open_transactions() - self._others)

    def _open_transactions(self) -> set[int]:
        return set(
            self._looking.scalars(
                text(
                    "SELECT pid FROM pg_stat_activity WHERE xact_start IS NOT NULL"
                    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                    if self._is_postgres
                    else "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx"
                )
            )
        )

    def _held_up(self) -> list[int]:
        return list(
            self._looking.scalars(
                text(
                    "SELECT pid FROM pg_locks WHERE NOT granted"
                    if self._is_postgres
                    else "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting"
                    " for %lock'"
                )
            )
        )


async def until_sent() -> Ending:
    """Wait until a COMMIT is under way, and return the task that waits for its answer."""
    async with asyncio.timeout(20):
        while True:
            for task in asyncio.all_tasks():
                if isinstance(task, Ending) and task.sent:
                    return task
            await asyncio.sleep(0)


def cancel_oneself() -> None:
    """Have the next ``await`` of this task raise, whatever it waits for."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancelled(task: asyncio.Task[None]) -> asyncio.CancelledError:
    """Return the error that ends a task which was cancelled."""
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value
