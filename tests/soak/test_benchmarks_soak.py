"""Each measurement with tiny numbers: the shape of its table, never a time."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from benchmarks.measurements import (
    fastapi_requests,
    import_time,
    isolation_of_tests,
    one_statement_transaction,
    pipelined_transaction,
    pool_checkout,
    pool_contention,
    prepared_reads,
    pytest_plugin_startup,
    session_by_package,
    session_open_close,
    session_open_close_async,
    sqlite_concurrency,
    transaction_retries,
)
from benchmarks.setups import other_packages as packages
from benchmarks.setups import servers
from benchmarks.tool.figures import Target
from sessionfactory.testing import ServerUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

OURS = "SqlAlchemySessionFactory"


class TestTables:
    """Each table with tiny numbers, through the function that the command calls."""

    def test_open_close(self) -> None:
        """Sessions and transactions are compared idle, in memory and on a file."""
        found = session_open_close.measure(
            session_open_close.Plan(rounds=1, passes=1, idle=1, busy=1)
        )
        assert [group.title for group in found.groups] == [
            "open + close, no database work",
            "begin() scope, no database work",
            "open + SELECT 1 + close, memory",
            "begin() scope with SELECT 1, memory",
            "open + SELECT 1 + close, a file",
            "begin() scope with SELECT 1, a file",
        ]
        for group in found.groups:
            assert {"sessionmaker", OURS, "Session(engine)", "scoped_session"} <= {
                found.name for found in group.rows
            }
        targets = [found.target for group in found.groups[:2] for found in group.rows[1:2]]
        assert targets == [Target("<=", 0.97), Target("<=", 0.95)]

    def test_sqlite_concurrency(self) -> None:
        """The factory loses no update and raises no error; rates and counts are all there."""
        plan = sqlite_concurrency.Plan(
            storms=1, threads=2, updates=4, rounds=1, readers=2, reads=2, window=0.02
        )
        found = sqlite_concurrency.measure(plan)
        assert [group.title for group in found.groups] == [
            "4 read-modify-writes in begin(), 2 threads, two statements",
            "4 read-modify-writes in begin(), 2 threads, the ORM",
            "2 concurrent readers, one row a session",
            "2 concurrent readers, 100 rows a session",
            "2 readers of 100 rows beside a writer: reads",
            "2 readers of 100 rows beside a writer: writes",
        ]
        for group in found.groups[:2]:
            counts = {count.name: count for count in group.counts}
            assert counts[f"{OURS}: lost updates"].met
            assert counts[f"{OURS}: lost updates"].out_of == 4
            assert counts[f"{OURS}: errors"].met
        targets = [group.rows[1].target for group in found.groups]
        assert targets == [Target(">=", 4), None, None, Target(">=", 0.95), None, None]

    @pytest.fixture
    def socket(self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tables use the server of the tests instead of one of their own."""
        monkeypatch.setattr(servers, "PostgresServer", lambda: nullcontext(postgres_server))

    @pytest.mark.usefixtures("socket")
    def test_async_open_close(self) -> None:
        """Sessions of the async half are compared idle and by driver, each with its target."""
        found = session_open_close_async.measure(
            session_open_close_async.Plan(rounds=1, passes=1, idle=1, busy=1)
        )
        asked = {
            group.title: row.target for group in found.groups for row in group.rows if row.target
        }
        assert asked == {
            "open + close, no database work": Target("<=", 1),
            "begin() scope, no database work": Target("<=", 0.95),
            "begin() scope with SELECT 1, asyncpg": Target("<=", 0.95),
            "begin() scope with SELECT 1, aiosqlite": Target("<=", 1),
        }
        plain, ours = "async_sessionmaker", f"Async{OURS}"
        asking = f"{plain}, pool_pre_ping=True"
        on_psycopg = found.groups[3]
        assert on_psycopg.title == "begin() scope with SELECT 1, psycopg"
        assert [row.name for row in on_psycopg.rows] == [
            plain,
            asking,
            ours,
            f"{ours}, against {asking}",
        ]

    @pytest.mark.usefixtures("socket")
    def test_reading(self) -> None:
        """Sessions that are closed are compared by whether they end in ROLLBACK or COMMIT."""
        found = prepared_reads.measure(prepared_reads.Plan(rounds=1, passes=1, scopes=1))
        light, heavy = found.groups
        assert [line.name for line in heavy.rows] == [
            "sessionmaker",
            OURS,
            "reader",
            "reader, pipeline=True",
            f"reader, against {OURS}",
        ]
        assert [row.target for row in heavy.rows[2:4]] == [Target(">=", 2)] * 2
        assert not any(row.target for row in light.rows)
        assert all("ms to plan" in note for note in found.notes[-2:])

    @pytest.mark.usefixtures("socket")
    def test_peers(self) -> None:
        """All candidates are in all groups; a package that is not installed is named."""
        plan = session_by_package.Plan(
            rounds=1, passes=1, idle=1, busy=1, slow=1, latencies=(0.0005, 0.001)
        )
        found = session_by_package.measure(plan)
        assert [group.title for group in found.groups] == [
            "open + close, no database work",
            "open + SELECT 1 + close, a SQLite file",
            "begin() scope, SELECT 1, a SQLite file",
            "begin() scope, SELECT 1, PostgreSQL, Unix socket",
            "begin() scope, SELECT 1, PostgreSQL, 0.5 ms round trip",
            "begin() scope, SELECT 1, PostgreSQL, 1 ms round trip",
        ]
        assert found.highlight == found.groups[4].title
        own = ["sessionmaker", "sessionmaker, pool_pre_ping=True", "scoped_session", OURS]
        for group in found.groups:
            assert [line.name for line in group.rows] == own + packages.installed()
        for name in packages.missing():
            assert f"{name} is left out: it is not installed." in found.notes
        assert (
            "sqlalchemy-bind-manager is left out: it requires SQLAlchemy below 2.1." in found.notes
        )

    @pytest.mark.parametrize("name", packages.NAMES)
    def test_peer(self, name: str, tmp_path: Path) -> None:
        """What another package hands out is a session, that is closed; a transaction is kept."""
        if name not in packages.installed():
            pytest.skip(f"{name} is not installed: make bench does so")
        seen: list[Session] = []

        def work(session: Session) -> None:
            seen.append(session)
            session.execute(text("CREATE TABLE IF NOT EXISTS t (a)"))
            session.execute(text("INSERT INTO t VALUES (1)"))

        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            usage = packages.make_ready(name, stack, f"sqlite:///{tmp_path / 'peer.db'}")
            usage.begun(work)()
            usage.begun(work)()
            usage.opened(seen.append)()
            with closing(sqlite3.connect(tmp_path / "peer.db")) as connection:
                assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
        assert not any(session.in_transaction() for session in seen)

    @pytest.mark.usefixtures("socket")
    def test_checkout(self) -> None:
        """The pool with all that guards it is compared with bare ones, and within a scope."""
        found = pool_checkout.measure(pool_checkout.Plan(rounds=1, passes=1, number=1))
        everything = f"{OURS}, everything on"
        beside = f"{everything}, against QueuePool, pool_pre_ping=True"
        pools, scopes = found.groups
        assert [line.name for line in pools.rows] == [
            "QueuePool",
            "QueuePool, pool_pre_ping=True",
            "FairPool alone",
            OURS,
            everything,
            "psycopg_pool",
            beside,
        ]
        targets = {line.name: line.target for line in pools.rows if line.target}
        assert targets == {everything: Target("<=", 1.4), beside: Target("<=", 0.35)}
        assert {growth.name for growth in scopes.growths} == {OURS, everything}
        assert scopes.rows[-1].target == Target("<=", 1)

    @pytest.mark.usefixtures("socket")
    def test_transactions(self) -> None:
        """It is compared with begin() without conflicts, with immediate retries under them."""
        plan = transaction_retries.Plan(rounds=1, passes=1, number=1, storms=1, threads=3, turns=2)
        found = transaction_retries.measure(plan)
        reading, writing, awaiting, colliding, burning = found.groups
        assert [line.name for line in reading.rows] == ["begin()", "run_in_transaction"]
        assert [line.name for line in writing.rows][2:] == [
            'run_in_transaction, verify_commit="status"',
            'run_in_transaction, verify_commit="marker"',
        ]
        assert awaiting.rows[1].name == "run_sync_in_transaction"
        assert colliding.title == "6 transactions on one hot row"
        assert [count.value for count in colliding.counts] == [0, 0]
        assert burning.title == "6 transactions on one hot row, processor"

    @pytest.mark.usefixtures("socket")
    def test_one_statement(self) -> None:
        """Both drivers are measured on the socket and behind a proxy, with pre-ping as baseline."""
        plan = one_statement_transaction.Plan(rounds=1, window=0.001, latencies=(0.0005,))
        found = one_statement_transaction.measure(plan)
        assert [group.title for group in found.groups] == [
            "psycopg, Unix socket",
            "psycopg, 0.5 ms round trip",
            "asyncpg, Unix socket",
            "asyncpg, 0.5 ms round trip",
        ]
        rows = [line.name for line in found.groups[0].rows]
        assert rows[:3] == ["sessionmaker, pool_pre_ping=True", "sessionmaker", OURS]
        targets = [group.rows[2].target for group in found.groups]
        assert targets == [None, Target(">=", 1.2), None, Target(">=", 1.7)]
        targets = [group.rows[4].target for group in found.groups]
        assert targets == [None, Target(">=", 2.7), None, Target(">=", 3.3)]
        assert found.notes[-1].startswith("Round trips as measured, in ms: Unix socket: ")

    def test_fastapi_requests(self) -> None:
        """Requests of a service are counted, and the latest of them timed, against pre-ping."""
        plan = fastapi_requests.Plan(rounds=1, clients=2, window=0.05)
        requests, late = fastapi_requests.measure(plan).groups
        assert (requests.title, late.title) == ("2 clients", "2 clients, 99th percentile")
        assert [line.name for line in requests.rows] == ["sessionmaker, pre-ping", OURS]
        assert requests.rows[1].target == Target(">=", 0.97)
        assert late.rows[1].target == Target("<=", 1.0)

    @pytest.mark.usefixtures("socket")
    def test_pipelining(self) -> None:
        """Writes and reads of both halves are measured near and far, and their trips counted."""
        plan = pipelined_transaction.Plan(rounds=1, window=0.001, latencies=(0.0005,))
        found = pipelined_transaction.measure(plan)
        assert [group.title for group in found.groups][:3] == [
            "write, psycopg, Unix socket",
            "read, psycopg, Unix socket",
            "write, async psycopg, Unix socket",
        ]
        assert found.groups[-1].title == "awaited round trips"
        far = {group.title: group.rows[3].target for group in found.groups[4:6]}
        assert far == {
            "write, psycopg, 0.5 ms round trip": Target(">=", 1.5),
            "read, psycopg, 0.5 ms round trip": Target(">=", 2.2),
        }
        assert [count.value for count in found.groups[-1].counts] == [2, 2, 1]

    @pytest.mark.usefixtures("socket")
    def test_contention(self) -> None:
        """No wait for our pool times out; throughput, waits and shares have their targets."""
        plan = pool_contention.Plan(rounds=1, window=0.05, threads=(7,), tasks=(7,))
        found = pool_contention.measure(plan)
        assert [group.title for group in found.groups] == [
            f"7 {who}: {what}"
            for who in ("threads", "tasks")
            for what in ("throughput", "longest wait", "fewest / most")
        ]
        rates, waits, shares = found.groups[:3]
        assert [line.target for line in rates.rows] == [None, Target(">=", 0.97), None]
        assert [line.name for line in waits.rows] == ["psycopg_pool", "QueuePool", OURS]
        assert waits.rows[2].target == Target("<=", 1.2)
        assert waits.counts[1].name == f"{OURS}: timeouts"
        assert waits.counts[1].met
        assert [level.target for level in shares.levels] == [Target(">=", 0.95)]

    def test_isolation(self, postgres_server: PostgresServer) -> None:
        """Each way to isolate tests is compared with none, on PostgreSQL and in memory."""
        plan = isolation_of_tests.Plan(servers=1, memory=1, passes=1, tables=3, rows=2, in_a_row=1)
        found = isolation_of_tests.measure(plan)
        assert found.title == "isolated tests, 3 tables with 6 rows"
        assert [group.title for group in found.groups] == ["PostgreSQL", "SQLite in memory"]
        on_postgresql, in_memory = found.groups
        assert [line.name for line in on_postgresql.rows] == [
            "no isolation",
            "RollbackSessionFactory",
            "CloningSessionFactory",
            "CloningSessionFactory, back to back",
            "CloningSessionFactory(ahead=0)",
            "TRUNCATE and seed",
            "drop_all, create_all and seed",
        ]
        assert on_postgresql.rows[1].target == Target("<=", 1.7)
        assert [line.name for line in in_memory.rows] == [
            "no isolation",
            "InMemorySessionFactory.reset()",
            "RollbackSessionFactory",
            "create_all and seed",
        ]
        assert in_memory.rows[1].target == Target("<=", 1.6)

    def test_isolation_without_a_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without PostgreSQL, its rows are left out, and the table says so."""

        def fail() -> None:
            raise ServerUnavailableError("there are no binaries")

        monkeypatch.setattr(isolation_of_tests, "PostgresServer", fail)
        found = isolation_of_tests.measure(
            isolation_of_tests.Plan(servers=1, memory=1, passes=1, tables=3, rows=2, in_a_row=1)
        )
        assert [group.title for group in found.groups] == ["SQLite in memory"]
        assert found.notes[-1] == "PostgreSQL is left out: there are no binaries"

    def test_import_time(self) -> None:
        """Each import of a user is compared with SQLAlchemy's, and the interpreter is shown."""
        found = import_time.measure(import_time.Plan(rounds=1))
        alone, whole = found.groups
        light = ["sessionfactory", "sessionfactory, as a pytest plugin"]
        heavy = ["SqlAlchemySessionFactory", "SessionFactoryRegistry"]
        names = ["sqlalchemy.orm", *light, *heavy]
        assert [line.name for line in alone.rows] == names
        targets = [line.target for line in alone.rows[1:]]
        assert targets == [Target("<=", 0.10)] * 2 + [Target("<=", 1.10)] * 2
        assert [line.name for line in whole.rows] == ["nothing", *names]

    def test_pytest_plugin(self) -> None:
        """An empty run is compared with one that has the plugin, where bytecode is and is not."""
        found = pytest_plugin_startup.measure(pytest_plugin_startup.Plan(rounds=1, passes=1))
        assert [group.title for group in found.groups] == [
            "bytecode in place: processor time",
            "bytecode in place: wall time",
            "no bytecode: processor time",
            "no bytecode: wall time",
        ]
        for group in found.groups:
            assert [line.name for line in group.rows] == ["pytest", "pytest with the plugin"]
            assert [growth.target for growth in group.growths] == [Target("<=", 10)]
