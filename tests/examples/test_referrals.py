"""The example `examples/referrals`: a service that depends on the interface only."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from examples.referrals.models import Base
from examples.referrals.service import Leaderboard, Referrals, SignUp, UnknownCodeError
from sessionfactory.testing import InMemorySessionFactory
from tests.support.programs import environment

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sessionfactory import SessionFactory

ADA: Final = SignUp(email="ada@example.org", code="ADA1")
GRACE: Final = SignUp(email="grace@example.org", code="GRACE1", referred_by="ADA1")


def demo(folder: Path, **variables: str) -> list[str]:
    """Run the program in a folder, and return the lines that it printed."""
    command = [sys.executable, "-m", "examples.referrals"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_demo_twice(tmp_path: Path) -> None:
    """The second run finds the users of the first, and the leaderboard stays the same."""
    first, second = demo(tmp_path), demo(tmp_path, DATABASE_URL="")
    assert first[0] == "database: sqlite:///referrals.db"
    assert "  welcome, ada@example.org" in first
    assert "  ada@example.org has signed up before" in second
    standings = ["  2  ada@example.org", "  1  grace@example.org"]
    assert first[6:8] == second[6:8] == standings
    assert first[8].startswith("a reader refuses to write: ")


def test_database_from_the_environment(tmp_path: Path) -> None:
    """With DATABASE_URL_FILE set, nothing is written to the embedded database."""
    (tmp_path / "url").write_text("sqlite:///other.db\n", encoding="utf-8")
    lines = demo(tmp_path, DATABASE_URL_FILE=str(tmp_path / "url"))
    assert lines[0] == "database: sqlite:///other.db"
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "referrals.db").exists()


@pytest.fixture(params=["sessionmaker", "InMemorySessionFactory"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[SessionFactory]:
    """SQLAlchemy's own factory, or one of this library: the service needs no more."""
    if request.param == "InMemorySessionFactory":
        with InMemorySessionFactory(Base.metadata) as factory:
            yield factory
        return
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    engine.dispose()


def test_sign_up(sessions: SessionFactory) -> None:
    """A user is welcomed once committed, and known the second time."""
    welcomed: list[str] = []
    service = Referrals(sessions, welcomed.append)
    assert service.sign_up(ADA)
    assert service.sign_up(GRACE)
    assert not service.sign_up(GRACE)
    assert welcomed == [ADA.email, GRACE.email]
    assert Leaderboard(sessions).top() == [(ADA.email, 1)]


def test_unknown_code(sessions: SessionFactory) -> None:
    """A user with an unknown referrer is not written, and not welcomed."""
    welcomed: list[str] = []
    with pytest.raises(UnknownCodeError, match="no user has the code ADA1"):
        Referrals(sessions, welcomed.append).sign_up(GRACE)
    assert welcomed == []
    assert Referrals(sessions, welcomed.append).sign_up(ADA)
