"""``CloningSessionFactory`` on SQLite, and what is the same for every database."""

from __future__ import annotations

import gc
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import Engine, MetaData, create_engine, text
from sqlalchemy.orm import Session

from sessionfactory import ClosedError, DatabaseSettings, SettingsError, SqlAlchemySessionFactory
from sessionfactory.testing._image import IsolationError
from sessionfactory.testing.cloning import CloningSessionFactory
from tests.testing.isolated import Base, Player, add_player, one_team, players

if TYPE_CHECKING:
    from collections.abc import Generator


class OwnSession(Session):
    """A session class of the user's own."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where the clones are put: a directory that is empty again after the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.rglob("*")) == []


@pytest.fixture
def cloning() -> Generator[CloningSessionFactory]:
    """Clones with one team and one player."""
    with CloningSessionFactory("sqlite://", Base.metadata, seed=one_team) as made:
        yield made


def test_clones_are_apart(cloning: CloningSessionFactory) -> None:
    """Commits and new tables of one test are not seen by the next, nor by one at the same time."""
    for _ in range(5):
        with cloning.clone() as sessions, cloning.clone() as others:
            assert isinstance(sessions, SqlAlchemySessionFactory)
            add_player(sessions)
            with sessions.begin() as session:
                session.execute(text("CREATE TABLE extra (a INTEGER)"))
            assert (players(sessions), players(others)) == (2, 1)


def test_clone_is_real(cloning: CloningSessionFactory) -> None:
    """A clone has several connections, which see only what others committed."""
    with cloning.clone() as sessions, sessions.begin() as session:
        session.add(Player())
        session.flush()
        assert players(sessions) == 1


def test_threads(cloning: CloningSessionFactory) -> None:
    """Threads may ask for clones at the same time."""

    def use(_: int) -> int:
        with cloning.clone() as sessions:
            add_player(sessions)
            return players(sessions)

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(use, range(20))) == {2}


def test_prepared_once() -> None:
    """The template is prepared when the first clone is asked for, in the caller's thread."""
    calls: list[str] = []

    def prepare(engine: Engine) -> None:
        calls.append(threading.current_thread().name)
        Base.metadata.create_all(engine)

    with CloningSessionFactory("sqlite://", prepare, session_class=OwnSession, ahead=0) as cloning:
        assert calls == []
        for _ in range(3):
            with cloning.clone() as sessions, sessions() as session:
                assert isinstance(session, OwnSession)
    assert calls == ["MainThread"]


def test_rows_in_the_log() -> None:
    """What a connection of the user's own left in the template's log is in the clones, too."""
    engines: list[Engine] = []

    def prepare(engine: Engine) -> None:
        engines.append(create_engine(engine.url))
        Base.metadata.create_all(engines[0])
        with Session(engines[0]) as session:
            one_team(session)
            session.commit()

    with CloningSessionFactory("sqlite://", prepare) as cloning, cloning.clone() as sessions:
        assert players(sessions) == 1
        engines[0].dispose()


def test_the_file_of_the_settings_is_left_alone(home: Path) -> None:
    """A file that the settings name is neither read nor written."""
    file = home / "app.db"
    settings = DatabaseSettings(f"sqlite:///{file}")
    with CloningSessionFactory(settings, MetaData()) as cloning, cloning.clone() as sessions:
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE t (a INTEGER)"))
        assert not file.exists()


def test_session_left_open(cloning: CloningSessionFactory) -> None:
    """A test that leaves a session open is told where, and its clone is dropped all the same."""
    left: list[Session] = []
    with pytest.raises(IsolationError) as caught, cloning.clone() as sessions:
        left.append(sessions())
        left[0].execute(text("SELECT 1"))
    message = str(caught.value)
    assert message.startswith("This test left sessions open, which were cut off; opened at:\n  - ")
    assert "in test_session_left_open, thread MainThread, for 0.0 s" in message
    left[0].close()


def test_failed_test(cloning: CloningSessionFactory) -> None:
    """The error of a test that fails is not hidden by what it left open."""
    left: list[Session] = []
    with pytest.raises(ZeroDivisionError), cloning.clone() as sessions:
        left.append(sessions())
        left[0].execute(text("SELECT 1"))
        raise ZeroDivisionError
    left[0].close()


def test_failed_preparation() -> None:
    """What the preparation raises is passed on, each time, and nothing is left."""

    def fail(_: Session) -> None:
        raise ZeroDivisionError

    with CloningSessionFactory("sqlite://", Base.metadata, seed=fail) as cloning:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), cloning.clone():
                pytest.fail("there is no clone")


def test_full_disk() -> None:
    """A clone for which there is no room is an error of the test that needs it, and of no other."""
    with CloningSessionFactory("sqlite://", Base.metadata, ahead=0) as cloning:
        with cloning.clone() as sessions:
            assert players(sessions) == 0
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(IsolationError) as caught, cloning.clone():
                pytest.fail("there is no clone")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        message = "No database could be cloned for this test: [Errno 27] File too large"
        assert str(caught.value) == message
        with cloning.clone() as sessions:
            assert players(sessions) == 0


@pytest.mark.parametrize("failed", [False, True])
def test_not_dropped(home: Path, *, failed: bool) -> None:
    """A database that cannot be dropped is named, with the reason, and the others go.

    An error of the block is not hidden by that.
    """
    cloning = CloningSessionFactory("sqlite://", Base.metadata, ahead=0)
    with cloning.clone() as sessions:
        file = Path(sessions.settings.url.database or "")
    with cloning.clone():  # by now, the first one is dropped
        file.mkdir()
        cloning._databases[file.name] = None
    with pytest.raises(ZeroDivisionError if failed else IsolationError) as caught, cloning:
        _ = 1 / (not failed)
    assert (caught.value.__notes__[0] if failed else str(caught.value)) == (
        "These databases could not be dropped:"
        f"\n  - {file.name}: [Errno 21] Is a directory: '{file}'"
    )


def test_closed(cloning: CloningSessionFactory) -> None:
    """After the end there are no clones, and no thread."""
    before = threading.active_count()
    with cloning.clone():
        assert threading.active_count() == before + 1
        cloning.close()
    cloning.close()
    assert threading.active_count() == before
    with pytest.raises(ClosedError, match="This CloningSessionFactory is closed; it makes no"):
        cloning._take()


def test_closed_while_waiting(cloning: CloningSessionFactory) -> None:
    """Who waits for a clone when the end comes is told so."""
    go_on, asked = threading.Event(), threading.Event()
    with cloning.clone():
        cloning._thread.submit(go_on.wait)
        for _ in range(2):
            cloning._take().close()  # those that were ahead

        def ask() -> None:
            asked.set()
            with cloning.clone():
                pytest.fail("there is no clone")

        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(ask)
            asked.wait()
            closing_down = threads.submit(cloning.close)
            with pytest.raises(ClosedError):
                waiting.result()
            go_on.set()
            closing_down.result()


def test_not_closed() -> None:
    """One that is collected with databases left gives a warning."""
    cloning = CloningSessionFactory("sqlite://", Base.metadata)
    with cloning.clone():
        pass
    cloning._thread.shutdown()
    for future in cloning._pending:
        future.result().close()
    templates = cloning._templates
    with pytest.warns(ResourceWarning, match="was not closed; its databases are left"):
        del cloning
        gc.collect()
    templates.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql+pymysql://h/d", "url: expected postgresql or sqlite: mysql does not copy"),
        ("sqlite+aiosqlite://", "url: 'sqlite\\+aiosqlite' is an asynchronous driver"),
    ],
)
def test_other_databases(url: str, problem: str) -> None:
    """What cannot be cloned is refused when the factory is made."""
    with pytest.raises(SettingsError, match=problem):
        CloningSessionFactory(url, Base.metadata)


def test_no_metadata() -> None:
    """A declarative base in place of its metadata is a mistake that is named."""
    with pytest.raises(TypeError, match=r"expected a MetaData, not .*: say Base\.metadata$"):
        CloningSessionFactory("sqlite://", cast("MetaData", Base))
