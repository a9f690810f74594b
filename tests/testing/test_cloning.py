"""``CloningSessionFactory`` on SQLite, where it is about threads and files.

What both halves have in common is in ``tests/contract/test_cloning.py``.
"""

from __future__ import annotations

import gc
import resource
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Never, cast

import pytest
from sqlalchemy import Engine, MetaData, create_engine, text
from sqlalchemy.orm import Session

from sessionfactory import ClosedError, DatabaseSettings
from sessionfactory.testing.cloning.cloning import CloningSessionFactory
from sessionfactory.testing.memory._image import IsolationError
from tests.support.isolated import Base, add_player, one_team, players
from tests.support.observe import until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


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


def test_threads(cloning: CloningSessionFactory) -> None:
    """Threads may ask for clones at the same time."""

    def use(_: int) -> int:
        with cloning.clone() as sessions:
            add_player(sessions)
            return players(sessions)

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(use, range(20))) == {2}


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


def test_closed(cloning: CloningSessionFactory) -> None:
    """After the end there is no thread."""
    before = threading.active_count()
    with cloning.clone():
        assert threading.active_count() == before + 1
        cloning.close()
    assert threading.active_count() == before


def test_closed_while_waiting(cloning: CloningSessionFactory) -> None:
    """Who waits for a clone when the end comes is told so."""
    go_on, asked = threading.Event(), threading.Event()
    with cloning.clone():
        cloning._cloner._thread.submit(go_on.wait)
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
            until(lambda: cloning._cloner._closed)
            go_on.set()
            with pytest.raises(
                ClosedError, match=r"is closed|was closed before the clone was made"
            ):
                waiting.result()
            closing_down.result()


def test_interrupted_while_waiting(
    cloning: CloningSessionFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clone of a waiter that was interrupted goes to the next one."""
    with cloning.clone():
        pass

    def interrupted(_: object) -> Never:
        raise KeyboardInterrupt

    first = cloning._cloner._pending[0]
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cloning._take()
    with cloning.clone() as sessions:
        assert sessions is first.result()


def no_more(name: str) -> Never:
    """Make no clones."""
    raise AssertionError(name)


def test_not_closed() -> None:
    """One that is collected with databases left gives a warning."""
    cloning = CloningSessionFactory("sqlite://", Base.metadata)
    with cloning.clone():
        pass
    cloner = cloning._cloner
    for clone in cloner._pending:
        clone.result().close()
    cloner._pending.clear()
    cloner._ready = no_more
    with pytest.warns(ResourceWarning, match="CloningSessionFactory was not closed; its databases"):
        del cloning
        gc.collect()
    assert cloner.stop() is not None
    cloner.end().result()


@pytest.mark.parametrize("wrong", ["prepare", "seed"])
def test_coroutine_functions_are_refused(wrong: str) -> None:
    """What would never be awaited is a mistake that is named when the factory is made."""

    async def never_runs(_: object) -> None:
        pytest.fail("it is never awaited")

    parts = {"prepare": Base.metadata, "seed": one_team, wrong: never_runs}
    with pytest.raises(TypeError, match=f"^{wrong} is a coroutine function"):
        CloningSessionFactory("sqlite://", **cast("dict[str, Any]", parts))
