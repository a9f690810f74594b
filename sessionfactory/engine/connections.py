"""What is done to a driver's connection from outside: opened our way, cancelled, hung up, left.

Each function stands for one thing that drivers do differently, or that has no public name.
"""

from __future__ import annotations

import inspect
import os
import select
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.orm import Session
from sqlalchemy.orm.session import _SessionCloseState
from sqlalchemy.util.concurrency import await_only

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection
    from sqlalchemy.pool.base import _ConnectionFairy

    Commit = Callable[[PoolProxiedConnection], None]

_COUNTERS: Final = (
    ("sqlalchemy.orm.session", "_new_sessionid"),
    ("sqlalchemy.orm.loading", "_new_runid"),
    ("sqlalchemy.dialects.postgresql._psycopg_common", "_server_side_id"),
)


def connect_through(dialect: Dialect, connect: Callable[..., DBAPIConnection]) -> None:
    """Have a dialect open its connections by ``connect``.

    ``Dialect.connect`` comes after all listeners to ``do_connect``. A listener of ours would come
    among the user's, and as it returns a connection, end the round before theirs were asked.
    """
    dialect.connect = connect  # type: ignore[method-assign]  # of this one dialect


@contextmanager
def between_transactions(session: Session) -> Generator[None]:
    """Let a session be used before the scope of its last transaction, which has ended, is left.

    SQLAlchemy refuses that, for whoever goes on after a commit within ``with session.begin():`` may
    think that he is still in it. What runs after a commit is called from the end of that scope, and
    means another transaction. ``tests/transactions/test_after_commit.py`` notices if it moves.
    """
    using: Any = session
    scope, using._trans_context_manager = using._trans_context_manager, None  # noqa: SLF001
    try:
        yield
    finally:
        using._trans_context_manager = scope  # noqa: SLF001


def put_in_place(proxy: PoolProxiedConnection | None, stand_in: object) -> None:
    """Have whoever holds ``proxy``, if anybody still does, talk to ``stand_in`` from now on.

    The attribute is documented for reading only. Writing it is the one way to end a connection that
    another thread has, and have its holder told so by an error of ours: ``tests/engine/test_close``
    notices if that changes.
    """
    if proxy is not None:
        cast("_ConnectionFairy", proxy).dbapi_connection = cast("DBAPIConnection", stand_in)


def take_away(
    proxy: PoolProxiedConnection | None, record: ConnectionPoolEntry, stand_in: object
) -> None:
    """Take a connection that is out from its holder, and from its pool, which is not told.

    That is ``PoolProxiedConnection.detach`` without the pool, whose lock a thread may have had that
    a forked process does not have. Whoever drops or closes the proxy now returns nothing.
    ``tests/engine/test_forks.py`` notices if one of these attributes moves.
    """
    entry: Any = record
    entry.fairy_ref = entry.dbapi_connection = None
    if proxy is not None:
        cast("_ConnectionFairy", proxy)._connection_record = None  # noqa: SLF001
        put_in_place(proxy, stand_in)


def free_first_connect(pool: Pool) -> None:
    """Free the lock under which SQLAlchemy opens the first connection of an engine.

    The thread that had it does not exist in a forked process. ``tests/engine/test_forks.py``
    notices if it moves.
    """
    listeners: Any = pool.dispatch.connect
    listeners.for_modify(pool.dispatch)._exec_once_mutex = None  # noqa: SLF001


def free_counters() -> None:
    """Free the locks under which SQLAlchemy numbers sessions, loads and server-side cursors.

    Each is held for an instant by every session and every query, so that one fork in a hundred,
    beside three busy threads, left a child that waited for ever for a thread that it did not have.
    They have no public name: ``tests/engine/test_forks_processes.py`` notices if they move.
    """
    for module, name in _COUNTERS:
        counter: Any = getattr(sys.modules.get(module), name, None)
        for cell in getattr(counter, "__closure__", ()):
            lock = cell.cell_contents
            if hasattr(lock, "locked") and lock.locked():
                lock.release()


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


def open_apart(pool: Pool) -> DBAPIConnection:
    """Open a connection as a pool does, which the pool does not have.

    ``Pool.recreate`` is the public way to a pool's creator, but for a pool of the same kind only.
    ``tests/engine/test_close_servers.py`` notices if it moves.
    """
    return cast("Any", pool)._invoke_creator(None)  # type: ignore[no-any-return]  # noqa: SLF001


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
        _, _, rows_told = await_only(driver.execute(statements)).partition("SELECT ")
        return int(rows_told or 0)
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


def listener(connection: DBAPIConnection) -> Callable[[], bool]:
    """Return a function that says whether a connection's socket has something to tell.

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
        return lambda: bool(poll.poll(0))
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


def of_session(session: Session) -> list[PoolProxiedConnection]:
    """Return the connections of a session's transaction, which may be in the midst of anything.

    ``Session.connection()`` would open one, or raise; what only looks has no public name before
    SQLAlchemy 2.1.7. ``tests/engine/test_endings.py`` notices if it moves.
    """
    transaction = session.get_transaction()
    if transaction is None:
        return []
    used = of_transaction(transaction)
    return [found.connection for found in used if not (found.closed or found.invalidated)]


def commit_through(dialect: Dialect, name: str, commit: Callable[[Commit], Commit]) -> None:
    """Have all COMMITs of a dialect done by a function of ours, once for each ``name``.

    A listener to "commit" comes before it, and can neither see its error nor take it back.

    Args:
        dialect: the dialect of one engine.
        name: what is done once; the dialect remembers it.
        commit: is given the dialect's way, and returns the new one.
    """
    if name not in vars(dialect):
        vars(dialect).update({name: True, "do_commit": commit(dialect.do_commit)})


def of_transaction(transaction: SessionTransaction) -> list[Connection]:
    """Return the connections that a session's transaction has, or had before it ended.

    There is no public name. ``tests/transactions/test_retrying.py`` notices if it moves.
    """
    return list({entry[0] for entry in transaction._connections.values()})  # noqa: SLF001


def is_autocommit(connection: Connection) -> bool:
    """Say whether each statement on a connection commits by itself, by option or by its engine's.

    What is public asks the database. ``tests/transactions/test_retrying.py`` notices if it moves.
    """
    return bool(connection._is_autocommit_isolation())  # noqa: SLF001


def is_blank(session: Session) -> bool:
    """Say whether ``Session.close()`` would change nothing: no transaction, no object, no state.

    It takes twice as long as to open the session, for it makes new maps in the place of the empty
    ones. What tells that they are empty has no public name: ``tests/test_shared.py`` notices if
    one of these moves, or if ``close()`` does more one day.
    """
    return not (
        session._transaction is not None  # noqa: SLF001
        or session._new  # noqa: SLF001
        or session._deleted  # noqa: SLF001
        or session.identity_map
        or session._close_state is not _SessionCloseState.CLOSE_IS_RESET  # noqa: SLF001
        or type(session).expunge_all is not Session.expunge_all
    )


def abandon(connection: DBAPIConnection | None) -> None:
    """Let go of a connection whose event loop is gone: close its socket, and touch nothing else.

    Whatever closes it in the regular way wants the loop. Neither asyncio nor the drivers have a
    public name for this: ``tests/engine/test_loops.py`` notices if one of these moves.
    """
    driver = _driver_connection(connection)
    with suppress(Exception):  # it is closed already
        if hasattr(driver, "pgconn"):  # psycopg
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
