"""asyncpg, for the async half."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode
from uuid import uuid4

from sqlalchemy.util.concurrency import await_only

from sessionfactory.drivers import libpq, pymysql_like
from sessionfactory.drivers.driver import Arguments, Connect, ConnectTimeout, Driver, Keywords
from sessionfactory.drivers.transport import asyncio_transport, sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from sessionfactory.drivers.driver import Code

# What libpq's drivers take in a URL, and asyncpg in its ``dsn`` only.
_DSN_KEYS: Final = frozenset(
    {"application_name", "options", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation"}
    | {"sslpassword", "sslrootcert", "ssl_max_protocol_version", "ssl_min_protocol_version"}
)
# What SQLAlchemy takes out of the URL itself, and a libpq key that has a keyword of its own here.
_OTHER_KEYS: Final = frozenset(
    {"prepared_statement_cache_size", "prepared_statement_name_func", "connect_timeout"}
)
_NUMBERS: Final = frozenset({"timeout", "command_timeout"})
_CHANNEL_BINDING: Final = "channel_binding"


def query_keys(_url: URL, dbapi: Any) -> frozenset[str]:
    """Return the keys of a URL's query that are understood, ``translate`` included."""
    known = inspect.signature(dbapi.asyncpg.connect).parameters
    return frozenset(known) | _DSN_KEYS | _OTHER_KEYS | {_CHANNEL_BINDING}


def connect(opened: Connect, arguments: Arguments, keywords: Keywords) -> Any:
    """Open a connection with arguments in asyncpg's words."""
    return opened(*arguments, **translate(keywords))


def translate(arguments: dict[str, object]) -> dict[str, object]:
    """Return arguments of ``connect`` with libpq's words, such as sslmode, in a ``dsn``."""
    dropped = {_CHANNEL_BINDING, "connect_timeout"}
    given = {key: value for key, value in arguments.items() if key not in _DSN_KEYS | dropped}
    if "connect_timeout" in arguments:
        given.setdefault("timeout", arguments["connect_timeout"])
    for name in _NUMBERS & given.keys():  # as a URL gives them
        given[name] = float(str(given[name])) if isinstance(given[name], str) else given[name]
    host = given.get("host")
    if isinstance(host, str) and "," in host:
        given["host"] = host.split(",")
    of_libpq = {key: value for key, value in arguments.items() if key in _DSN_KEYS}
    if of_libpq:
        given["dsn"] = f"postgresql://?{urlencode(of_libpq, quote_via=quote)}"
    return given


def startup_options(options: str) -> dict[str, object]:
    """Return the arguments of ``connect`` for options of the server's process."""
    return {"server_settings": {"options": options}}  # which win over those of the URL


def unique_name() -> str:
    """Return a name for a prepared statement that no other client of a pooler has."""
    return f"__sessionfactory_{uuid4()}__"


def codes(error: BaseException) -> list[Code]:
    """Return the SQLSTATE of an error; a stale plan, which asyncpg notices itself, has none."""
    if type(error).__name__ == "InvalidCachedStatementError":
        return ["0A000"]
    return _sqlstate(error)


_sqlstate: Final = libpq.code_in("sqlstate")


def process_id(handle: Any) -> int:
    """Return the number of the server's process, as of its greeting."""
    return int(handle.get_server_pid())


def send(handle: Any, statements: str) -> int:
    """Send SQL as one message in no transaction, unprepared; return the rows of a SELECT."""
    return int(await_only(handle.execute(statements)).partition("SELECT ")[2] or 0)


def listener(handle: Any, descriptor: int) -> Callable[[], object]:
    """Return a function that is true if the socket has news.

    asyncpg reads as soon as something comes, and then closes the socket itself.
    """
    poll = sockets.listener(handle, descriptor)
    return lambda: handle.is_closed() or bool(poll())


def hang_up(handle: Any, _descriptor: int | None) -> None:
    """Close the socket at once."""
    handle.terminate()
    asyncio_transport.abort(handle)  # terminate() does nothing to one that is just being closed


DRIVER: Final = Driver(
    name="asyncpg",
    install="asyncpg",
    code_table="postgresql",
    codes=codes,
    connect_timeout=ConnectTimeout("timeout", is_whole=False),
    startup_options=startup_options,
    tls_arguments=pymysql_like.tls_arguments,
    encryption=asyncio_transport.encryption,
    query_keys=query_keys,
    refusals={
        (_CHANNEL_BINDING, "require"): (
            "asyncpg has no channel binding; take channel_binding away, or use psycopg"
        )
    },
    takes_several_hosts=True,
    connect=connect,
    prepares_nothing={
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": unique_name,
    },
    process_id=process_id,
    send=send,
    descriptor=asyncio_transport.descriptor,
    listener=listener,
    hang_up=hang_up,
    is_in_c=asyncio_transport.is_in_c,
    abandon=asyncio_transport.abandon,
    has_read_only_switch=True,
    read_only_autocommit="setting",
    clears_state=True,
)
