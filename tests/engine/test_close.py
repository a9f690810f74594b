"""``close`` drains the pool, and says whom it cut off."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    Holder,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from sqlalchemy.orm import Session

SLOW = text(
    "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)"
    " SELECT count(*) FROM n"
)
"""A statement that runs for minutes, and says when it has begun."""


class Holding:
    """A thread that holds a connection until it is told to go on."""

    def __init__(
        self,
        factory: SqlAlchemySessionFactory,
        work: Callable[[Session, threading.Event], None] | None = None,
    ) -> None:
        self.held = threading.Event()
        self.go_on = threading.Event()
        self.error: BaseException | None = None
        self._factory = factory
        self._work = work
        self._thread = threading.Thread(target=self._run, name="worker")
        self._thread.start()
        assert self.held.wait(10)

    def _run(self) -> None:
        try:
            with self._factory.begin() as session:
                session.execute(text("INSERT INTO t VALUES (1)"))
                if self._work is None:
                    self.held.set()
                    assert self.go_on.wait(10)
                    session.execute(text("SELECT 1"))
                else:
                    self._work(session, self.held)
        except (SQLAlchemyError, ClosedError) as error:
            self.error = error

    def join(self) -> None:
        self.go_on.set()
        self._thread.join(10)


def rows(url: str) -> int:
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory, factory() as session:
        return session.scalar(text("SELECT count(*) FROM t")) or 0


def test_waits_for_connections_that_are_out(factory: SqlAlchemySessionFactory, url: str) -> None:
    """A transaction in flight ends well; no holder is cut, and new sessions are refused."""
    holding = Holding(factory)
    closing = threading.Thread(target=lambda: cut.append(factory.close()))
    cut: list[object] = []
    closing.start()
    with pytest.raises(ClosedError):
        while True:
            factory()
    holding.join()
    closing.join()
    assert cut == [()]
    assert holding.error is None
    assert rows(url) == 1


def test_does_not_wait_for_idle_sessions(factory: SqlAlchemySessionFactory) -> None:
    """A session without a connection does not delay the close."""
    idle = factory()
    assert factory.close(timeout=60) == ()
    idle.close()


def test_cuts_an_idle_transaction(factory: SqlAlchemySessionFactory, url: str) -> None:
    """Who sits in a transaction past the deadline is cut off, named, and commits nothing."""
    holding = Holding(factory)
    (cut,) = factory.close(timeout=0.01)
    assert cut.owner == "thread worker"
    assert cut.where.endswith(" in Holding._run")
    assert factory.status().size == 0
    holding.join()
    assert isinstance(holding.error, ClosedError)
    assert rows(url) == 0


def test_cancels_a_running_statement(factory: SqlAlchemySessionFactory, url: str) -> None:
    """A statement that runs past the deadline is interrupted."""

    def work(session: Session, held: threading.Event) -> None:
        raw = cast("sqlite3.Connection", session.connection().connection.dbapi_connection)

        def begun() -> int:
            held.set()
            return 1

        raw.create_function("begun", 0, begun)
        session.execute(SLOW)

    holding = Holding(factory, work)
    (cut,) = factory.close(timeout=0.01)
    assert cut.owner == "thread worker"
    holding.join()
    assert isinstance(holding.error, DBAPIError)
    assert "interrupted" in str(holding.error)
    assert rows(url) == 0


def test_own_connections_are_cut_at_once(factory: SqlAlchemySessionFactory, url: str) -> None:
    """What the closing thread holds itself cannot come back while it waits."""
    cut: list[Holder] = []
    with pytest.raises(ClosedError, match="was closed, and this"), factory.begin() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        cut += factory.close(timeout=3600)
    assert [holder.owner for holder in cut] == ["thread MainThread"]
    assert rows(url) == 0


def test_no_connection_stays_open(url: str) -> None:
    """With a connection per checkout, too, nothing is left after close."""
    settings = DatabaseSettings(url, pool=PoolSettings(kind="none"))
    factory = SqlAlchemySessionFactory(settings)
    with factory.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
    holding = Holding(factory)
    assert len(factory.close(timeout=0.01)) == 1
    holding.join()
    assert factory.status().size == 0
