"""Encryption on the way to the database: the same words for every driver, and a look at it."""

from __future__ import annotations

import ipaddress
import os
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sessionfactory.config.values import as_table
from sessionfactory.drivers import connections, families, known, libpq
from sessionfactory.errors import Fault, SettingsError, SettingsWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.drivers.sqlalchemy_private import Connect

_PRIVATE_SUFFIXES: Final = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".svc")
_STRENGTHS: Final = {
    **dict.fromkeys(("disable", "disabled", "allow", "prefer", "preferred", "false", "0"), 0),
    **dict.fromkeys(("require", "required", "verify-ca", "verify_ca"), 1),
    **dict.fromkeys(("verify-full", "verify_identity", "system", "true", "1"), 2),
}
"""What the drivers' words promise: nothing, encryption, or also a server that is verified."""
_PROMISED: Final = {"require": 1, "verify": 2}
_WITH_A_MODE: Final = frozenset({"sslmode", "ssl_mode", "ssl-mode", "ssl"})
_OFF: Final = frozenset({"ssl_disabled"})
_ABOUT_TLS: Final = ("ssl", "tls", "encrypt", "trustservercertificate", "direct_tls", "wallet")
"""How arguments about encryption begin, in any driver's words."""


def connect_arguments(
    settings: DatabaseSettings, url: URL, given: Mapping[str, object]
) -> dict[str, object]:
    """Return the driver's arguments for encryption.

    ``"require"`` encrypts, and does not check who is at the other end; ``"verify"`` checks that the
    server is the one that the URL names, by the authorities of ``sslrootcert`` or ``ssl_ca`` in the
    URL, or else of this system. Words of the driver's own that promise as much are left as they
    are.

    Args:
        settings: the database.
        url: with its driver.
        given: the user's ``connect_args``.

    Raises:
        SettingsError: the driver has no such words, the database no network, or the driver's own
            words in the URL or in ``connect_args`` promise less than the setting.
    """
    if settings.tls == "driver":
        return {}
    own = _own_words(url, given)
    _refuse_weaker(own, settings.tls)
    if own.keys() & (_WITH_A_MODE | {"ssl_context"}):
        return {}
    arguments = known.named(url.get_driver_name()).tls_arguments
    if arguments is None:
        driver = url.get_driver_name()
        problem = (
            f"not supported by the driver {driver!r}; leave it, and use the driver's own words"
        )
        raise SettingsError([Fault("tls", problem)])
    return arguments(url, settings.tls == "verify")


def _own_words(url: URL, given: Mapping[str, object]) -> dict[str, object]:
    """Return what the user gives about encryption in the driver's own words."""
    both = {**url.query, **given}
    return {key: value for key, value in both.items() if key.lower().startswith(_ABOUT_TLS)}


def _refuse_weaker(own: Mapping[str, object], promised: str) -> None:
    for key, value in own.items():
        word = str(value).lower()
        strength = _STRENGTHS.get(word) if key in _WITH_A_MODE else None
        if key in _OFF and word in {"true", "1"}:
            strength = 0
        if value is False:
            strength = 0
        if strength is not None and strength < _PROMISED[promised]:
            problem = (
                f"promises more than {key}={word}, which the URL or connect_args give to the"
                f" driver; take {key} away, or leave tls"
            )
            raise SettingsError([Fault("tls", problem)])


def refusing_plaintext(dialect: Dialect, settings: DatabaseSettings, connect: Connect) -> Connect:
    """Return a way to connect that refuses a connection not encrypted as ``tls`` promises.

    The connection itself is looked at, because some drivers go on in plaintext where the server, or
    somebody between, offers no encryption: aiomysql 0.3.2, PyMySQL 1.1.1, MySQL Connector. It is
    closed at once, and connecting raises ``SettingsError``.
    """
    if settings.tls == "driver":
        return connect

    def connect_encrypted(*arguments: object, **keywords: object) -> DBAPIConnection:
        connection = connect(*arguments, **keywords)
        problem = _problem_with(connection, settings.tls)
        if problem is None:
            return connection
        connections.hang_up(connection)
        with suppress(Exception):  # it is hung up
            dialect.do_terminate(connection)
        raise SettingsError([Fault("tls", problem)])

    return connect_encrypted


def _problem_with(connection: DBAPIConnection, promised: str) -> str | None:
    try:
        found = connections.encryption_of(connection)
    except Exception as error:  # noqa: BLE001 - a driver's private name that moved, for one
        return f"the encryption of the connection cannot be seen ({type(error).__name__})"
    if found == "local":
        return None
    if found is None or not found.is_on:
        return "the connection is not encrypted: the server, or something before it, has no TLS"
    if promised == "verify" and found.is_verified is False:
        return "the connection is encrypted, but the driver did not verify who the server is"
    return None


def risk_of(settings: DatabaseSettings) -> str | None:
    """Return a sentence if traffic to the database may travel in plaintext, and far.

    Where the user gives any word about encryption, or where it may be given elsewhere, there is
    none.
    """
    url = settings.url
    given = {
        str(key): value
        for key, value in (as_table(settings.engine_options.get("connect_args")) or {}).items()
    }
    elsewhere = {*url.query, *given, *settings.engine_options}
    is_given = (
        settings.tls != "driver"
        or bool(_own_words(url, given))
        or not _ELSEWHERE.isdisjoint(elsewhere)
        or "sslmode" in libpq.elsewhere(url, given)
        or "PGSERVICE" in os.environ
    )
    if is_given or not families.of_url(url).has_server or not _is_far(url.host):
        return None
    return (
        f"the connection to {url.host} may not be encrypted: set tls=verify or tls=require, or"
        " sslmode in the URL"
    )


_ELSEWHERE: Final = frozenset(
    {"service", "dsn", "conninfo", "creator", "async_creator", "async_creator_fn", "sock"}
    | {"unix_sock", "unix_socket", "read_default_file", "read_default_group", "option_files"}
)
"""Query keys, arguments and options with which encryption may be decided elsewhere."""


def warn_of_risk(settings: DatabaseSettings, name: str) -> None:
    """Warn if traffic to the database may travel in plaintext, and far."""
    risk = risk_of(settings)
    if risk is not None:
        warnings.warn(f"Database {name!r}: {risk}", SettingsWarning, stacklevel=2)


def _is_far(host: str | None) -> bool:
    """Return whether a host may be on the public network, as far as its name shows."""
    if not host or host.startswith("/"):
        return False  # a socket file
    try:
        return ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return "." in host.rstrip(".") and not host.rstrip(".").endswith(_PRIVATE_SUFFIXES)
