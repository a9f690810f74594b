"""Extensions that the embedded PostgreSQL lacks come with a system's, by a documented variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionfactory.testing import PostgresServer
from sessionfactory.testing.servers._binaries import POSTGRES_VARIABLE
from tests.support.available import running_or_skipped

EXTENSIONS = ("uuid-ossp", "pgcrypto")


def programs_with_extensions() -> Path | None:
    """Return the programs of a Debian-like installation that has both extensions."""
    for programs in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        share = Path("/usr/share/postgresql") / programs.parent.name / "extension"
        has_all = all((share / f"{name}.control").is_file() for name in EXTENSIONS)
        if has_all and (programs / "initdb").is_file() and (programs / "postgres").is_file():
            return programs
    return None


def test_a_systems_programs_bring_their_extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable, uuid-ossp and pgcrypto can be created and used."""
    programs = programs_with_extensions()
    if programs is None:
        pytest.skip("no PostgreSQL of the system with uuid-ossp and pgcrypto")
    monkeypatch.setenv(POSTGRES_VARIABLE, str(programs))
    with running_or_skipped(PostgresServer()) as server:
        for name in EXTENSIONS:
            server.execute(f'CREATE EXTENSION "{name}"')
        assert len(server.execute("SELECT uuid_generate_v4()")) == len("8-4-4-4-12") + 26
        assert server.execute("SELECT encode(digest('', 'md5'), 'hex')").startswith("d41d8cd9")
