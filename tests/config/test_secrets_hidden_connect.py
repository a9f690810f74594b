"""More places where a password might stand: errors of drivers, and constructors that refuse it."""

from __future__ import annotations

import asyncio
from traceback import TracebackException
from typing import Literal

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)

CANARY = "canary-4711"


def test_password_that_a_driver_cannot_send() -> None:
    """A password that the driver cannot encode is a fault, whose text and locals do not hold it."""
    settings = DatabaseSettings("mysql+pymysql://u@127.0.0.1:1/d", password=f"{CANARY}€")
    with (
        SqlAlchemySessionFactory(settings) as factory,
        pytest.raises(SettingsError, match="password: holds a character") as caught,
    ):
        factory.engine.connect()
    shown = "".join(TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert CANARY not in shown


def test_driver_error_does_not_hold_the_password() -> None:
    """Psycopg's error would hold the connection that failed, and that the password."""
    settings = DatabaseSettings("postgresql://u@127.0.0.1:1/d", password=CANARY)
    with SqlAlchemySessionFactory(settings) as factory, pytest.raises(OperationalError) as caught:
        factory.engine.connect()
    assert CANARY not in repr(vars(caught.value.orig))


@pytest.mark.parametrize("password", [f"{CANARY}@", CANARY])
def test_refused_settings_do_not_hold_the_password(password: str) -> None:
    """A constructor that refuses a URL has it in no variable of its frames."""
    urls = [f"postgresql://u:{password}@h/d"]
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings(urls[0], connect_timeout="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trace = TracebackException.from_exception(caught.value, capture_locals=True)
    inside = [frame for frame in trace.stack if "sessionfactory" in frame.filename.split("/")]
    assert all(CANARY not in repr(frame.locals) for frame in inside)


def test_listeners_of_the_user_are_asked() -> None:
    """A listener to do_connect runs though we have a password to add, and what it says wins."""
    seen: list[str] = []

    def token(_dialect: object, _record: object, _args: object, keywords: dict[str, str]) -> None:
        seen.append(str("password" in keywords))
        keywords["connect_timeout"] = "2"

    settings = DatabaseSettings("postgresql://u@127.0.0.1:1/d", password=CANARY)
    with SqlAlchemySessionFactory(settings) as factory:
        event.listen(factory.engine, "do_connect", token)
        with pytest.raises(OperationalError):
            factory.engine.connect()
    assert seen == ["False"]


def shown_by(error: BaseException) -> str:
    """Return all that a traceback with the variables of its frames shows of an error of ours."""
    trace = TracebackException.from_exception(error, capture_locals=True)
    seen: list[str] = []
    pending: list[TracebackException | None] = [trace]
    while pending:
        found = pending.pop()
        if found is None:
            continue
        seen += [repr(frame.locals) for frame in found.stack if "/tests/" not in frame.filename]
        seen += found.format_exception_only()
        pending += [found.__cause__, found.__context__]
    return "\n".join(seen)


def give_password(_: object, _record: object, _args: object, keywords: dict[str, str]) -> None:
    """A listener that adds a token, as SQLAlchemy's documentation has it."""
    keywords["password"] = CANARY


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
@pytest.mark.parametrize("kind", ["fair", "none"])
def test_a_listeners_password(driver: str, kind: Literal["fair", "none"]) -> None:
    """No frame of a failed connect shows a password that a listener gave."""
    settings = DatabaseSettings(
        f"postgresql+{driver}://u@127.0.0.1:1/d", pool=PoolSettings(kind=kind)
    )
    with SqlAlchemySessionFactory(settings) as factory:
        event.listen(factory.engine, "do_connect", give_password)
        with pytest.raises(DBAPIError) as caught:
            factory.engine.connect()
    assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_listeners_password_in_the_async_half(driver: str) -> None:
    """The same in the async half, whose errors of the network are not SQLAlchemy's."""

    async def connect() -> BaseException:
        settings = DatabaseSettings(f"postgresql+{driver}://u@127.0.0.1:1/d")
        async with AsyncSqlAlchemySessionFactory(settings) as factory:
            event.listen(factory.engine.sync_engine, "do_connect", give_password)
            with pytest.raises((DBAPIError, OSError)) as caught:
                await factory.engine.connect()
            return caught.value

    assert CANARY not in shown_by(asyncio.run(connect()))


@pytest.mark.parametrize("name", ["dsn", "conninfo"])
def test_a_password_in_connect_args(name: str) -> None:
    """Nor one that stands in a text of the driver's."""
    driver = {"dsn": "psycopg2", "conninfo": "psycopg"}[name]
    text = f"postgresql://u:{CANARY}@127.0.0.1:1/d"
    settings = DatabaseSettings(
        f"postgresql+{driver}://u@/d", engine_options={"connect_args": {name: text}}
    )
    with SqlAlchemySessionFactory(settings) as factory, pytest.raises(DBAPIError) as caught:
        factory.engine.connect()
    assert CANARY not in shown_by(caught.value)


def test_a_listeners_own_error() -> None:
    """An error of the listener's own has no frames that show arguments, but a note of its place."""

    def fail(*_: object) -> None:
        raise LookupError("no token")

    settings = DatabaseSettings("postgresql://u@127.0.0.1:1/d", password=CANARY)
    with SqlAlchemySessionFactory(settings) as factory:
        event.listen(factory.engine, "do_connect", fail)
        with pytest.raises(LookupError, match="no token") as caught:
            factory.engine.connect()
    [note] = caught.value.__notes__
    assert "test_secrets_hidden_connect.py" in note
    assert CANARY not in shown_by(caught.value)


def test_a_function_that_returns_bytes() -> None:
    """A password of the wrong type is not shown by the error about it."""
    settings = DatabaseSettings("postgresql://u@127.0.0.1:1/d", password=CANARY.encode)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with (
        SqlAlchemySessionFactory(settings) as factory,
        pytest.raises(TypeError, match="returned bytes") as caught,
    ):
        factory.engine.connect()
    assert CANARY not in shown_by(caught.value)
