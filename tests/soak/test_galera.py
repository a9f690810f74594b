"""A real Galera cluster: conflicts of two nodes that only COMMIT finds, and a lost quorum."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from attrs import frozen
from sqlalchemy import make_url, text
from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory, run_in_transaction
from sessionfactory.drivers.commit_stage import is_of_commit
from sessionfactory.drivers.error_codes import codes_of
from sessionfactory.testing import MariaDBServer
from sessionfactory.testing.servers._binaries import find_mariadb
from tests.support.available import MARIADB_LIMITS, running_or_skipped
from tests.support.observe import until

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.orm import Session
    from stamina.instrumentation import RetryDetails

    from sessionfactory import SessionFactory

CONFLICT, NOT_READY = 1213, 1047
TURNS: Final = 50
WORKERS: Final = 3
_READ = text("SELECT n FROM hot")
_ADD = text("UPDATE hot SET n = n + 1 WHERE id = :id")
_QUICK: Final = (
    "gcache.size=16M;evs.keepalive_period=PT0.2S;evs.inactive_check_period=PT0.2S;"
    "evs.suspect_timeout=PT1S;evs.inactive_timeout=PT3S;evs.install_timeout=PT2S"
)
"""A small cache of what was written, and a short wait for a node that is gone."""


@frozen
class Cluster:
    """Two nodes, and a factory on each."""

    nodes: tuple[MariaDBServer, MariaDBServer]
    factories: tuple[SqlAlchemySessionFactory, SqlAlchemySessionFactory]


@pytest.fixture
def cluster() -> Generator[Cluster]:
    """Start two nodes on the loopback interface, with a table of two rows."""
    with running_or_skipped(MariaDBServer()):  # or there is none
        library = find_mariadb() / "lib" / "galera" / "libgalera_smm.so"
    if not library.is_file():
        pytest.skip("this MariaDB has no Galera beside it; make mariadb fetches both")
    ports = free_ports(6)
    addresses = [f"127.0.0.1:{port}" for port in ports[:2]]
    with ExitStack() as stack:
        nodes: list[MariaDBServer] = []
        for number, address in enumerate(addresses):
            settings: dict[str, str | int | bool] = {
                "wsrep_on": True,
                "wsrep_provider": str(library),
                "wsrep_cluster_name": "throwaway",
                # The first one has no node to join.
                "wsrep_cluster_address": "gcomm://" + ("" if not number else addresses[0]),
                "wsrep_node_address": address,
                "wsrep_node_name": f"node{number}",
                "wsrep_provider_options": (
                    f"gmcast.listen_addr=tcp://{address};"
                    f"ist.recv_addr=127.0.0.1:{ports[2 + number]};{_QUICK}"
                ),
                "wsrep_sst_method": "rsync",
                "wsrep_sst_receive_address": f"127.0.0.1:{ports[4 + number]}",
                "binlog_format": "ROW",
                "innodb_autoinc_lock_mode": 2,
                **MARIADB_LIMITS,
            }
            node = stack.enter_context(MariaDBServer(settings=settings))
            until(partial(is_ready, node))
            nodes.append(node)
        nodes[0].execute(
            "CREATE TABLE hot (id int PRIMARY KEY, n int); INSERT INTO hot VALUES (1, 0), (2, 0)"
        )
        # The second one has everything from the first, and so its users' passwords.
        url = make_url(nodes[0].url)
        first, second = (
            stack.enter_context(SqlAlchemySessionFactory(DatabaseSettings(url.set(port=node.port))))
            for node in nodes
        )
        until(lambda: nodes[1].execute("SELECT count(*) FROM hot") == "2")
        yield Cluster((nodes[0], nodes[1]), (first, second))


def free_ports(number: int) -> list[int]:
    """Return ports without a listener."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def is_ready(node: MariaDBServer) -> bool:
    """Say whether a node is part of a cluster that may go on."""
    return node.execute("SHOW STATUS LIKE 'wsrep_ready'").endswith("ON")


@contextmanager
def failures() -> Generator[list[Exception]]:
    """Collect the errors after which something was tried again."""
    found: list[Exception] = []

    def note(details: RetryDetails) -> None:
        found.append(details.caused_by)

    before = get_on_retry_hooks()
    set_on_retry_hooks([note])
    try:
        yield found
    finally:
        set_on_retry_hooks(before)


def test_a_conflict_that_only_commit_finds(cluster: Cluster) -> None:
    """Two nodes change one row: the later COMMIT fails, and its work is done again."""
    meeting = threading.Barrier(2)

    def add(sessions: SessionFactory) -> int:
        attempts = 0

        def work(session: Session) -> None:
            nonlocal attempts
            attempts += 1
            session.execute(_ADD, {"id": 1})
            if attempts == 1:
                meeting.wait(10)  # both have changed the row, each on its node

        run_in_transaction(sessions, work)
        return attempts

    with failures() as found, ThreadPoolExecutor(2) as threads:
        attempts = list(threads.map(add, cluster.factories))
    assert sorted(attempts) == [1, 2]
    (error,) = found
    assert CONFLICT in codes_of(error)
    assert is_of_commit(error)
    until(lambda: {value(node, 1) for node in cluster.nodes} == {"2"})


def test_nothing_is_lost_where_nodes_compete(cluster: Cluster) -> None:
    """Six workers on two nodes add to one row, and the sum is exact."""

    def add(sessions: SessionFactory) -> None:
        for _ in range(TURNS):
            run_in_transaction(sessions, lambda session: session.execute(_ADD, {"id": 2}))

    with failures() as found, ThreadPoolExecutor(2 * WORKERS) as threads:
        list(threads.map(add, cluster.factories * WORKERS))
    assert any(CONFLICT in codes_of(error) for error in found)
    assert any(is_of_commit(error) for error in found)
    until(lambda: {value(node, 2) for node in cluster.nodes} == {str(2 * WORKERS * TURNS)})


def test_a_node_without_quorum(cluster: Cluster) -> None:
    """A node that lost the other one answers 1047; what waits is done when it works again."""
    node, lost = cluster.nodes
    sessions = cluster.factories[0]
    run_in_transaction(sessions, lambda session: session.execute(_READ))
    lost.kill()
    until(lambda: not is_ready(node))

    def work(session: Session) -> None:
        session.execute(_ADD, {"id": 1})

    with failures() as found, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run_in_transaction, sessions, work, attempts=None)
        until(lambda: any(NOT_READY in codes_of(error) for error in found))
        node.execute("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
        waiting.result(60)
    assert value(node, 1) == "1"


def value(node: MariaDBServer, row: int) -> str:
    return node.execute(f"SELECT n FROM hot WHERE id = {row}")
