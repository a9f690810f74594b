"""Contexts of Python's ``ssl``, and what a connection reports about its own encryption."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL


@frozen
class Encryption:
    """What a connection reports about its own encryption."""

    is_on: bool
    is_verified: bool | None = None
    """Whether the server's certificate and name were checked; ``None`` if that is not known."""


def of_ssl_object(ssl_object: Any) -> Encryption:
    """Look at an ``SSLObject`` or ``SSLSocket``; anything else is no encryption."""
    context = getattr(ssl_object, "context", None)
    if context is None or ssl_object.cipher() is None:
        return Encryption(is_on=False, is_verified=False)
    is_verified = bool(context.verify_mode) and bool(context.check_hostname)
    return Encryption(is_on=True, is_verified=is_verified)


def ssl_context(url: URL, *, is_verified: bool) -> ssl.SSLContext:
    """Return a context for the authorities that a URL names, or this system's.

    Raises:
        SettingsError: the file of authorities cannot be read.
    """
    given = url.query.get("sslrootcert") or url.query.get("ssl_ca")
    file = given if isinstance(given, str) else None
    try:
        context = ssl.create_default_context(cafile=file)
    except OSError as error:
        problem = f"the file of authorities that the URL names cannot be read: {error.strerror}"
        raise SettingsError([Fault("url", problem)]) from None
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def system_authorities() -> str | None:
    """Return the file of this system's authorities, where it has one."""
    paths = ssl.get_default_verify_paths()
    files = (paths.cafile, paths.openssl_cafile)
    return next((file for file in files if file and Path(file).exists()), None)
