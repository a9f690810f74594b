"""TLS in the same words for every driver, against servers that speak it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SettingsError,
    SettingsWarning,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import tls
from sessionfactory.testing import MariaDBServer
from tests.support.available import running_or_skipped
from tests.support.tls import authority, before

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import URL

    from sessionfactory.testing import PostgresServer

POSTGRES = ("psycopg", "psycopg2", "asyncpg", "async psycopg")
MARIADB = ("pymysql", "aiomysql")


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority of the servers' certificates."""
    file: Path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority().cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Generator[MariaDBServer]:
    """A MariaDB with a certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificate")
    issued = authority().issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    for path in (folder, *folder.parents):
        if path.name.startswith(("pytest-", "popen-", "certificate")):
            path.chmod(0o755)  # the server may run as another user
    key.chmod(0o644)
    with running_or_skipped(
        MariaDBServer(settings={"ssl_cert": str(chain), "ssl_key": str(key)})
    ) as server:
        yield server


def ask(driver: str, settings: DatabaseSettings, query: str = "SELECT 1") -> object:
    """Connect with a factory of the driver's half, and ask."""

    async def awaited() -> object:
        async with AsyncSqlAlchemySessionFactory(settings) as factory, factory() as session:
            return (await session.execute(text(query))).one()[-1]

    if driver in {"asyncpg", "async psycopg", "aiomysql"}:
        return asyncio.run(awaited())
    with SqlAlchemySessionFactory(settings) as factory, factory() as session:
        return session.execute(text(query)).one()[-1]


def through(server: PostgresServer, driver: str, port: int) -> URL:
    return make_url(server.url).set(
        drivername=f"postgresql+{driver.removeprefix('async ')}", port=port
    )


@pytest.mark.parametrize("driver", POSTGRES)
def test_require(driver: str, postgres_server: PostgresServer) -> None:
    """``require`` speaks TLS with whoever is there; the proxy turns others away."""
    with before(make_url(postgres_server.url), "elsewhere.example.org") as port:
        url = through(postgres_server, driver, port)
        assert ask(driver, DatabaseSettings(url, tls="require")) == 1


@pytest.mark.parametrize("driver", POSTGRES)
def test_verify(driver: str, ca_file: Path, postgres_server: PostgresServer) -> None:
    """``verify`` asks the authorities of the URL, and the certificate for the name."""
    upstream = make_url(postgres_server.url)
    with before(upstream) as port, before(upstream, "elsewhere.example.org") as other:
        query = {"sslrootcert": str(ca_file)}
        url = through(postgres_server, driver, port).update_query_dict(query)
        assert ask(driver, DatabaseSettings(url, tls="verify")) == 1
        with pytest.raises(Exception, match=r"(?i)certificate"):
            ask(driver, DatabaseSettings(url.set(port=other), tls="verify"))
        with pytest.raises(Exception, match=r"(?i)certificate"):  # of an unknown authority
            ask(driver, DatabaseSettings(through(postgres_server, driver, port), tls="verify"))


@pytest.mark.parametrize("driver", POSTGRES)
def test_the_urls_own_word_wins(driver: str, postgres_server: PostgresServer) -> None:
    """``sslmode`` in the URL is obeyed, whatever the setting says."""
    url = make_url(postgres_server.url).set(
        drivername=f"postgresql+{driver.removeprefix('async ')}"
    )
    settings = DatabaseSettings(url.update_query_dict({"sslmode": "disable"}), tls="verify")
    assert ask(driver, settings) == 1


# aiomysql leaves the socket of a connection that failed to the garbage collector, and drops why.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", MARIADB)
def test_mariadb(driver: str, ca_file: Path, mariadb: MariaDBServer) -> None:
    """MariaDB's drivers speak it, too, and verify."""
    url = make_url(mariadb.url).set(drivername=f"mysql+{driver}")
    cipher = "SHOW STATUS LIKE 'Ssl_cipher'"
    assert ask(driver, DatabaseSettings(url, tls="require"), cipher)
    known = url.update_query_dict({"ssl_ca": str(ca_file)})
    assert ask(driver, DatabaseSettings(known, tls="verify"), cipher)
    with pytest.raises(OperationalError, match=r"(?i)certificate|Can't connect"):
        ask(driver, DatabaseSettings(url, tls="verify"))
    gc.collect()


def test_libpq_is_told_of_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Libpq's own file is used if it is there, then the system's, then what libpq calls so."""
    settings = DatabaseSettings("postgresql://db/shop", tls="verify")
    monkeypatch.setenv("HOME", str(tmp_path))
    system = tmp_path / "system.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: Paths(str(system)))
    told = tls.connect_arguments(settings, settings.url.set(drivername="postgresql+psycopg"))
    assert told == {"sslmode": "verify-full", "sslrootcert": "system"}
    system.touch()
    told = tls.connect_arguments(settings, settings.url.set(drivername="postgresql+psycopg"))
    assert told == {"sslmode": "verify-full", "sslrootcert": str(system)}
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql/root.crt").touch()
    told = tls.connect_arguments(settings, settings.url.set(drivername="postgresql+psycopg"))
    assert told == {"sslmode": "verify-full"}


class Paths:
    """Where this system's authorities are."""

    openssl_cafile = ""

    def __init__(self, file: str) -> None:
        self.cafile = file


def test_other_drivers() -> None:
    """Mysqlclient has words of its own; where there are none, the setting is refused."""
    settings = DatabaseSettings("mysql://db/shop", tls="verify")
    url = settings.url.set(drivername="mysql+mysqldb")
    assert tls.connect_arguments(settings, url) == {"ssl_mode": "VERIFY_IDENTITY"}
    with pytest.raises(SettingsError, match="tls: not supported by the driver 'pysqlite'"):
        SqlAlchemySessionFactory(DatabaseSettings("sqlite://", tls="require"))


def test_authorities_that_cannot_be_read() -> None:
    """A file of authorities that is not there is told of when the factory is made."""
    settings = DatabaseSettings("mysql+pymysql://db/shop?ssl_ca=/no/such.pem", tls="verify")
    with pytest.raises(SettingsError, match="authorities that the URL names cannot be read: No"):
        SqlAlchemySessionFactory(settings)


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "db", "127.0.0.1", "10.1.2.3", "[::1]", "db.internal", "db.shop.svc"],
)
def test_no_warning_nearby(host: str) -> None:
    """A host that is local or private needs no encryption."""
    assert tls.risk_of(DatabaseSettings(f"postgresql://{host}/shop")) is None


@pytest.mark.parametrize("host", ["db.example.org", "8.8.8.8"])
def test_warning_far_away(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic to a public host that may be in the clear is warned of once, when it is used."""
    factory = SqlAlchemySessionFactory(DatabaseSettings(f"postgresql://{host}/shop"))
    with pytest.warns(SettingsWarning, match=rf"'default': the connection to {host} may not be"):
        factory.engine.dispose()
    factory.close()
    for url in (f"postgresql://{host}/shop?sslmode=prefer", "sqlite://"):
        assert tls.risk_of(DatabaseSettings(url)) is None
    assert tls.risk_of(DatabaseSettings(f"postgresql://{host}/shop", tls="require")) is None
    monkeypatch.setenv("PGSSLMODE", "require")
    assert tls.risk_of(DatabaseSettings(f"postgresql://{host}/shop")) is None
