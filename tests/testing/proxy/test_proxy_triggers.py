"""What a trigger tells the test that waits for it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.testing.proxy.fault_proxy import FaultProxy

    Insert = Callable[[str, int], Exception | None]
    Values = Callable[[], list[int]]


def test_wait_names_what_passed_instead(proxy: FaultProxy, insert: Insert, table: str) -> None:
    """The error of a trigger that has not fired names the statements that passed."""
    trigger = proxy.cut("before", "PREPARE TRANSACTION")
    assert insert("psycopg", 1) is None
    with pytest.raises(TimeoutError) as caught:
        trigger.wait(0.01)
    assert str(caught.value).startswith(
        "0 of 1 connections were cut before 'PREPARE TRANSACTION' within 0.01 s;"
        " statements that passed: "
    )
    assert f"BEGIN; INSERT INTO {table[:30]}" in str(caught.value)
    assert str(caught.value).endswith("; COMMIT")


def test_wait_wakes_up_when_the_cut_comes(
    proxy: FaultProxy, insert: Insert, values: Values
) -> None:
    """A thread that waits for a trigger does not keep others from using the proxy, and wakes up."""
    trigger = proxy.cut("after", "COMMIT", count=8)
    with ThreadPoolExecutor(10) as threads:
        waiting = [threads.submit(trigger.wait, 10) for _ in range(2)]
        errors = list(threads.map(insert, ["psycopg"] * 8, range(8)))
        assert proxy.connections >= 8
        for wait in waiting:
            wait.result()
    assert all(errors)
    assert values() == list(range(8))


def test_late_needs_patience(proxy: FaultProxy, insert: Insert, values: Values) -> None:
    """Waiting for a late statement that is not released ends with an error that says so."""
    trigger = proxy.cut("late", "COMMIT")
    assert insert("psycopg", 1) is not None
    with pytest.raises(TimeoutError, match=r"COMMIT was not answered within 0\.01 s: not released"):
        trigger.wait_delivered(0.01)
    proxy.reset()
    assert not trigger.wait_delivered()


def test_only_late_cuts_deliver(proxy: FaultProxy) -> None:
    """Release makes no sense for a cut before or after, and says so."""
    trigger = proxy.cut("before", "COMMIT")
    with pytest.raises(ValueError, match='a cut "before" the statement delivers nothing late'):
        trigger.release()
    assert repr(trigger) == "<Trigger before 'COMMIT', 1 times>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"when": "during"}, 'a cut is "before", "after" or "late", not \'during\''),
        ({"statement": " ; "}, "a cut needs a statement to wait for"),
        ({"count": 0}, "a cut needs a count of at least 1, not 0"),
        ({"delay": 1.0}, 'only a "late" cut has a delay, not one "before"'),
        ({"when": "late", "delay": -1.0}, "delay is a number of seconds, not -1.0"),
    ],
)
def test_senseless_cuts(proxy: FaultProxy, arguments: dict[str, Any], message: str) -> None:
    """A cut that makes no sense is refused with a sentence that says why."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        given: dict[str, Any] = {"when": "before", "statement": "COMMIT", **arguments}
        proxy.cut(**given)
