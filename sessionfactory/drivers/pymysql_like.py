"""What PyMySQL, aiomysql and asyncmy have in common, which were one program once."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers.driver import Arguments, Connect, ConnectTimeout, Keywords
from sessionfactory.drivers.transport.encryption import ssl_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import URL

    from sessionfactory.drivers.driver import Code

CONNECT_TIMEOUT: Final = ConnectTimeout("connect_timeout", least=1)


def number(error: BaseException) -> list[Code]:
    """Return the number of an error, which is its first argument."""
    return [code for code in error.args[:1] if isinstance(code, int)]


def thread_id(handle: Any) -> int:
    """Return the server's number for its end of a connection."""
    return int(handle.thread_id())


_OF_SSL: Final = frozenset(
    {"ssl_ca", "ssl_key", "ssl_cert", "ssl_capath", "ssl_cipher", "ssl_check_hostname"}
)
"""What SQLAlchemy puts together in the argument ``ssl``."""


def query_keys(connect: Callable[..., object]) -> frozenset[str]:
    """Return the keys of a URL's query that a driver takes."""
    return frozenset(inspect.signature(connect).parameters) | _OF_SSL


def connect_within(
    opened: Connect,
    arguments: Arguments,
    keywords: Keywords,
    create: Callable[..., Awaitable[object]],
) -> Any:
    """Open a connection of an asynchronous driver within its time limit, greeting and login too.

    Args:
        opened: ``Dialect.connect``.
        arguments: its arguments.
        keywords: its keyword arguments; ``connect_timeout`` is the limit, in seconds.
        create: opens it, and leaves nothing open if it is cancelled.
    """
    limit = keywords.get("connect_timeout")

    async def create_in_time(*given: object, **named: object) -> object:
        async with asyncio.timeout(float(str(limit))):
            return await create(*given, **named)

    if not limit or "async_creator_fn" in keywords:
        return opened(*arguments, **keywords)
    return opened(*arguments, **keywords, async_creator_fn=create_in_time)


def tls_arguments(url: URL, is_verified: bool) -> dict[str, object]:  # noqa: FBT001 - as Driver's
    """Return the argument of ``connect`` for encryption."""
    return {"ssl": ssl_context(url, is_verified=is_verified)}
