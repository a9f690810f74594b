"""Encryption on the way to the database: asked for in the same words, whatever the driver."""

from __future__ import annotations

import ipaddress
import os
import ssl
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sessionfactory.errors import Fault, SettingsError, SettingsWarning

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sessionfactory.config.settings import DatabaseSettings

_LIBPQ: Final = frozenset({"psycopg", "psycopg2"})
_WITH_CONTEXT: Final = frozenset({"asyncpg", "pymysql", "aiomysql", "asyncmy"})
# A URL that says one of these has its own opinion, which wins.
_SAID: Final = frozenset({"sslmode", "ssl", "ssl_mode", "ssl_disabled", "ssl_verify_identity"})
_PRIVATE_SUFFIXES: Final = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".svc")


def connect_arguments(settings: DatabaseSettings, url: URL) -> dict[str, object]:
    """Return what the driver is told about TLS.

    ``"require"`` encrypts, and asks nobody who is at the other end; ``"verify"`` checks that the
    server is who the URL says, by the authorities of ``sslrootcert`` or ``ssl_ca`` in the URL, or
    else of this system.

    Raises:
        SettingsError: the driver has no such words, or the database no network.
    """
    if settings.tls == "driver" or _SAID & url.query.keys():
        return {}
    driver = url.get_driver_name()
    verify = settings.tls == "verify"
    if driver in _LIBPQ:
        return _for_libpq(url) if verify else {"sslmode": "require"}
    if driver in _WITH_CONTEXT:
        return {"ssl": _context(url, verify=verify)}
    if driver == "mysqldb":
        return {"ssl_mode": "VERIFY_IDENTITY" if verify else "REQUIRED"}
    problem = f"cannot be said to the driver {driver!r}; leave it, and say it in the driver's words"
    raise SettingsError([Fault("tls", problem)])


def _for_libpq(url: URL) -> dict[str, object]:
    own = Path("~/.postgresql/root.crt").expanduser()
    if "sslrootcert" in url.query or "PGSSLROOTCERT" in os.environ or own.exists():
        return {"sslmode": "verify-full"}
    # The binary packages of psycopg bring an OpenSSL that does not know where this system's are.
    paths = ssl.get_default_verify_paths()
    known = [file for file in (paths.cafile, paths.openssl_cafile) if file and Path(file).exists()]
    return {"sslmode": "verify-full", "sslrootcert": next(iter(known), "system")}


def _context(url: URL, *, verify: bool) -> ssl.SSLContext:
    given = url.query.get("sslrootcert") or url.query.get("ssl_ca")
    file = given if isinstance(given, str) else None
    try:
        context = ssl.create_default_context(cafile=file)
    except OSError as error:
        problem = f"the file of authorities that the URL names cannot be read: {error.strerror}"
        raise SettingsError([Fault("url", problem)]) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def risk_of(settings: DatabaseSettings) -> str | None:
    """Return a sentence if what is said to the database may travel in the clear, and far."""
    url = settings.url
    is_said = settings.tls != "driver" or _SAID & url.query.keys() or "PGSSLMODE" in os.environ
    if is_said or url.get_backend_name() == "sqlite" or not _is_far(url.host):
        return None
    return (
        f"the connection to {url.host} may not be encrypted: say tls=verify or tls=require, or"
        " sslmode in the URL"
    )


def warn_of_risk(settings: DatabaseSettings, name: str) -> None:
    """Warn if what is said to the database may travel in the clear, and far."""
    risk = risk_of(settings)
    if risk is not None:
        warnings.warn(f"Database {name!r}: {risk}", SettingsWarning, stacklevel=2)


def _is_far(host: str | None) -> bool:
    """Say whether a host may be on the public network, as far as its name tells."""
    if not host or host.startswith("/"):
        return False  # a socket file
    try:
        return ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return "." in host.rstrip(".") and not host.rstrip(".").endswith(_PRIVATE_SUFFIXES)
