"""What stands on a connection for a view, and cannot be taken back."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import Connection, QueuePool, create_engine, text

from sessionfactory import DatabaseSettings, PoolSettings, SqlAlchemySessionFactory
from sessionfactory.pool.connection_settings import Standing, stand

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection


@pytest.fixture
def theirs(url: str) -> Generator[Engine]:
    """An engine with a pool that is not ours."""
    engine = create_engine(url, poolclass=QueuePool)
    yield engine
    engine.dispose()


@pytest.fixture(params=["fair", "theirs"])
def engine(request: pytest.FixtureRequest, url: str, theirs: Engine) -> Generator[Engine]:
    """An engine with each of the pools that keep connections."""
    kind: Literal["fair", "theirs"] = request.param
    if kind == "theirs":
        yield theirs
    else:
        settings = DatabaseSettings(url, pool=PoolSettings(kind=kind))
        with SqlAlchemySessionFactory(settings) as factory:
            yield factory.engine


def driver_of(connection: Connection) -> object:
    """Return the driver's connection."""
    assert connection.scalar(text("SELECT 1")) == 1
    return connection.connection.driver_connection


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_cannot_be_taken_back(engine: Engine, error: type[BaseException]) -> None:
    """Such a connection is not checked out again, and an interrupt is passed on."""

    def fail(_: DBAPIConnection) -> None:
        raise error

    view = engine.execution_options()
    stand(view, engine, lambda _: Standing(put_on=lambda _: None, taken_from=fail))
    with nullcontext() if issubclass(error, Exception) else pytest.raises(error):
        with view.connect() as connection:
            first = driver_of(connection)
        engine.connect().close()
    with engine.connect() as connection:
        assert driver_of(connection) is not first
