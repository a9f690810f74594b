"""asyncmy, for the async half."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import pymysql_like
from sessionfactory.drivers.driver import Arguments, Connect, Driver, Keywords
from sessionfactory.drivers.transport import asyncio_transport

if TYPE_CHECKING:
    from sqlalchemy import URL


def query_keys(_url: URL, dbapi: Any) -> frozenset[str]:
    """Return the arguments of ``connect``, and those of which SQLAlchemy makes its ``ssl``."""
    return pymysql_like.query_keys(dbapi.asyncmy.connect)


def connect(opened: Connect, arguments: Arguments, keywords: Keywords) -> Any:
    """Open a connection; the driver's own limit does not cover the server's greeting."""
    return pymysql_like.connect_within(opened, arguments, keywords, _open)


async def _open(*arguments: Any, **keywords: Any) -> Any:
    asyncmy: Any = import_module("asyncmy")

    return await asyncmy.connect(*arguments, **keywords)  # which closes the socket if cancelled


DRIVER: Final = Driver(
    name="asyncmy",
    install="asyncmy",
    code_table="mysql",
    codes=pymysql_like.number,
    connect_timeout=pymysql_like.CONNECT_TIMEOUT,
    tls_arguments=pymysql_like.tls_arguments,
    query_keys=query_keys,
    connect=connect,
    encryption=asyncio_transport.encryption,
    process_id=pymysql_like.thread_id,
    descriptor=asyncio_transport.descriptor,
    hang_up=asyncio_transport.abort,
    is_in_c=asyncio_transport.is_in_c,
    abandon=asyncio_transport.abandon,
)
