from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.servers.postgres import PostgresServer
from tests.support.available import running_or_skipped

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        ("true", pytest.fail.Exception),
        ("1", pytest.fail.Exception),
        ("false", pytest.skip.Exception),
        ("", pytest.skip.Exception),
    ],
)
def test_a_server_that_cannot_be_had_is_a_skip_and_in_ci_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """The reason is told in both cases."""
    monkeypatch.setenv("SESSIONFACTORY_POSTGRES_BIN", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with (
        pytest.raises(outcome, match="which does not hold initdb"),
        running_or_skipped(PostgresServer()),
    ):
        pass


def test_a_server_that_can_be_had_runs_and_is_closed(postgres_server: PostgresServer) -> None:
    """A test gets it running, and the end of the test ends it."""
    with running_or_skipped(PostgresServer()) as server:
        directory = server.directory
        assert server.running
    assert not directory.exists()
