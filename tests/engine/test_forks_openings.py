"""A fork comes at no moment at which another thread opens a connection.

It would leave the child with OpenSSL's locks: one in ten that connected at once waited for ever.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text

from sessionfactory import (
    ConnectTimeoutError,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import fork_gate
from sessionfactory.testing import FaultProxy
from tests.support.child import in_child
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

_NAME = "opened_before_a_fork"
_OPEN = (
    "SELECT count(*) FROM pg_stat_activity"
    f" WHERE application_name = '{_NAME}' AND state <> 'starting'"
)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_attempt_is_waited_for(driver: str, postgres_server: PostgresServer) -> None:
    """It is over when the child begins; others begin when the fork is done, also in the child."""
    with FaultProxy(postgres_server.url_for(driver), latency=0.02) as proxy:
        url = make_url(proxy.url).update_query_dict({"application_name": _NAME})
        with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
            caller = Caller(lambda: factory.engine.raw_connection().close())
            until(lambda: proxy.connections > 0)
            opened, again = in_child(lambda: (postgres_server.execute(_OPEN), _ask(factory)))
            caller.join()
            assert (opened, again) == ("1", 1)
            assert _ask(factory) == 1


def test_an_attempt_that_hangs(postgres_server: PostgresServer) -> None:
    """A fork does not wait for ever."""
    with FaultProxy(postgres_server.url_for("psycopg")) as proxy:
        proxy.black_hole()
        pool = PoolSettings(timeout=3)
        with SqlAlchemySessionFactory(DatabaseSettings(proxy.url, pool=pool)) as factory:
            caller = Caller(lambda: factory.engine.raw_connection().close())
            until(lambda: proxy.connections > 0)
            assert in_child(os.getpid) != os.getpid()
            with pytest.raises(ConnectTimeoutError):
                caller.join()


def test_a_thread_that_connected_is_waited_for(postgres_server: PostgresServer) -> None:
    """A thread of the package that has connected has ended when the child begins."""
    connected, steps = threading.Event(), list[str]()
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        dialect = factory.engine.dialect
        arguments = dialect.create_connect_args(factory.engine.url)

        def connect_and_end() -> None:
            dialect.connect(*arguments[0], **arguments[1]).close()
            connected.set()
            time.sleep(0.05)  # it ends slowly
            steps.append("ended")

        thread = threading.Thread(target=connect_and_end, name="sessionfactory-connect")
        thread.start()
        assert connected.wait(30)
        assert in_child(lambda: list(steps)) == ["ended"]
        thread.join(30)


def test_a_thread_that_will_connect_is_waited_for() -> None:
    """A thread that was started to connect passes the gate, and has ended when the child begins."""
    steps = list[str]()

    def connect_late() -> None:
        time.sleep(0.05)  # the fork begins meanwhile
        fork_gate.connect(steps.append, "connected")
        steps.append("ended")

    thread = threading.Thread(target=connect_late, name="sessionfactory-connect")
    fork_gate.start(thread)
    assert in_child(lambda: list(steps)) == ["connected", "ended"]
    thread.join(30)


def test_a_thread_that_cannot_be_started_holds_no_fork_up() -> None:
    """Where no thread can be started, a fork waits for none."""

    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    refused = Refused(name="sessionfactory-connect")
    with pytest.raises(RuntimeError, match="can't start"):
        fork_gate.start(refused)
    assert refused not in fork_gate._ending
    assert in_child(os.getpid) != os.getpid()


def _ask(factory: SqlAlchemySessionFactory) -> object:
    with factory() as session:
        return session.scalar(text("SELECT 1"))
