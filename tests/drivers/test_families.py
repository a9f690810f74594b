"""What a database can do goes by its family, and not by its dialect's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from sessionfactory import DatabaseSettings, SettingsError, SqlAlchemySessionFactory, with_options
from sessionfactory.drivers import families

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import PostgresServer


class Relative(PGDialect_psycopg):
    """The dialect of a database that speaks PostgreSQL's protocol, under a name of its own."""

    name = "roachlike"
    supports_statement_cache = True


class OtherRelative(MySQLDialect_pymysql):
    """The same for MySQL's."""

    name = "tidblike"
    supports_statement_cache = True


@pytest.fixture(autouse=True)
def dialects() -> Generator[None]:
    """Dialects of third parties, as an installed package registers them."""
    registry.register("roachlike", __name__, "Relative")
    registry.register("tidblike", __name__, "OtherRelative")
    yield
    for name in ("roachlike", "tidblike"):
        registry.impls.pop(name, None)


@pytest.mark.parametrize(
    ("url", "family"),
    [
        ("postgresql://db/shop", families.POSTGRESQL),
        ("postgresql+asyncpg://db/shop", families.POSTGRESQL),
        ("cockroachdb+psycopg://db/shop", families.LIKE_POSTGRESQL),
        ("roachlike://db/shop", families.LIKE_POSTGRESQL),
        ("mysql+pymysql://db/shop", families.MYSQL),
        ("mariadb://db/shop", families.MYSQL),
        ("tidblike://db/shop", families.MYSQL),
        ("sqlite://", families.SQLITE),
        ("oracle+oracledb://db/shop", families.OTHER),
        ("nonsense://db/shop", families.OTHER),
    ],
)
def test_families_of_urls(url: str, family: families.Family) -> None:
    """A dialect below PostgreSQL's or MySQL's is of its family, whatever its name."""
    assert families.of_url(make_url(url)) == family


def test_family_of_an_engine() -> None:
    """An engine's family is that of its URL."""
    engine = create_engine("roachlike://db/shop")
    assert families.of_dialect(engine.dialect) == families.LIKE_POSTGRESQL
    assert families.of_dialect(create_engine("sqlite://").dialect) == families.SQLITE


LIMITS: Final = "SELECT current_setting('statement_timeout'), current_setting('app.tenant', true)"


def test_a_relative_has_what_postgresql_has(postgres_server: PostgresServer) -> None:
    """Time limits, read-only transactions and local settings work under another dialect's name."""
    url = make_url(postgres_server.url).set(drivername="roachlike")
    settings = DatabaseSettings(url, statement_timeout=7)
    with SqlAlchemySessionFactory(settings) as sessions:
        tenant = with_options(sessions, local={"app.tenant": "7"}, read_only=True, lock_timeout=1)
        with tenant.begin() as session:
            assert session.execute(text(LIMITS)).one() == ("7s", "7")
            assert session.scalar(text("SHOW transaction_read_only")) == "on"


def test_what_a_family_lacks_is_refused() -> None:
    """SQLite has no time limits for statements: the setting is refused."""
    with pytest.raises(SettingsError, match="statement_timeout: sqlite has no such limit"):
        SqlAlchemySessionFactory(DatabaseSettings("sqlite://", statement_timeout=1))
