from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from sessionfactory.testing.servers._process import Keeper, ServerError
from tests.support.observe import until

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def standby(own_postgres: PostgresServer) -> Generator[PostgresServer]:
    """A standby of the server that tests may stop."""
    with own_postgres.standby() as standby:
        yield standby


def test_a_standby_follows_and_refuses_writes(
    own_postgres: PostgresServer, standby: PostgresServer
) -> None:
    """It is what a read-only replica is in production."""
    own_postgres.execute("INSERT INTO item VALUES (1)")
    standby.catch_up()
    assert standby.execute("SELECT count(*) FROM item WHERE id = 1") == "1"
    assert standby.execute("SHOW max_connections") == own_postgres.execute("SHOW max_connections")
    with pytest.raises(ServerError, match="read-only transaction"):
        standby.execute("INSERT INTO item VALUES (2)")
    engine = create_engine(standby.url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_is_in_recovery()")) is True
    engine.dispose()


def test_a_standby_survives_a_restart_of_its_primary_and_of_itself(
    own_postgres: PostgresServer, standby: PostgresServer
) -> None:
    """It finds its primary again, and what it missed."""
    own_postgres.restart("immediate")
    standby.kill()
    standby.apply_delay = 0.1
    own_postgres.execute("INSERT INTO item VALUES (3)")
    standby.start()
    standby.catch_up()
    assert standby.execute("SELECT count(*) FROM item WHERE id = 3") == "1"
    assert standby.execute("SHOW recovery_min_apply_delay") == "100ms"
    standby.apply_delay = None


def test_the_apply_delay_is_a_lag_that_can_be_set(
    own_postgres: PostgresServer, standby: PostgresServer
) -> None:
    """From now on, while the standby runs."""
    shown = "SELECT count(*) FROM item WHERE id = 4"
    standby.catch_up()
    standby.apply_delay = 30
    own_postgres.execute("INSERT INTO item VALUES (4)")
    until(
        lambda: (
            standby.execute(RECEIVED) == own_postgres.execute("SELECT pg_current_wal_flush_lsn()")
        )
    )
    assert standby.execute(shown) == "0"
    standby.apply_delay = None
    standby.catch_up()
    assert standby.execute(shown) == "1"
    standby.apply_delay = 0.2
    began = time.monotonic()
    own_postgres.execute("INSERT INTO item VALUES (5)")
    standby.catch_up()
    assert 0.2 <= time.monotonic() - began < 5
    standby.apply_delay = 0


RECEIVED = "SELECT pg_last_wal_receive_lsn()"


def test_promote_makes_a_primary(own_postgres: PostgresServer) -> None:
    """It shows all that it received, takes writes, and follows no server."""
    own_postgres.execute("INSERT INTO item VALUES (6)")
    promoted = own_postgres.standby(apply_delay=30, settings={"max_connections": 60})
    assert promoted.apply_delay == 30
    assert promoted.execute("SHOW max_connections") == "60"
    assert promoted.promote() is promoted
    promoted.execute("INSERT INTO item VALUES (7)")
    assert own_postgres.execute("SELECT count(*) FROM item WHERE id = 7") == "0"
    promoted.restart()
    assert promoted.execute("SELECT count(*) FROM item WHERE id IN (6, 7)") == "2"
    with pytest.raises(ServerError, match="is not a standby"):
        promoted.catch_up()
    with pytest.raises(ServerError, match="recovery is not in progress"):
        promoted.promote()
    promoted.close()


def test_a_wait_without_end_is_told(
    own_postgres: PostgresServer, standby: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither catching up nor reading settings takes longer than one step may."""
    standby.apply_delay = 30
    own_postgres.execute("INSERT INTO item VALUES (8)")
    monkeypatch.setattr(standby, "_timeout", 0.3)
    with pytest.raises(ServerError, match=r"did not catch up within 0\.3 s"):
        standby.catch_up()
    monkeypatch.setattr(Keeper, "signal", lost)
    with pytest.raises(ServerError, match=r"did not read its settings within 0\.3 s"):
        standby.apply_delay = None


def lost(keeper: Keeper, number: int) -> None:
    """Send no signal."""
