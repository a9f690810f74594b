"""FastAPI gets its session factory as a dependency, and a test another one for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from sessionfactory import (
    NotConfiguredError,
    NullSessionFactory,
    SessionFactory,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing.recording.recording import RecordingSessionFactory

if TYPE_CHECKING:
    from collections.abc import Generator

app = FastAPI()


def get_sessions() -> SessionFactory:
    """What the application is given in production; here, a guard."""
    return NullSessionFactory("no database in this test")


Sessions = Annotated[SessionFactory, Depends(get_sessions)]


@app.post("/things/{a}")
def add(a: int, sessions: Sessions) -> None:
    """Store a number."""
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t VALUES (:a)"), {"a": a})


@app.get("/things")
def things(sessions: Sessions) -> list[int]:
    """Return all numbers."""
    with sessions() as session:
        return list(session.scalars(text("SELECT a FROM t")))


@pytest.fixture
def recorder(factory: SqlAlchemySessionFactory) -> Generator[RecordingSessionFactory]:
    """Records the sessions of the application, which has the test's database."""
    recorder = RecordingSessionFactory(factory)
    app.dependency_overrides[get_sessions] = lambda: recorder
    yield recorder
    app.dependency_overrides.clear()


def test_a_request_is_one_transaction(recorder: RecordingSessionFactory) -> None:
    """The factory of the test is what the application uses, and what it did can be asked."""
    with TestClient(app) as client:
        assert client.post("/things/7").status_code == 200
        assert len(recorder.recording.writes) == 1, recorder.recording
        recorder.recording.reset()

        assert client.get("/things").json() == [7]

    assert recorder.recording.transactions == 1, recorder.recording
    assert not recorder.recording.writes, recorder.recording


def test_without_an_override_the_guard_stands() -> None:
    """A test that forgot to bring a database gets an error, and never the real one."""
    with TestClient(app) as client, pytest.raises(NotConfiguredError, match="no database in this"):
        client.get("/things")
