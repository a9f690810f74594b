"""What psycopg and psycopg2 have in common: libpq."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers.transport.encryption import system_authorities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL

    from sessionfactory.drivers.driver import Code


def code_in(attribute: str) -> Callable[[BaseException], list[Code]]:
    """Return a function that reads an error's code from one of its attributes."""

    def read(error: BaseException) -> list[Code]:
        code: Code | None = getattr(error, attribute, None)
        return [] if code is None else [code]

    return read


def startup_options(options: str) -> dict[str, object]:
    """Return the arguments of ``connect`` for options of the server's process."""
    return {"options": options}


def tls_arguments(url: URL, is_verified: bool) -> dict[str, object]:  # noqa: FBT001 - as Driver's
    """Return what makes libpq encrypt, and check the server's name if asked to."""
    if not is_verified:
        return {"sslmode": "require"}
    own = Path("~/.postgresql/root.crt").expanduser()
    if "sslrootcert" in url.query or "PGSSLROOTCERT" in os.environ or own.exists():
        return {"sslmode": "verify-full"}
    # The binary packages of psycopg bring an OpenSSL that does not know where this system's are.
    return {"sslmode": "verify-full", "sslrootcert": system_authorities() or "system"}


def has_failed_transaction(handle: Any) -> bool:
    """Return whether the open transaction has failed: libpq knows that without asking."""
    return int(handle.info.transaction_status) == _FAILED


_FAILED: Final = 3
"""``PQTRANS_INERROR``."""
_VARIABLES: Final = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
}


def elsewhere(url: URL, given: Mapping[str, object]) -> dict[str, str]:
    """Return what libpq finds by itself, in a service file or in the environment.

    An argument of ``connect`` replaces it, so that ours have to be put beside it.
    """
    environment = {
        name: os.environ[variable]
        for name, variable in _VARIABLES.items()
        if variable in os.environ
    }
    return {**environment, **_service(url, given)}


def _service(url: URL, given: Mapping[str, object]) -> dict[str, str]:
    name = given.get("service") or url.query.get("service") or os.environ.get("PGSERVICE")
    if not isinstance(name, str):
        return {}
    # The user's file, and the system's if that one lacks the service:
    # https://www.postgresql.org/docs/current/libpq-pgservice.html
    files = [Path(os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf").expanduser()]
    if "PGSYSCONFDIR" in os.environ:
        files.append(Path(os.environ["PGSYSCONFDIR"]) / "pg_service.conf")
    for file in files:
        parser = configparser.ConfigParser(
            delimiters=("=",), comment_prefixes=("#",), interpolation=None, strict=False
        )
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeError):
            continue  # libpq reports it
        if parser.has_section(name):
            return {key.strip(): value.strip() for key, value in parser.items(name)}
    return {}
