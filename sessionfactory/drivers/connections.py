"""What is done to a driver's connection from outside: asked, cancelled, hung up, left.

Each function stands for one thing that drivers do differently, or that has no public name there.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import select
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.util.concurrency import await_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry


_BARE: Final = frozenset({"MySQLdb.connections", "mysql.connector.connection_cext"})
"""Modules of drivers in C that have no lock of their own."""


def never_free(kept: object) -> None:
    """Have an object outlive the interpreter, which takes its modules apart when it ends."""
    with suppress(ImportError, AttributeError):  # on PyPy, which frees nothing at its end
        import ctypes  # noqa: PLC0415 - takes 10 ms, and most processes never need it

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def forget_connection(error: BaseException) -> None:
    """Take from psycopg's error the connection that failed, which holds the password.

    The public ``pgconn`` has no setter. ``tests/test_canary_connect.py`` says if it moves.
    """
    if getattr(error, "_pgconn", None) is not None:
        vars(error)["_pgconn"] = None


def can_cancel(connection: DBAPIConnection | None) -> bool:
    """Say whether a driver can ask the database to give up a statement, and harm nobody.

    psycopg2's ``cancel()``, and psycopg's on libpq before 17, connect anew with the interpreter's
    lock held: on a silent network, no thread of this process would run again.
    """
    driver = _driver_connection(connection)
    return hasattr(driver, "interrupt") or (hasattr(driver, "cancel_safe") and _cancels_safely())


def cancel(connection: DBAPIConnection | None, timeout: float) -> None:
    """Ask the database to give up the statement that runs on a connection of another.

    Where the driver cannot, hang up. The caller closes the connection next.

    Args:
        connection: the driver's connection.
        timeout: seconds to try.
    """
    driver = _driver_connection(connection)
    with suppress(Exception):  # whatever it says, the connection is on its way out
        if not can_cancel(connection):
            hang_up(connection)
        elif hasattr(driver, "cancel_safe"):  # psycopg
            _complete(driver.cancel_safe(timeout=timeout))
        else:  # sqlite3, aiosqlite
            _complete(driver.interrupt())


def is_for_threads(connection: DBAPIConnection | None) -> bool:
    """Say whether a connection is a driver's own, which awaits nothing."""
    return _driver_connection(connection) is connection


def backend_of(connection: DBAPIConnection | None) -> int | None:
    """Return the number that the server, in its greeting, gave to its end of a connection.

    Returns:
        ``None`` if there is none, or the connection is closed.
    """
    driver = _driver_connection(connection)
    with suppress(Exception):
        if hasattr(driver, "get_server_pid"):  # asyncpg
            return int(driver.get_server_pid())
        if hasattr(driver, "thread_id"):  # PyMySQL, aiomysql, asyncmy, mysqlclient
            return int(driver.thread_id())
        return int(driver.info.backend_pid)  # psycopg, psycopg2
    return None


def send(connection: DBAPIConnection, statements: str) -> int:
    """Send SQL to PostgreSQL as one message, in no transaction of the driver's, and not prepared.

    Returns:
        the number of rows of a single SELECT.
    """
    driver = _driver_connection(connection)
    if hasattr(driver, "get_server_pid"):  # asyncpg
        return int(await_only(driver.execute(statements)).partition("SELECT ")[2] or 0)
    stand_in: Any = connection  # where the driver is asynchronous, and else the driver's own
    before = stand_in.autocommit
    stand_in.autocommit = True
    if hasattr(driver, "pgconn"):  # psycopg
        cursor = _complete(driver.execute(statements, prepare=False))
    else:
        cursor = driver.cursor()
        cursor.execute(statements)
    rows = int(cursor.rowcount)
    _complete(cursor.close())
    stand_in.autocommit = before
    return rows


def listener(connection: DBAPIConnection) -> Callable[[], object]:
    """Return a function that says, by its truth, whether a connection's socket has news.

    On an idle connection that is its end, or a last notice; but it may be news that the server sent
    by itself, such as a NOTIFY. No round trip, under TLS too; about half a microsecond.
    """
    driver = _driver_connection(connection)
    descriptor = _descriptor(driver)
    if descriptor is None or not hasattr(select, "poll"):
        return lambda: False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLPRI)
    if hasattr(driver, "read_end"):  # PipelinedConnection: this may be the answer that it left
        return lambda: bool(poll.poll(0)) and (not driver.read_end() or bool(poll.poll(0)))
    # asyncpg reads as soon as something comes, and then closes the socket itself.
    is_closed: Callable[[], bool] | None = getattr(driver, "is_closed", None)
    if is_closed is None:
        return partial(poll.poll, 0)
    return lambda: is_closed() or bool(poll.poll(0))


def _descriptor(driver: Any) -> int | None:
    """Return the descriptor of a driver's socket; ``None`` if it has none."""
    try:
        if hasattr(driver, "fileno"):  # psycopg, psycopg2
            return int(driver.fileno())
        if hasattr(driver, "_sock"):  # PyMySQL
            return int(driver._sock.fileno())  # noqa: SLF001 - no public name
        return int(_transport(driver).get_extra_info("socket").fileno())
    except AttributeError:
        return None


def disconnect_here(connection: DBAPIConnection, dead: int) -> None:
    """Make a connection useless in this process, and in no other that has it too.

    Its descriptor becomes a copy of another. To close the connection would be heard by the server,
    and an event loop would take it out of the epoll that it shares with the process it came from.

    Args:
        connection: the driver's connection.
        dead: the descriptor of a socket that is connected to nothing.
    """
    driver = _driver_connection(connection)
    with suppress(Exception):  # it is closed already
        if hasattr(driver, "_running"):  # aiosqlite: its thread is not in this process, and nobody
            driver._running = False  # noqa: SLF001 - would answer a call. It has no other switch
        elif hasattr(driver, "interrupt"):  # sqlite3: ends open cursors, and touches no file
            driver.interrupt()
        else:
            os.dup2(dead, _descriptor(driver) or -1, inheritable=False)


def hang_up(connection: DBAPIConnection | None) -> None:
    """Shut a connection's socket down, so that whoever waits for an answer gets an error now."""
    driver = _driver_connection(connection)
    with suppress(Exception):  # it is gone already
        if hasattr(driver, "terminate"):  # asyncpg
            driver.terminate()
            _transport(driver).abort()  # it does nothing to one that is just being closed
        elif hasattr(driver, "_writer"):  # aiomysql, asyncmy
            _transport(driver).abort()
        else:
            with socket.socket(fileno=os.dup(_descriptor(driver) or -1)) as line:
                line.shutdown(socket.SHUT_RDWR)


def is_entered(connection: DBAPIConnection | None) -> bool:
    """Say whether a holder may be inside the driver's C code, which must not lose its connection.

    psycopg keeps a pointer to libpq's structure while it waits for an answer, sqlite3 asks SQLite
    for more when a statement has returned, mysqlclient and MySQL Connector's extension have the
    interpreter's lock released: whoever closed the connection meanwhile would have the process die
    (measured: one storm of 60). psycopg2 has a lock of its own around it, and the other drivers are
    written in Python.
    """
    driver = _driver_connection(connection)
    bare = _is_sqlite3(driver) or type(driver).__module__ in _BARE
    return bare or hasattr(driver, "pgconn")


def close_entered(connection: DBAPIConnection | None, timeout: float) -> None:
    """Close a connection as soon as nobody is inside; see ``is_entered``.

    Where nobody can know who is inside, or it takes longer, its holder closes it, who is outside by
    then. No entry has it any more: else a garbage collection that comes while this thread has the
    driver's lock might roll it back, and wait for that lock.

    Args:
        connection: the driver's connection; it was cancelled, and hung up.
        timeout: seconds to wait.
    """
    driver = _driver_connection(connection)
    if _is_sqlite3(driver):  # waits for SQLite's own lock, and gives those on the file back
        with suppress(Exception):
            driver.rollback()
        return
    if not hasattr(driver, "lock"):  # not psycopg's
        return
    try:
        if inspect.iscoroutinefunction(driver.lock.acquire):
            await_only(asyncio.wait_for(driver.lock.acquire(), timeout))
        elif not driver.lock.acquire(timeout=timeout):
            return
    except (TimeoutError, RuntimeError):  # it is another event loop's
        return
    try:
        _complete(driver.close())
    finally:
        driver.lock.release()


def abandon(connection: DBAPIConnection | None) -> None:
    """Let go of a connection whose event loop is gone: close its socket, and touch nothing else.

    Whatever closes it in the regular way wants the loop. Neither asyncio nor the drivers have a
    public name for this: ``tests/engine/test_loops.py`` notices if one of these moves.
    """
    driver = _driver_connection(connection)
    with suppress(Exception):  # it is closed already
        if hasattr(driver, "pgconn"):  # psycopg
            if driver.lock.locked():  # a task is inside, and goes on if its loop does
                hang_up(connection)
            else:
                driver.pgconn.finish()
            return
        if hasattr(driver, "stop"):  # aiosqlite: its thread closes the file, and tells the loop
            stop = threading.Thread(target=driver.stop)  # that runs here: in this thread, none does
            stop.start()
            stop.join()
            return
        transport = _transport(driver)
        close = driver.terminate if hasattr(driver, "terminate") else driver.close
        with suppress(RuntimeError):  # "Event loop is closed", said by the transport at its end
            close()
        close()  # the rest of it, now that the transport thinks that it is closing
        ssl_protocol = getattr(transport, "_ssl_protocol", None)
        bare = transport if ssl_protocol is None else ssl_protocol._transport  # noqa: SLF001
        bare._call_connection_lost(None)  # noqa: SLF001 - what abort() has the loop call


def close_from_outside(record: ConnectionPoolEntry) -> None:
    """Close an idle connection of aiosqlite without its event loop, and wait until it is closed.

    It has a thread for each connection, of which ``tests/engine/test_forks.py`` notices if it
    moves. Before version 0.22.1 there is no way.
    """
    driver: Any = record.driver_connection
    if hasattr(driver, "stop"):
        # In a thread: it would make an event loop here, if none runs.
        closing = threading.Thread(target=record.invalidate)
        closing.start()
        closing.join()
        driver._thread.join()  # noqa: SLF001


def _driver_connection(connection: DBAPIConnection | None) -> Any:
    """Return what the driver made: SQLAlchemy wraps the connections of asynchronous drivers."""
    return getattr(connection, "driver_connection", connection)


def _is_sqlite3(driver: Any) -> bool:
    return hasattr(driver, "interrupt") and not hasattr(driver, "_running")  # aiosqlite's has both


def _transport(driver: Any) -> Any:
    """Return the asyncio transport of a connection of asyncpg, aiomysql or asyncmy."""
    if hasattr(driver, "_transport"):
        return driver._transport  # noqa: SLF001 - no public name
    return driver._writer.transport  # noqa: SLF001 - no public name


def _complete(outcome: Any) -> Any:
    """Await, in a greenlet of SQLAlchemy, what an asynchronous driver's method returned."""
    return await_only(outcome) if inspect.isawaitable(outcome) else outcome


def _cancels_safely() -> bool:
    capabilities = sys.modules["psycopg"].capabilities
    return bool(capabilities.has_cancel_safe())
