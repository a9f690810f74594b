"""TLS in the same words for every driver, against servers that speak it."""

from __future__ import annotations

import asyncio
import gc
import ssl
from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SettingsError,
    SettingsWarning,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import tls
from sessionfactory.testing import MariaDBServer
from tests.support.available import MARIADB_LIMITS, running_or_skipped
from tests.support.tls import authority, before

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import URL

    from sessionfactory.testing import PostgresServer

POSTGRES = ("psycopg", "psycopg2", "pg8000", "asyncpg", "async psycopg")
MARIADB = ("pymysql", "aiomysql", "asyncmy", "mysqlconnector")


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
    settings: dict[str, str | int | bool] = {"ssl_cert": str(chain), "ssl_key": str(key)}
    settings |= MARIADB_LIMITS
    with running_or_skipped(MariaDBServer(settings=settings)) as server:
        yield server


def ask(driver: str, settings: DatabaseSettings, query: str = "SELECT 1") -> object:
    """Connect with a factory of the driver's half, and ask."""

    async def awaited() -> object:
        async with AsyncSqlAlchemySessionFactory(settings) as factory, factory() as session:
            return (await session.execute(text(query))).one()[-1]

    if driver in {"asyncpg", "async psycopg", "aiomysql", "asyncmy"}:
        return asyncio.run(awaited())
    with SqlAlchemySessionFactory(settings) as factory, factory() as session:
        return session.execute(text(query)).one()[-1]


def through(server: PostgresServer, driver: str, port: int) -> URL:
    return make_url(server.url_for(driver.removeprefix("async "))).set(port=port)


@pytest.mark.parametrize("driver", POSTGRES)
def test_require(driver: str, postgres_server: PostgresServer) -> None:
    """``require`` speaks TLS with any server; the proxy refuses plaintext."""
    with before(make_url(postgres_server.url), "elsewhere.example.org") as port:
        url = through(postgres_server, driver, port)
        assert ask(driver, DatabaseSettings(url, tls="require")) == 1


@pytest.mark.parametrize("driver", POSTGRES)
def test_verify(driver: str, ca_file: Path, postgres_server: PostgresServer) -> None:
    """``verify`` checks the certificate by the authorities of the URL, and for the name."""
    upstream = make_url(postgres_server.url)
    with before(upstream) as port, before(upstream, "elsewhere.example.org") as other:
        query = {"sslrootcert": str(ca_file)}
        url = through(postgres_server, driver, port).update_query_dict(query)
        assert ask(driver, DatabaseSettings(url, tls="verify")) == 1
        with pytest.raises(Exception, match=r"(?i)certificate"):
            ask(driver, DatabaseSettings(url.set(port=other), tls="verify"))
        with pytest.raises(Exception, match=r"(?i)certificate"):  # of an unknown authority
            ask(driver, DatabaseSettings(through(postgres_server, driver, port), tls="verify"))


WEAKER = (
    ("postgresql+psycopg", {"sslmode": "disable"}, "require"),
    ("postgresql+psycopg2", {"sslmode": "prefer"}, "require"),
    ("postgresql+psycopg", {"sslmode": "require"}, "verify"),
    ("postgresql+psycopg2", {"sslmode": "verify-ca"}, "verify"),
    ("postgresql+asyncpg", {"ssl": "allow"}, "require"),
    ("mysql+mysqlconnector", {"ssl_disabled": "true"}, "require"),
)


@pytest.mark.parametrize(("drivername", "words", "promised"), WEAKER)
@pytest.mark.parametrize("where", ["url", "connect_args"])
def test_weaker_words(
    drivername: str, words: dict[str, str], promised: Literal["require", "verify"], where: str
) -> None:
    """Words of the driver's own that promise less than the setting are refused with their name."""
    url = make_url(f"{drivername}://db/shop")
    options = {}
    if where == "url":
        url = url.update_query_dict(words)
    else:
        options = {"connect_args": words}
    settings = DatabaseSettings(url, tls=promised, engine_options=options)
    make = AsyncSqlAlchemySessionFactory if "asyncpg" in drivername else SqlAlchemySessionFactory
    [(key, word)] = words.items()
    with pytest.raises(SettingsError, match=rf"tls: promises more than {key}={word}"):
        make(settings)


def test_words_that_promise_as_much() -> None:
    """Words of the driver's own that promise what the setting does are left as they are."""
    settings = DatabaseSettings("postgresql://db/shop?sslmode=verify-full", tls="verify")
    url = settings.url.set(drivername="postgresql+psycopg")
    assert tls.connect_arguments(settings, url, {}) == {}
    context = ssl.create_default_context()
    assert tls.connect_arguments(settings, settings.url, {"ssl_context": context}) == {}


PLAIN_MARIADB = ("pymysql", "mysqlconnector", "aiomysql", "asyncmy")


@pytest.fixture(scope="module")
def plain_mariadb() -> Generator[MariaDBServer]:
    """A MariaDB without TLS, or what an attacker between makes of one."""
    settings = {"skip_ssl": True, **MARIADB_LIMITS}
    with running_or_skipped(MariaDBServer(settings=settings)) as server:
        yield server


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", PLAIN_MARIADB)
@pytest.mark.parametrize("promised", ["require", "verify"])
def test_plaintext_on_mariadb(
    driver: str, promised: Literal["require", "verify"], plain_mariadb: MariaDBServer
) -> None:
    """No session is opened on a connection in plaintext, whatever the driver makes of it."""
    with pytest.raises(Exception, match=r"(?i)ssl|tls|not encrypted"):
        ask(driver, DatabaseSettings(plain_mariadb.url_for(driver), tls=promised))
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", POSTGRES)
@pytest.mark.parametrize("promised", ["require", "verify"])
def test_plaintext_on_postgresql(
    driver: str, promised: Literal["require", "verify"], postgres_server: PostgresServer
) -> None:
    """The same on PostgreSQL's drivers; the throwaway server has no TLS."""
    url = postgres_server.url_for(driver.removeprefix("async "))
    with pytest.raises(Exception, match=r"(?i)ssl|tls|not encrypted"):
        ask(driver, DatabaseSettings(url, tls=promised))
    gc.collect()


def test_a_driver_that_goes_on_in_plaintext(postgres_server: PostgresServer) -> None:
    """The connection itself is looked at: a driver that ignores what it was asked is found out."""
    settings = DatabaseSettings(postgres_server.url, tls="require")
    with SqlAlchemySessionFactory(settings) as factory:

        @event.listens_for(factory.engine, "do_connect")
        def ignore(
            _: object, _record: object, _arguments: object, keywords: dict[str, str]
        ) -> None:
            keywords["sslmode"] = "disable"

        with pytest.raises(SettingsError, match="tls: the connection is not encrypted"):
            factory().connection()
        assert factory.ping().state == "refused"


def test_a_driver_that_does_not_verify(ca_file: Path, postgres_server: PostgresServer) -> None:
    """So is one that encrypts, and does not check who the server is."""
    upstream = make_url(postgres_server.url)
    with before(upstream, "127.0.0.1") as port:
        url = through(postgres_server, "psycopg", port)
        settings = DatabaseSettings(
            url.update_query_dict({"sslrootcert": str(ca_file)}), tls="verify"
        )
        with SqlAlchemySessionFactory(settings) as factory:

            @event.listens_for(factory.engine, "do_connect")
            def weaken(
                _: object, _record: object, _arguments: object, keywords: dict[str, str]
            ) -> None:
                keywords["sslmode"] = "require"

            with pytest.raises(SettingsError, match=r"tls: .* the driver did not verify"):
                factory().connection()


def test_a_socket_file_needs_no_encryption(postgres_server: PostgresServer) -> None:
    """What does not leave the machine is not refused."""
    assert ask("psycopg", DatabaseSettings(postgres_server.socket_url, tls="require")) == 1


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
    with pytest.raises(DBAPIError, match=r"(?i)certificate|Can't connect"):
        ask(driver, DatabaseSettings(url, tls="verify"))
    gc.collect()


def test_libpq_is_told_of_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Libpq's own file is used if it is there, then the system's, then what libpq calls so."""
    settings = DatabaseSettings("postgresql://db/shop", tls="verify")
    monkeypatch.setenv("HOME", str(tmp_path))
    system = tmp_path / "system.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: Paths(str(system)))
    told = tls.connect_arguments(settings, settings.url.set(drivername="postgresql+psycopg"), {})
    assert told == {"sslmode": "verify-full", "sslrootcert": "system"}
    system.touch()
    told = tls.connect_arguments(settings, settings.url.set(drivername="postgresql+psycopg"), {})
    assert told == {"sslmode": "verify-full", "sslrootcert": str(system)}
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql/root.crt").touch()
    told = tls.connect_arguments(settings, settings.url.set(drivername="postgresql+psycopg"), {})
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
    assert tls.connect_arguments(settings, url, {}) == {"ssl_mode": "VERIFY_IDENTITY"}
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


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("", {"sslmode": "require"}),
        ("", {"sslmode": "prefer"}),
        ("", {"ssl": ssl.create_default_context()}),
        ("", {"dsn": "service=shop"}),
        ("sslrootcert=/ca.pem", {}),
        ("service=shop", {}),
    ],
)
def test_no_false_alarm(query: str, arguments: dict[str, object]) -> None:
    """Where any word about encryption is given, there is no warning."""
    url = f"postgresql://db.example.org/shop?{query}"
    settings = DatabaseSettings(url, engine_options={"connect_args": arguments})
    assert tls.risk_of(settings) is None
    plain = DatabaseSettings("postgresql://db.example.org/shop?application_name=shop")
    assert tls.risk_of(plain) is not None


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://db.example.org/shop?ssl_ca=/ca.pem",
        "mysql+pymysql://db.example.org/shop?ssl-mode=REQUIRED",
        "mssql+pyodbc://db.example.org/shop?driver=x&Encrypt=yes",
    ],
)
def test_no_false_alarm_about_others(url: str) -> None:
    """The same in the words of other drivers."""
    assert tls.risk_of(DatabaseSettings(url)) is None
