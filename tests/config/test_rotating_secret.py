"""Passwords that change while the program runs."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    RotatingSecret,
    SessionFactoryRegistry,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from sqlalchemy import URL

    from sessionfactory.testing import MariaDBServer, PostgresServer

    Role = tuple[URL, Callable[[str], None]]

NO_POOL = PoolSettings(kind="none")  # a connection for each checkout


@pytest.fixture
def role(postgres_server: PostgresServer) -> Generator[Role]:
    """The URL of a role, without its password, and a function that changes that."""
    url = make_url(postgres_server.url)
    with psycopg.connect(postgres_server.url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("CREATE ROLE rotating LOGIN")

        def change(password: str) -> None:
            statement = sql.SQL("ALTER ROLE rotating PASSWORD {}").format(sql.Literal(password))
            admin.execute(statement)

        yield bare(url.set(username="rotating")), change
        admin.execute("DROP ROLE rotating")


def ask(factory: SqlAlchemySessionFactory) -> object:
    with factory() as session:
        return session.scalar(text("SELECT current_user"))


def bare(url: URL) -> URL:
    """Return a URL without its password."""
    return url._replace(password=None)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_new_password_is_asked_for_once_more(driver: str, role: Role) -> None:
    """An answer is used again while it holds; turned down, it is asked for once more."""
    url, change = role
    asked: list[str] = []
    current = "first"

    def token() -> str:
        asked.append(current)
        return current

    change("first")
    settings = DatabaseSettings(
        url.set(drivername=f"postgresql+{driver}"), password=token, pool=NO_POOL
    )
    with SqlAlchemySessionFactory(settings) as factory:
        assert [ask(factory) for _ in range(3)] == ["rotating"] * 3
        assert asked == ["first"]
        current = "second"
        change("second")
        assert ask(factory) == "rotating"
        assert asked == ["first", "second"]
        change("a third, of which the function knows nothing")
        with pytest.raises(OperationalError, match="authentication failed"):
            ask(factory)
        assert asked == ["first", "second", "second"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_half(driver: str, role: Role) -> None:
    """A coroutine function is awaited, and a plain one called in a thread."""
    url, change = role
    url = url.set(drivername=f"postgresql+{driver}")
    change("first")
    current = "first"

    async def token() -> str:
        await asyncio.sleep(0)
        return current

    def plain() -> str:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return current

    async def use() -> None:
        nonlocal current
        for password in (token, plain):
            settings = DatabaseSettings(url, password=password, pool=NO_POOL)
            async with AsyncSqlAlchemySessionFactory(settings) as factory:
                for current in ("first", "second"):
                    change(current)
                    async with factory() as session:
                        assert await session.scalar(text("SELECT current_user")) == "rotating"

    asyncio.run(use())


def test_attempts_at_once_share_one_call(role: Role) -> None:
    """Threads that connect at the same time wait for one call of the function, not for one each."""
    url, change = role
    change("same")
    asked: list[None] = []
    everybody = threading.Barrier(6)

    def slow() -> str:
        asked.append(None)
        time.sleep(0.2)
        return "same"

    settings = DatabaseSettings(url, password=slow, pool=NO_POOL)
    with SqlAlchemySessionFactory(settings) as factory, ThreadPoolExecutor(6) as threads:

        def connect(_: int) -> object:
            everybody.wait(10)
            return ask(factory)

        assert [*threads.map(connect, range(6))] == ["rotating"] * 6
    assert len(asked) == 1


def test_every_attempt_survives_a_new_password(role: Role) -> None:
    """A password that changes fails none of the threads that used the old one at the same time."""
    url, change = role
    change("old")
    current = "old"
    everybody = threading.Barrier(6)
    settings = DatabaseSettings(url, password=lambda: current, pool=NO_POOL)
    with SqlAlchemySessionFactory(settings) as factory, ThreadPoolExecutor(6) as threads:
        ask(factory)
        change("new")
        current = "new"

        def connect(_: int) -> object:
            everybody.wait(10)
            return ask(factory)

        assert [*threads.map(connect, range(6))] == ["rotating"] * 6


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_tasks_share_one_call_and_survive_a_new_password(kind: str, role: Role) -> None:
    """Async twin of the two tests above, with a coroutine function and with a plain one."""
    url, change = role
    change("old")
    current = "old"
    asked: list[str] = []

    def plain() -> str:
        asked.append(current)
        time.sleep(0.2)
        return current

    async def token() -> str:
        asked.append(current)
        await asyncio.sleep(0.2)
        return current

    async def use() -> None:
        nonlocal current
        settings = DatabaseSettings(url, password=plain if kind == "plain" else token, pool=NO_POOL)
        async with AsyncSqlAlchemySessionFactory(settings) as factory:

            async def connect() -> object:
                async with factory() as session:
                    return await session.scalar(text("SELECT current_user"))

            for current in ("old", "new"):
                change(current)
                async with asyncio.TaskGroup() as tasks:
                    connecting = [tasks.create_task(connect()) for _ in range(6)]
                assert [task.result() for task in connecting] == ["rotating"] * 6

    asyncio.run(use())
    assert asked[0] == "old"
    assert asked.count("old") == 1
    # An attempt that was refused while another one asked may take that answer for too old.
    assert 1 <= asked.count("new") <= 6


def test_answers_are_cached_for_the_stated_time(role: Role) -> None:
    """With ``cached_for=0`` every connection asks."""
    url, change = role
    change("same")
    asked: list[None] = []

    def token() -> str:
        asked.append(None)
        return "same"

    secret = RotatingSecret(token, cached_for=0)
    settings = DatabaseSettings(url, password=secret, pool=NO_POOL)
    with SqlAlchemySessionFactory(settings) as factory:
        for _ in range(3):
            ask(factory)
    assert len(asked) == 3


def test_mounted_file_is_read_again(role: Role, tmp_path: Path) -> None:
    """``DATABASE_PASSWORD_FILE`` is read whenever a connection is opened."""
    url, change = role
    file = tmp_path / "password"
    environ = {
        "DATABASE_URL": url.render_as_string(),
        "DATABASE_PASSWORD_FILE": str(file),
        "DATABASE_POOL_KIND": "none",
    }
    file.write_text("first\n")
    with SessionFactoryRegistry.from_env(environ) as registry:
        factory = cast("SqlAlchemySessionFactory", registry.get())
        for password in ("first", "second"):
            file.write_text(f"{password}\n")
            change(password)
            assert ask(factory) == "rotating"
        file.unlink()
        with pytest.raises(SettingsError, match=r"password .*: the file cannot be read"):
            ask(factory)


def test_mariadb(mariadb_server: MariaDBServer) -> None:
    """MariaDB's refusal is known, too."""
    mariadb_server.execute("CREATE OR REPLACE USER rotating IDENTIFIED BY 'second'")
    mariadb_server.execute("GRANT ALL ON test.* TO rotating")
    answers = iter(["first", "second"])
    url = bare(make_url(mariadb_server.url)).set(username="rotating")
    settings = DatabaseSettings(url, password=lambda: next(answers))
    with SqlAlchemySessionFactory(settings) as factory:
        assert str(ask(factory)).startswith("rotating@")
    mariadb_server.execute("DROP USER rotating")


def test_function_that_returns_no_text() -> None:
    """What is no text is told as such, by its kind only."""
    secret = RotatingSecret(cast("Callable[[], str]", lambda: b"token-4711"))
    with pytest.raises(TypeError, match="the function of the password returned bytes, not text"):
        secret.reveal()


def test_coroutine_function_in_the_sync_half() -> None:
    """The sync half cannot await, and says so when the factory is made."""

    async def token() -> str:
        raise NotImplementedError

    settings = DatabaseSettings("postgresql://ada@db/shop", password=token)
    with pytest.raises(SettingsError, match="password: is a coroutine function, which only the"):
        SqlAlchemySessionFactory(settings)


def test_a_function_beside_a_password() -> None:
    """A URL's password beside a function is one of two."""
    with pytest.raises(SettingsError, match="is not the one in the URL"):
        DatabaseSettings("postgresql://ada:pw@db/shop", password=lambda: "pw")


def test_nothing_shows_it() -> None:
    """As with every secret; and it is itself only."""
    secret = RotatingSecret(lambda: "token-4711")
    assert secret
    assert secret.reveal() == "token-4711"
    assert "4711" not in f"{secret} {secret!r} {[secret]}"
    assert secret != RotatingSecret(lambda: "token-4711")
    assert copy.copy(secret) == secret
    assert len({secret, secret}) == 1
