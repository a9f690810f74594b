"""What the tests of transactions share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import MetaData, create_engine

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory, marker_table
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import PostgresServer


@pytest.fixture
def server(postgres_server: PostgresServer) -> Generator[PostgresServer]:
    """PostgreSQL with an empty table ``paid(amount)``, and a function that fails as it is told."""
    postgres_server.execute("""
        CREATE TABLE paid (amount int);
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'it fails' USING ERRCODE = TG_ARGV[0]; END $$;
    """)
    yield postgres_server
    postgres_server.execute("DROP TABLE paid; DROP FUNCTION fail")


@pytest.fixture(scope="session")
def proxies(postgres_server: PostgresServer) -> Generator[FaultProxy]:
    """A proxy before PostgreSQL, for all tests: each leaves it as it was."""
    with FaultProxy(postgres_server.url) as made:
        yield made


@pytest.fixture
def proxy(server: PostgresServer, proxies: FaultProxy) -> Generator[FaultProxy]:
    """A proxy before PostgreSQL."""
    yield proxies
    proxies.restore()


@pytest.fixture
def factory(server: PostgresServer) -> Generator[SqlAlchemySessionFactory]:
    """A factory on PostgreSQL."""
    with SqlAlchemySessionFactory(DatabaseSettings(server.url)) as made:
        yield made


@pytest.fixture
def markers(request: pytest.FixtureRequest) -> Generator[None]:
    """The table of markers, as a migration makes it, where the test has PostgreSQL."""
    if "server" not in request.fixturenames:
        yield
        return
    engine = create_engine(request.getfixturevalue("server").url)
    table = marker_table(MetaData())
    table.create(engine, checkfirst=True)
    yield
    table.drop(engine, checkfirst=True)
    engine.dispose()
