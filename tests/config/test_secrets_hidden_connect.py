"""More places where a password might stand: errors of drivers, and constructors that refuse it."""

from __future__ import annotations

from traceback import TracebackException

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from sessionfactory import DatabaseSettings, SettingsError, SqlAlchemySessionFactory

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
