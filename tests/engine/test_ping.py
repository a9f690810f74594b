"""What a ping makes of a pool that changes under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, event, text

from sessionfactory import DatabaseSettings, PoolSettings, SqlAlchemySessionFactory
from sessionfactory.engine.ping import Pinger
from sessionfactory.pool.ledger import Ledger
from sessionfactory.pool.waiting import Threads

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

ROOM = Ledger("elsewhere", size=1, limit=9)
"""Books that see room in the pool: what a ping saw before another thread was faster."""


class FillingLedger(Ledger):
    """Books that see room at the first look only."""

    looked = False

    @property
    def saturated(self) -> bool:
        before, self.looked = self.looked, True
        return before


@pytest.fixture
def one(postgres_server: PostgresServer) -> SqlAlchemySessionFactory:
    """A factory with one connection."""
    pool = PoolSettings(size=1, max_overflow=0, timeout=1)  # in which it also connects
    return SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url, pool=pool))


def test_pool_that_runs_dry_under_the_ping(one: SqlAlchemySessionFactory) -> None:
    """A ping that cannot get a connection any more says saturated."""
    with one, one() as session:
        session.execute(text("SELECT 1"))
        assert Pinger(Threads()).ping(one.engine, ROOM, 10).state == "saturated"


def test_pool_that_fills_up_while_the_ping_waits(one: SqlAlchemySessionFactory) -> None:
    """A ping whose time is over while it waits for a full pool says saturated."""
    with one, one() as session:
        session.execute(text("SELECT 1"))
        pinger = Pinger(Threads())
        assert pinger.ping(one.engine, FillingLedger("x", 1, 1), 0.01).state == "saturated"
        (pending,) = pinger._pending.values()
        assert pending.result(10).state == "saturated"


def test_factory_that_closes_under_the_ping(one: SqlAlchemySessionFactory) -> None:
    """A ping that finds the factory closed says so."""
    engine = one.engine
    one.close()
    assert Pinger(Threads()).ping(engine, ROOM, 10).state == "closed"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_listener_that_ends_the_thread_under_the_ping(one: SqlAlchemySessionFactory) -> None:
    """A ping whose thread ends without an answer says so at once, and the next one asks again."""
    with one:
        event.listen(one.engine, "checkout", _leave, once=True)
        assert one.ping(timeout=3600).state == "unreachable"
        assert one.ping().ok


def _leave(*_: object) -> None:
    raise SystemExit


def test_error_that_no_server_sent(postgres_server: PostgresServer) -> None:
    """Whatever else goes wrong while connecting is unreachable, in the error's own words."""

    def fail() -> None:
        raise ValueError("no such luck")

    engine = create_engine(postgres_server.url, creator=fail)
    health = Pinger(Threads()).ping(engine, ROOM, 10)
    assert (health.state, health.detail) == ("unreachable", "no such luck")
