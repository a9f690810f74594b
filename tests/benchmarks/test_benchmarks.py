"""The command that measures, and the figure that is counted. The rest is in ``soak``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import Benchmark, main
from benchmarks.measurements import (
    round_trips_counted,
)
from benchmarks.setups import servers
from benchmarks.tool.figures import Count, Group, Table, Unit

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory.testing import PostgresServer

OURS = "SqlAlchemySessionFactory"


@pytest.fixture
def socket(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables use the server of the tests instead of one of their own."""
    monkeypatch.setattr(servers, "PostgresServer", lambda: nullcontext(postgres_server))


@pytest.mark.usefixtures("socket")
def test_round_trips() -> None:
    """A transaction of one statement is three round trips, and a ping of psycopg's one more."""
    found = round_trips_counted.measure(round_trips_counted.Plan(scopes=2))
    counted = {
        group.title: {count.name: count.value for count in group.counts} for group in found.groups
    }
    plain, asking = "sessionmaker", "sessionmaker, pool_pre_ping=True"
    for driver, pinged in (("psycopg", 4), ("psycopg2", 4), ("asyncpg", 6)):
        trips = counted[driver]
        assert (trips[asking], trips[plain], trips[OURS]) == (pinged, 3, 3)
        assert f"{OURS}, tenant view" in trips
    for driver in ("psycopg", "asyncpg"):
        assert counted[driver][f"{OURS}, AUTOCOMMIT view"] == 1
    assert set(counted) == {"psycopg", "psycopg2", "asyncpg"}


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a table, and replaces its rows in the file of results, not others."""
    file = tmp_path / "results.md"
    file.write_text("| a |\n| --- |\n| other | x |\n| made_up | old |\n", encoding="utf-8")
    group = Group(
        title="speed", unit=Unit("ms"), rounds=1, rows=(), counts=(Count(name="n", value=3),)
    )
    table = Table(name="made_up", title="made up", notes=(), groups=(group,), highlight="speed")
    main(
        ["made_up", "--write"],
        benchmarks={"made_up": Benchmark(lambda: table, lambda: table)},
        results=tmp_path,
    )
    assert "# made_up: made up" in capsys.readouterr().out
    lines = file.read_text(encoding="utf-8").splitlines()
    assert "| made_up | speed: counted | n | 3 |  |  |  |" in lines
    assert "| other | x |" in lines
    assert "| made_up | old |" not in lines
    assert (tmp_path / "results.svg").read_text(encoding="utf-8").startswith("<svg ")
