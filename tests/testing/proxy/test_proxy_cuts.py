"""Cuts at a statement: before it, after it, and with the statement delivered late."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from sessionfactory.testing.proxy._trigger import When
    from sessionfactory.testing.proxy.fault_proxy import FaultProxy

    Direct = Callable[[str], object]
    Insert = Callable[[str, int], Exception | None]
    Values = Callable[[], list[int]]

DRIVERS = pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])


def dsn(url: URL) -> str:
    """The URL as psycopg takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@DRIVERS
def test_before_commit_means_rolled_back(
    proxy: FaultProxy, insert: Insert, values: Values, driver: str
) -> None:
    """A connection that is cut before COMMIT fails, and its row is not there."""
    trigger = proxy.cut("before", "COMMIT")
    assert insert(driver, 1) is not None
    assert trigger.fired
    assert values() == []


@DRIVERS
def test_after_commit_means_committed(
    proxy: FaultProxy, insert: Insert, values: Values, driver: str
) -> None:
    """A connection that is cut after COMMIT fails, and its row is there all the same."""
    trigger = proxy.cut("after", "COMMIT")
    assert insert(driver, 1) is not None
    assert trigger.fired
    assert values() == [1]


@DRIVERS
def test_late_commit_happens_when_released(
    proxy: FaultProxy, insert: Insert, values: Values, driver: str
) -> None:
    """A late COMMIT takes effect on release, though its client was cut long before."""
    trigger = proxy.cut("late", "COMMIT")
    assert insert(driver, 1) is not None
    assert trigger.fired
    assert values() == []
    assert trigger.release()
    assert values() == [1]


@DRIVERS
def test_the_next_connection_is_whole(
    proxy: FaultProxy, insert: Insert, values: Values, driver: str
) -> None:
    """A trigger that has fired lets everything pass."""
    proxy.cut("before", "COMMIT")
    assert insert(driver, 1) is not None
    assert insert(driver, 2) is None
    assert values() == [2]


def test_late_commit_with_a_delay_needs_no_release(
    proxy: FaultProxy, insert: Insert, values: Values
) -> None:
    """A late COMMIT with a delay is delivered by itself."""
    trigger = proxy.cut("late", "COMMIT", delay=0.05)
    assert insert("psycopg", 1) is not None
    assert trigger.wait_delivered()
    assert values() == [1]


def test_late_commit_is_lost_with_its_back_end(
    proxy: FaultProxy, insert: Insert, values: Values, direct: Direct, table: str
) -> None:
    """Release tells that the server had ended the connection before it got the COMMIT."""
    trigger = proxy.cut("late", "COMMIT")
    assert insert("psycopg", 1) is not None
    direct(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE query LIKE 'INSERT INTO {table}%'"
    )
    assert not trigger.release()
    assert values() == []


def commit_in_a_pipeline(proxy: FaultProxy, table: str) -> None:
    """Write a row without waiting for answers."""
    with (
        contextlib.closing(psycopg.connect(dsn(proxy.url), autocommit=True)) as connection,
        connection.pipeline(),
    ):
        connection.execute("BEGIN")
        connection.execute(f"INSERT INTO {table} VALUES (1)".encode())
        connection.execute("COMMIT")


@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_commit_in_a_pipeline(proxy: FaultProxy, values: Values, when: When, table: str) -> None:
    """COMMIT is found among pipelined messages of the extended protocol."""
    trigger = proxy.cut(when, "commit")
    with pytest.raises(psycopg.OperationalError):
        commit_in_a_pipeline(proxy, table)
    trigger.wait()
    if when == "late":
        assert values() == []
        assert trigger.release()
    assert values() == ([] if when == "before" else [1])


@pytest.mark.parametrize("when", ["before", "after"])
def test_prepared_statement_is_cut_where_it_runs(
    proxy: FaultProxy, values: Values, when: When, table: str
) -> None:
    """A prepared statement is recognised when it is executed, long after its text was sent."""
    with psycopg.connect(dsn(proxy.url), autocommit=True, prepare_threshold=0) as connection:
        statement = f"INSERT INTO {table} VALUES (%s)".encode()
        for number in (1, 2):
            connection.execute(statement, (number,))
        trigger = proxy.cut(when, f"insert  into {table}")
        connection.execute("SELECT 1")
        assert trigger.times == 0
        with pytest.raises(psycopg.OperationalError):
            connection.execute(statement, (3,))
        assert trigger.fired
    assert values() == ([1, 2] if when == "before" else [1, 2, 3])


def test_after_a_copy_the_answers_are_still_told_apart(
    proxy: FaultProxy, values: Values, table: str
) -> None:
    """A COPY with parameters, whose first Sync the server ignores, does not confuse a later cut."""
    with psycopg.connect(dsn(proxy.url)) as connection:
        query = f"COPY {table} FROM STDIN".encode()
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.write_row((1,))
        connection.pgconn.send_query_params(query, None)
        while connection.pgconn.is_busy():
            connection.pgconn.consume_input()
        assert connection.pgconn.get_result() is not None
        connection.pgconn.put_copy_data(b"2\n")
        connection.pgconn.put_copy_end()
        while connection.pgconn.get_result() is not None:
            pass
        trigger = proxy.cut("after", "COMMIT")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        assert trigger.fired
    assert values() == [1, 2]


@pytest.mark.parametrize(
    "sent",
    ["COMMIT", "commit ;", "\n  Commit\tAND  no CHAIN", "SELECT 1; COMMIT", "COMMIT;SELECT 1"],
)
def test_statement_is_found_by_its_first_words(proxy: FaultProxy, sent: str) -> None:
    """Case, white space, a final semicolon and neighbours in the same text do not matter."""
    trigger = proxy.cut("before", "COMMIT;")
    with psycopg.connect(dsn(proxy.url)) as connection:
        connection.pgconn.exec_(sent.encode())
        assert trigger.fired


@pytest.mark.parametrize("sent", ["SELECT 'COMMIT'", "SELECT 1 AS committed", "SELECT 1 -- COMMIT"])
def test_other_statements_pass(proxy: FaultProxy, sent: str) -> None:
    """A statement that only mentions the words, or begins with a longer word, passes."""
    with proxy.cut("before", "COMMIT") as trigger, psycopg.connect(dsn(proxy.url)) as connection:
        connection.execute(sent.encode())
        connection.rollback()
        assert not trigger.fired


def test_words_may_end_with_punctuation(proxy: FaultProxy) -> None:
    """What follows a statement's punctuation is its own business."""
    trigger = proxy.cut("before", "SELECT (")
    with (
        psycopg.connect(dsn(proxy.url)) as connection,
        pytest.raises(psycopg.OperationalError),
    ):
        connection.execute("SELECT (1)")
    assert trigger.fired


def test_count_cuts_so_many_connections(proxy: FaultProxy, insert: Insert, values: Values) -> None:
    """A trigger with a count cuts as many connections, and has fired after the last of them."""
    trigger = proxy.cut("after", "COMMIT", count=3)
    for number in (1, 2):
        assert insert("psycopg", number) is not None
        assert (trigger.times, trigger.fired) == (number, False)
    assert insert("psycopg", 3) is not None
    assert trigger.fired
    assert insert("psycopg", 4) is None
    assert values() == [1, 2, 3, 4]


def test_late_count_releases_all(proxy: FaultProxy, insert: Insert, values: Values) -> None:
    """Release delivers all late statements of a trigger with a count."""
    trigger = proxy.cut("late", "COMMIT", count=3)
    for number in (1, 2, 3):
        assert insert("psycopg", number) is not None
    assert values() == []
    assert trigger.release()
    assert values() == [1, 2, 3]


def test_several_triggers_share_the_statements(
    proxy: FaultProxy, insert: Insert, values: Values
) -> None:
    """Each statement goes to the first trigger that waits for it."""
    first = proxy.cut("before", "COMMIT")
    second = proxy.cut("after", "COMMIT")
    assert insert("psycopg", 1) is not None
    assert (first.fired, second.fired) == (True, False)
    assert insert("psycopg", 2) is not None
    assert second.fired
    assert values() == [2]


@pytest.mark.parametrize("disarm", ["cancel", "block", "restore"])
def test_disarmed_trigger_cuts_nothing(
    proxy: FaultProxy, insert: Insert, values: Values, disarm: str
) -> None:
    """A trigger is disarmed by cancel, by the end of its block, and by restore."""
    trigger = proxy.cut("before", "COMMIT")
    if disarm == "cancel":
        trigger.cancel()
    elif disarm == "block":
        with trigger:
            pass
    else:
        proxy.restore()
    assert insert("psycopg", 1) is None
    assert not trigger.fired
    assert values() == [1]


def test_connection_that_ends_by_itself_is_not_counted(
    proxy: FaultProxy, insert: Insert, values: Values
) -> None:
    """A trigger whose connection ends before it could cut waits for the next one."""
    trigger = proxy.cut("after", "SELECT pg_terminate_backend")
    with (
        psycopg.connect(dsn(proxy.url)) as connection,
        pytest.raises(psycopg.OperationalError),
    ):
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert trigger.times == 0
    with psycopg.connect(dsn(proxy.url)) as connection:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_terminate_backend(0)")
        assert trigger.fired
    assert values() == []
