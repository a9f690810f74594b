"""Encryption on the way to the database: asked for in the same words, whatever the driver."""

from __future__ import annotations

import ipaddress
import os
import warnings
from typing import TYPE_CHECKING, Final

from sessionfactory.drivers import families, known
from sessionfactory.errors import Fault, SettingsError, SettingsWarning

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sessionfactory.config.settings import DatabaseSettings

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
    arguments = known.named(url.get_driver_name()).tls_arguments
    if arguments is None:
        driver = url.get_driver_name()
        problem = (
            f"not supported by the driver {driver!r}; leave it, and use the driver's own words"
        )
        raise SettingsError([Fault("tls", problem)])
    return arguments(url, settings.tls == "verify")


def risk_of(settings: DatabaseSettings) -> str | None:
    """Return a sentence if what is said to the database may travel in the clear, and far."""
    url = settings.url
    is_said = settings.tls != "driver" or _SAID & url.query.keys() or "PGSSLMODE" in os.environ
    if is_said or not families.of_url(url).has_server or not _is_far(url.host):
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
