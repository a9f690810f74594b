"""aiomysql, for the async half."""

from __future__ import annotations

from typing import Final

from sessionfactory.drivers import asyncio_transport, pymysql_like
from sessionfactory.drivers.driver import Driver

DRIVER: Final = Driver(
    name="aiomysql",
    install="aiomysql",
    code_table="mysql",
    codes=pymysql_like.number,
    connect_timeout=pymysql_like.CONNECT_TIMEOUT,
    tls_arguments=pymysql_like.tls_arguments,
    encryption=asyncio_transport.encryption,
    process_id=pymysql_like.thread_id,
    descriptor=asyncio_transport.descriptor,
    hang_up=asyncio_transport.abort,
    is_in_c=asyncio_transport.is_in_c,
    abandon=asyncio_transport.abandon,
)
