"""What PyMySQL, aiomysql and asyncmy have in common, which were one program once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers.driver import ConnectTimeout
from sessionfactory.drivers.encryption import ssl_context

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sessionfactory.drivers.driver import Code

CONNECT_TIMEOUT: Final = ConnectTimeout("connect_timeout", least=1)


def number(error: BaseException) -> list[Code]:
    """Return the number of an error, which is its first argument."""
    return [code for code in error.args[:1] if isinstance(code, int)]


def thread_id(handle: Any) -> int:
    """Return the server's number for its end of a connection."""
    return int(handle.thread_id())


def tls_arguments(url: URL, is_verified: bool) -> dict[str, object]:  # noqa: FBT001 - as Driver's
    """Return the argument of ``connect`` for encryption."""
    return {"ssl": ssl_context(url, is_verified=is_verified)}
