"""Secrets reach the driver, and nothing else: not the engine, not a log, not a traceback."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from sessionfactory.engine import drivers
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.masking import with_secrets

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.settings import DatabaseSettings


def hand_over(engine: Engine, settings: DatabaseSettings) -> None:
    """Have an engine whose URL has no secrets connect with those of the settings."""
    if settings.password is None and not settings.url_secrets:
        return

    dialect, opened = engine.dialect, engine.dialect.connect

    def connect(*arguments: object, **keywords: object) -> DBAPIConnection:
        outcome = _connect(dialect, engine.url, settings, partial(opened, *arguments, **keywords))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    drivers.connect_through(dialect, connect)


def _connect(
    dialect: Dialect,
    url: URL,
    settings: DatabaseSettings,
    open_connection: partial[DBAPIConnection],
) -> DBAPIConnection | BaseException:
    """Connect, or return the error without the frames that saw the password.

    Error trackers, ``pytest -l`` and rich print the local variables of every frame of a traceback,
    and the drivers' frames hold what they were called with.
    """
    try:
        private = with_secrets(url, settings.password, settings.url_secrets)
        bare_args, bare = dialect.create_connect_args(url)
        full_args, full = dialect.create_connect_args(private)
        added = {key: full[key] for key in full if full[key] != bare.get(key)}
        # A dialect that connects by one string (ODBC) carries the password in it.
        arguments = open_connection.args if full_args == bare_args else full_args
        # What a listener of the user said wins: a token, perhaps.
        return open_connection.func(*arguments, **{**added, **open_connection.keywords})
    except UnicodeError:  # which quotes the password, and so does its repr
        return SettingsError([Fault("password", "holds a character that the driver cannot send")])
    except BaseException as error:  # noqa: BLE001 - it is raised again, one frame further out
        _drop_frames(error)
        return error


def _drop_frames(error: BaseException) -> None:
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = None
        drivers.forget_connection(link)
        pending += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            pending += cast("BaseExceptionGroup[BaseException]", link).exceptions
