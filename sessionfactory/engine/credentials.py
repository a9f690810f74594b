"""Secrets reach the driver, and nothing else: not the engine, not a log, not a traceback."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sessionfactory.clock import monotonic
from sessionfactory.config.masking import with_secrets
from sessionfactory.config.rotating_secret import Answer, RotatingSecret
from sessionfactory.drivers import connections, families, known
from sessionfactory.drivers.error_codes import classify
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.masking import Secret
    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.drivers.sqlalchemy_private import Connect
    from sessionfactory.pool.waiting import Waiting


def giving_secrets(
    dialect: Dialect, url: URL, settings: DatabaseSettings, waiting: Waiting, connect: Connect
) -> Connect:
    """Return a way to connect with the secrets of the settings, which the engine's URL lacks."""
    if settings.password is None and not settings.url_secrets:
        return connect
    rotating = settings.password if isinstance(settings.password, RotatingSecret) else None

    def connect_with_secrets(*arguments: object, **keywords: object) -> DBAPIConnection:
        attempt = partial(connect, *arguments, **keywords)
        password = settings.password
        if rotating is not None:
            password = rotating.fresh or waiting.refresh(rotating, rotating.last)
        outcome = _connect(dialect, url, settings, password, attempt)
        if rotating is not None and isinstance(password, Answer) and _is_refused(outcome):
            newer = _newer(rotating, password, waiting)
            if newer != password:
                outcome = _connect(dialect, url, settings, newer, attempt)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return connect_with_secrets


def refuse_coroutine(settings: DatabaseSettings, *, is_async: bool) -> None:
    """Refuse a password that only the async half can ask for.

    Raises:
        SettingsError: its function is a coroutine function, and this is the sync half.
    """
    password = settings.password
    if isinstance(password, RotatingSecret) and password.is_async and not is_async:
        problem = "is a coroutine function, which only the async half can call; give a plain one"
        raise SettingsError([Fault("password", problem)])


def refuse_missing_passphrase(settings: DatabaseSettings, url: URL) -> None:
    """Refuse an encrypted file without a passphrase, which some builds write in plaintext.

    Raises:
        SettingsError: the driver encrypts files, and there is no password.
    """
    if known.named(url.get_driver_name()).encrypts_files and settings.password is None:
        problem = "is the passphrase of the file, which would not be encrypted without one; give it"
        raise SettingsError([Fault("password", problem)])


def url_for_hooks(settings: DatabaseSettings, url: URL) -> URL:
    """Return the URL to make an engine from, whose dialect may read the password at once.

    SQLCipher's dialect takes the passphrase from the URL for its ``on_connect_url``, and not as an
    argument of ``connect``. The engine must not keep this URL: its ``url`` is ``url``.
    """
    if settings.password is None or not families.of_url(url).is_sqlite:
        return url
    private = with_secrets(url, settings.password, settings.url_secrets)
    dialect = url.get_dialect()()
    takes_argument = dialect.create_connect_args(private) != dialect.create_connect_args(url)
    return url if takes_argument else private


def renewals(settings: DatabaseSettings) -> list[Callable[[], None]]:
    """Return what to call in a forked child, so that no lock is left to a thread of its parent."""
    password = settings.password
    return [password.start_anew] if isinstance(password, RotatingSecret) else []


def _connect(
    dialect: Dialect,
    url: URL,
    settings: DatabaseSettings,
    password: Secret | None,
    open_connection: partial[DBAPIConnection],
) -> DBAPIConnection | BaseException:
    """Connect, or return the error without the frames that saw the password.

    Error trackers, ``pytest -l`` and rich print the local variables of every frame of a traceback,
    and the drivers' frames hold what they were called with.
    """
    try:
        private = with_secrets(url, password, settings.url_secrets)
        bare_args, bare = dialect.create_connect_args(url)
        full_args, full = dialect.create_connect_args(private)
        added = {key: full[key] for key in full if full[key] != bare.get(key)}
        # A dialect that connects by one string (ODBC) carries the password in it.
        arguments = open_connection.args if full_args == bare_args else full_args
        # What a listener of the user set wins: a token, perhaps.
        return open_connection.func(*arguments, **{**added, **open_connection.keywords})
    except UnicodeError:  # which quotes the password, and so does its repr
        return SettingsError([Fault("password", "holds a character that the driver cannot send")])
    except BaseException as error:  # noqa: BLE001 - it is raised again, one frame further out
        connections.forget_arguments(error)
        return error


def _is_refused(outcome: object) -> bool:
    """Return whether a database refused a password."""
    return isinstance(outcome, BaseException) and "wrong login" in classify(outcome).meanings


def _newer(rotating: RotatingSecret, refused: Answer, waiting: Waiting) -> Answer:
    """Return a password that was asked for after a database refused one.

    Another attempt may have asked meanwhile, or may be asking: its answer counts, unless the
    question is older than the refusal and brings the same password.
    """
    refused_at = monotonic()
    newer = waiting.refresh(rotating, refused)
    if newer == refused and newer.asked_at < refused_at:
        newer = waiting.refresh(rotating, newer)
    return newer
