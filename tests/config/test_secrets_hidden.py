"""A password is in no captured local: where error trackers and ``pytest -l`` print tracebacks.

Each test raises an error that a user would report, and looks for the canary in the message, the
arguments and the local variables of every frame, in the whole chain. Frames of this file, which
gives the password, do not count.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import traceback
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from attrs import asdict
from sqlalchemy import create_engine, make_url, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SessionFactoryRegistry,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from sessionfactory.testing import PostgresServer

CANARY = "canary-4711"
SYNC_DRIVERS = ["psycopg", "psycopg2"]
DRIVERS = [*SYNC_DRIVERS, "asyncpg"]
_SSL_REQUEST = 80877103


def _leaks(error: BaseException) -> list[str]:
    """Return where in an error, and in those behind it, the canary stands."""
    found: list[str] = []
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        pending += [link.__cause__, link.__context__]
        pending += getattr(link, "exceptions", ())
        if CANARY in f"{link} {link!r} {link.args!r} {getattr(link, '__notes__', ())!r}":
            found.append(f"the message of {type(link).__name__}")
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            if frame.filename != __file__:
                found += [
                    f"{frame.filename}:{frame.lineno} {name}"
                    for name, shown in (frame.locals or {}).items()
                    if CANARY in shown
                ]
    return found


def _error_of(use: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind; each driver has its own
        use()
    return caught.value


def _use(driver: str, settings: DatabaseSettings, asked: str = "1") -> None:
    """Connect and ask something, with a factory of the driver's half."""
    statement = text(f"SELECT {asked}")
    if driver in SYNC_DRIVERS:
        with SqlAlchemySessionFactory(settings) as sessions, sessions.begin() as session:
            assert CANARY not in repr(sessions)
            session.execute(statement)
        return

    async def use() -> None:
        async with AsyncSqlAlchemySessionFactory(settings) as sessions, sessions.begin() as session:
            assert CANARY not in repr(sessions)
            await session.execute(statement)

    asyncio.run(use())


def _url(driver: str, host: str, port: int) -> str:
    return f"postgresql+{driver}://ada:{CANARY}@{host}:{port}/app"


def _receive(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def _refuse(client: socket.socket) -> None:
    """Answer as PostgreSQL answers a wrong password."""
    while head := _receive(client, 8):
        length, code = struct.unpack("!ii", head)
        _receive(client, length - 8)
        if code != _SSL_REQUEST:
            break
        client.sendall(b"N")
    fields = {
        b"S": b"FATAL",
        b"V": b"FATAL",
        b"C": b"28P01",
        b"M": b'password authentication failed for user "ada"',
    }
    body = b"".join(key + value + b"\0" for key, value in fields.items()) + b"\0"
    client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)


def _hang_up(client: socket.socket) -> None:
    """Say nothing."""


def _ask_for_password(client: socket.socket) -> None:
    """Ask for the password in clear text, as PostgreSQL may, read it, and hang up."""
    while head := _receive(client, 8):
        length, code = struct.unpack("!ii", head)
        _receive(client, length - 8)
        if code != _SSL_REQUEST:
            client.sendall(b"R" + struct.pack("!ii", 8, 3))
            client.recv(1024)
            return
        client.sendall(b"N")


@contextmanager
def _server(answer: Callable[[socket.socket], None]) -> Generator[int]:
    """Run a server that gives every client this answer, and yield its port."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                try:
                    answer(client)
                except OSError:
                    continue  # the client went first

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port: int = listener.getsockname()[1]
        yield port
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture(params=["refused", "no such host", "wrong password", "hung up", "asked", "deaf"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Give an address where connecting fails, in the ways in which it does."""
    answers = {"wrong password": _refuse, "hung up": _hang_up, "asked": _ask_for_password}
    if request.param == "refused":
        yield "127.0.0.1", 1
    elif request.param == "no such host":
        yield "nohost.invalid", 5432
    elif request.param == "deaf":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield "127.0.0.1", listener.getsockname()[1]
    else:
        with _server(answers[request.param]) as port:
            yield "127.0.0.1", port


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_failed_connect_shows_no_password(
    driver: str, address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """No text about a failed connect holds the password, whatever the driver and the failure."""
    caplog.set_level("DEBUG")
    settings = DatabaseSettings(
        _url(driver, *address), echo=True, pool=PoolSettings(timeout=0.2), connect_timeout=2
    )
    error = _error_of(lambda: _use(driver, settings))
    assert not isinstance(error, SettingsError)
    assert _leaks(error) == []
    assert CANARY not in f"{settings!r} {settings} {asdict(settings)} {caplog.text}"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_lost_connection_shows_no_password(
    driver: str, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does an error about a connection that was there, and was ended in use."""
    caplog.set_level("DEBUG")
    postgres_server.execute(f"CREATE ROLE ada LOGIN PASSWORD '{CANARY}'")
    url = make_url(postgres_server.url_for(driver)).set(username="ada", password=CANARY)
    try:
        settings = DatabaseSettings(url, echo=True)
        error = _error_of(lambda: _use(driver, settings, "pg_terminate_backend(pg_backend_pid())"))
    finally:
        postgres_server.execute("DROP ROLE ada")
    assert _leaks(error) == []
    assert CANARY not in caplog.text


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_a_wrong_password_is_still_told(driver: str) -> None:
    """The error states that the server refused the password."""
    with _server(_refuse) as port:
        settings = DatabaseSettings(_url(driver, "127.0.0.1", port))
        error = _error_of(lambda: _use(driver, settings))
        with SqlAlchemySessionFactory(settings) as sessions:
            health = sessions.ping()
    assert "password authentication failed" in str(error)
    assert health.state == "refused"
    assert CANARY not in repr(health)


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_a_secret_of_the_query_is_not_shown_either(driver: str) -> None:
    """The password of a TLS key reaches the driver, and no frame of its error."""
    url = f"postgresql+{driver}://ada@127.0.0.1:1/app?sslpassword={CANARY}"
    error = _error_of(lambda: _use(driver, DatabaseSettings(url)))
    assert _leaks(error) == []


def test_the_driver_gets_the_password() -> None:
    """The password that no text shows is the one that the server receives."""
    received: list[bytes] = []

    def answer(client: socket.socket) -> None:
        while head := _receive(client, 8):
            length, code = struct.unpack("!ii", head)
            _receive(client, length - 8)
            if code != _SSL_REQUEST:
                client.sendall(b"R" + struct.pack("!ii", 8, 3))
                received.append(client.recv(1024))
                return
            client.sendall(b"N")

    for driver in DRIVERS:
        with _server(answer) as port:
            settings = DatabaseSettings(_url(driver, "127.0.0.1", port))
            _error_of(partial(_use, driver, settings))
    assert len(received) >= len(DRIVERS)
    assert all(CANARY.encode() in message for message in received)


def test_the_detector_finds_what_sqlalchemy_shows() -> None:
    """SQLAlchemy alone has the password in the frames of a failed connect: the detector works."""
    for driver in SYNC_DRIVERS:
        engine = create_engine(_url(driver, "127.0.0.1", 1))
        assert _leaks(_error_of(engine.connect))


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": CANARY},
        {"DATABASE_URL": f"postgresql://ada:{CANARY}@db:x/app", "DATABASE_ECHO": "maybe"},
        {"DATABASE_URL": f"postgresql://ada:{CANARY}@db/app", "DATABASE_POOL_SIZE": "ten"},
        {"DATABASE_URL": "postgresql://ada@db/app", "DATABASE_PASSWORD": CANARY, "DATABASE_TLS": ""}
        | {"DATABASE_POOL_SIZE": "0"},
        {"DATABASE_URL": "postgresql://ada:x@db/app", "DATABASE_PASSWORD": CANARY},
        {"DATABASE_PASSWORD": CANARY},
        {"DATABASE_URL": "postgresql://db/app", "DATABASE_REPLICAS": f"postgresql://a:{CANARY}@b"},
        {"DATABASE_URL": "x", "DATABASE_REPLICAS": f"postgresql://b/app?password={CANARY}"},
        {"DATABASE_URL": "sqlite://", "DATABASE_URL_FILE": CANARY},
        {"DATABASE_URL_FILE": f"postgresql://ada:{CANARY}@db/app"},
        {"DATABASE_TLS": CANARY, "DATABASE_URL": "sqlite://"},
        {"UNRELATED": CANARY, "DATABASE_URL": "nonsense"},
    ],
)
def test_a_refused_environment_is_in_no_local(environ: dict[str, str], tmp_path: Path) -> None:
    """Neither the frames that read an environment nor those that refuse it hold its values."""
    file = tmp_path / "sessionfactory.toml"
    file.write_text("[databases.default]\nlock_timeout = 5\n", encoding="utf-8")
    from_env, from_toml = SessionFactoryRegistry.from_env, SessionFactoryRegistry.from_toml
    assert _leaks(_error_of(lambda: from_env(environ))) == []
    assert _leaks(_error_of(lambda: from_toml(file, environ=environ))) == []


@pytest.mark.parametrize(
    "text",
    [
        f"url = 'postgresql://ada:{CANARY}@db/app'\npool.size = 'ten'",
        f"url = 'postgresql://ada@db/app'\npassword = '{CANARY}'\necho = 'maybe'",
        f"url = 'nonsense'\nreplicas = ['postgresql://ada:{CANARY}@one:x/app']",
        f"url = 'nonsense'\nreplicas = ['postgresql://ada@one/app?password={CANARY}']",
        f"url = 'nonsense'\nurl_secrets = {{ sslpassword = '{CANARY}' }}",
        f"url = 'sqlite://'\nengine_options.connect_args.password = '{CANARY}'",
    ],
)
def test_a_refused_file_is_in_no_local(text: str, tmp_path: Path) -> None:
    """Neither the frames that read a file nor those that refuse it hold its secrets."""
    file = tmp_path / "sessionfactory.toml"
    file.write_text(f"[databases.default]\n{text}\n", encoding="utf-8")
    assert _leaks(_error_of(lambda: SessionFactoryRegistry.from_toml(file))) == []


@pytest.mark.parametrize(
    "table",
    [
        {"url": f"postgresql://ada:{CANARY}@db/app", "pool": 5},
        {"url": "postgresql://ada@db/app", "password": CANARY, "poolsize": 5},
        {"url": "nonsense", "password": [CANARY]},
        {"url": CANARY},
    ],
)
def test_a_refused_mapping_is_in_no_local(table: dict[str, Any]) -> None:
    """Neither the frames that read a mapping nor those that refuse it hold its secrets."""
    from_mapping = SessionFactoryRegistry.from_mapping
    assert _leaks(_error_of(lambda: from_mapping({"default": table}))) == []


def test_a_driver_that_does_not_exist_leaks_nothing() -> None:
    """The error of a registry that cannot build a factory holds no password in any frame."""
    url = f"postgresql+nonsense://ada:{CANARY}@db/app"
    registry = SessionFactoryRegistry.from_env({"DATABASE_URL": url})
    assert _leaks(_error_of(registry.get)) == []
