"""Secrets reach the driver, and nothing else: not the engine, not a log, not a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import event

from sessionfactory.masking import with_secrets

if TYPE_CHECKING:
    from sqlalchemy import Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from sessionfactory.settings import DatabaseSettings


def hand_over(engine: Engine, settings: DatabaseSettings) -> None:
    """Have an engine whose URL has no secrets connect with those of the settings."""
    if settings.password is None and not settings.url_secrets:
        return

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: Dialect,
        _record: ConnectionPoolEntry | None,
        arguments: list[object],
        keywords: dict[str, object],
    ) -> DBAPIConnection:
        outcome = _connect(dialect, engine, settings, arguments, keywords)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _connect(
    dialect: Dialect,
    engine: Engine,
    settings: DatabaseSettings,
    arguments: list[object],
    keywords: dict[str, object],
) -> DBAPIConnection | BaseException:
    """Connect, or return the error without the frames that saw the password.

    Error trackers, ``pytest -l`` and rich print the local variables of every frame of a traceback,
    and the drivers' frames hold what they were called with.
    """
    try:
        private = with_secrets(engine.url, settings.password, settings.url_secrets)
        open_args, open_kwargs = dialect.create_connect_args(engine.url)
        full_args, full_kwargs = dialect.create_connect_args(private)
        added = {
            key: full_kwargs[key] for key in full_kwargs if full_kwargs[key] != open_kwargs.get(key)
        }
        # A dialect that connects by one string (ODBC) carries the password in it.
        chosen = arguments if full_args == open_args else full_args
        return dialect.connect(*chosen, **{**keywords, **added})
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
        pending += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            pending += cast("BaseExceptionGroup[BaseException]", link).exceptions
