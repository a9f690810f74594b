"""A place for each test of the contract."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, delete

from tests.support.halves import AsyncHalf, SyncHalf
from tests.support.places import SERVERS, Base, Place, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from sessionfactory.testing import MariaDBServer, PostgresServer
    from tests.support.halves import Half


@contextmanager
def table_on(url: str) -> Generator[Callable[[], None]]:
    """Make the table on a server; the value empties it."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)

    def empty() -> None:
        with engine.connect() as connection:
            connection.execute(delete(Row))

    yield empty
    Base.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def empty_postgres(postgres_server: PostgresServer) -> Generator[Callable[[], None]]:
    with table_on(postgres_server.url) as empty:
        yield empty


@pytest.fixture(scope="module")
def empty_mariadb(mariadb_server: MariaDBServer) -> Generator[Callable[[], None]]:
    with table_on(mariadb_server.url) as empty:
        yield empty


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Place]:
    """The place that is named by the test; its table is empty."""
    name, where = request.param.split()
    half: Half = SyncHalf() if name == "sync" else AsyncHalf()
    if f"{name} {where}" not in SERVERS:
        url = "sqlite://" if where == "memory" else f"sqlite:///{tmp_path / 'contract.db'}"
        yield Place(half, url, where)
        return
    database = "mariadb" if "mysql" in where else "postgres"
    empty: Callable[[], None] = request.getfixturevalue(f"empty_{database}")
    yield Place(half, request.getfixturevalue(f"{database}_server").url_for(driver=where))
    empty()
