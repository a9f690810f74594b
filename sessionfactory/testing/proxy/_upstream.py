"""Where a database URL leads, and the same URL by way of the proxy."""

from __future__ import annotations

import socket
from typing import NamedTuple

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_PROTOCOLS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
# Parameters that name the server, and win over the URL's host.
_SOCKET_KEYS = ("host", "unix_socket", "unix_sock")
_BYPASSES = ("hostaddr", "service", "servicefile", "read_default_file")
_PLACE_KEYS = (*_SOCKET_KEYS, "port")

Address = tuple[int, "str | tuple[str, int]"]
"""An address family and an address as sockets take it."""


class Upstream(NamedTuple):
    """A real server, as a URL and as the addresses to try."""

    url: URL
    protocol: str
    addresses: list[Address]

    @property
    def place(self) -> str:
        """The server's place in words."""
        address = self.addresses[0][1]
        return address if isinstance(address, str) else "{}:{}".format(*address)

    def via(self, port: int) -> URL:
        """The URL that leads to the same database through a port of this machine."""
        direct = self.url.difference_update_query(_PLACE_KEYS)
        return direct.set(host="127.0.0.1", port=port)


def find_upstream(url: str | URL) -> Upstream:
    """Find the server that a URL names.

    Raises:
        ValueError: the URL cannot be parsed, names no server or more than one, or names it in a
            way that would lead past the proxy.
        OSError: the name of the host cannot be resolved.
    """
    parsed = _parsed(url)
    protocol = _PROTOCOLS.get(parsed.get_backend_name(), "")
    bypass = next((key for key in _BYPASSES if key in parsed.query), None)
    if bypass is not None:
        raise ValueError(f"{bypass}= in a URL would lead past the proxy: name the server as host")
    host, port = _place(parsed)
    if host.startswith("/"):
        name = f"{host}/.s.PGSQL.{port}" if protocol == "postgresql" else host
        return Upstream(parsed, protocol, [(int(socket.AF_UNIX), name)])
    if port is None:
        raise ValueError(f"the URL names no port, and {parsed.get_backend_name()} has none we know")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"cannot find the host {host!r} that the proxy is to stand before") from error
    addresses: list[Address] = [
        (int(family), (str(address[0]), int(address[1]))) for family, _, _, _, address in found
    ]
    return Upstream(parsed, protocol, addresses)


def _parsed(url: str | URL) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # SQLAlchemy's own message may quote the URL, and a URL may hold a password.
        raise ValueError(
            "the proxy needs a database URL, such as postgresql+psycopg://user@127.0.0.1:5432/name"
        ) from None


def _place(url: URL) -> tuple[str, int | None]:
    """The host, or the path of a socket, and the port."""
    named = next((url.query[key] for key in _SOCKET_KEYS if key in url.query), url.host or "")
    port = url.query.get("port", url.port or _DEFAULT_PORTS.get(url.get_backend_name()))
    if not isinstance(named, str) or "," in named or isinstance(port, tuple):
        raise ValueError("the URL names several hosts: a proxy stands before one of them")
    host, colon, own_port = named.rpartition(":")
    if colon and host and own_port.isdecimal() and ":" not in host and "host" in url.query:
        named, port = host, own_port
    if not named:
        raise ValueError(
            f"this {url.get_backend_name()} URL names no host, so there is nothing to stand before"
        )
    try:
        return named, None if port is None else int(port)
    except ValueError:
        raise ValueError(f"the URL's port is not a number: {port!r}") from None
