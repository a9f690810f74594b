"""What is done to a driver's connection from outside, whatever the driver is.

Each function finds out which driver made the connection, and calls what its ``Driver`` value holds.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

from sessionfactory.drivers import known
from sessionfactory.drivers.driver import UNKNOWN
from sessionfactory.drivers.transport import sockets
from sessionfactory.errors import SessionFactoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from sessionfactory.drivers.driver import Driver
    from sessionfactory.drivers.transport.encryption import Encryption


def never_free(kept: object) -> None:
    """Make an object outlive the interpreter, which takes its modules apart when it ends."""
    with suppress(ImportError, AttributeError):  # on PyPy, which frees nothing at its end
        import ctypes  # noqa: PLC0415 - takes 10 ms, and most processes never need it

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def forget_connection(error: BaseException) -> None:
    """Take from a driver's error the connection that failed, which may hold the password."""
    forget = known.of_class(type(error)).forget_connection
    if forget is not None:
        forget(error)


def forget_arguments(error: BaseException) -> None:
    """Take from an error of connecting, and from those that it came from, all that holds secrets.

    Error trackers, ``pytest -l`` and rich print the local variables of every frame of a traceback,
    and the frames of a failed connect hold what the driver was called with: the password, wherever
    it came from. An error that is not the driver's keeps a note of the place where it arose.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        _note_place(link)
        link.__traceback__ = None
        forget_connection(link)
        for name in ("__cause__", "__context__"):
            if isinstance(getattr(link, name), UnicodeError):  # it has the text that it is about
                setattr(link, name, None)
        pending += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            pending += cast("BaseExceptionGroup[BaseException]", link).exceptions


def _note_place(error: BaseException) -> None:
    frames = error.__traceback__
    if frames is None or isinstance(error, (OSError, SessionFactoryError)):
        return
    if known.of_class(type(error)) is not UNKNOWN:
        return
    while frames.tb_next is not None:
        frames = frames.tb_next
    code = frames.tb_frame.f_code
    error.add_note(
        f"raised in {code.co_qualname}, {code.co_filename}:{frames.tb_lineno}, while connecting;"
        " the frames are left out, because they hold the password"
    )


def driver_of(connection: DBAPIConnection | None) -> Driver:
    """Return the driver that made a connection."""
    # A tracer's proxy has the class of what it wraps in ``__class__``.
    return known.of_class(_own(connection).__class__)


def can_cancel(connection: DBAPIConnection | None) -> bool:
    """Return whether a running statement can be cancelled from outside, without a risk."""
    return driver_of(connection).can_cancel(_own(connection))


def cancel(connection: DBAPIConnection | None, timeout: float) -> None:
    """Cancel the statement that runs on a connection in another thread or task.

    Where the driver cannot, the connection is hung up. The caller closes it next.

    Args:
        connection: the driver's connection.
        timeout: seconds to try.
    """
    driver = driver_of(connection)
    with suppress(Exception):  # whatever comes of it, the connection is about to be closed
        if driver.can_cancel(_own(connection)):
            driver.cancel(_own(connection), timeout)
        else:
            hang_up(connection)


def is_for_threads(connection: DBAPIConnection | None) -> bool:
    """Return whether a connection is a driver's own, which awaits nothing."""
    return _own(connection) is connection


def backend_of(connection: DBAPIConnection | None) -> int | None:
    """Return the number that the server, in its greeting, gave to its end of a connection.

    Returns:
        ``None`` if there is none, or the connection is closed.
    """
    with suppress(Exception):
        return driver_of(connection).process_id(_own(connection))
    return None


def send(connection: DBAPIConnection, statements: str) -> int:
    """Send SQL to PostgreSQL as one message, in no transaction of the driver's, and not prepared.

    Returns:
        the number of rows of a single SELECT.

    Raises:
        NotImplementedError: the driver is not known to do it.
    """
    driver = driver_of(connection)
    if driver.send is None:
        raise NotImplementedError(f"{driver.name or 'this driver'} cannot send statements apart")
    return driver.send(_own(connection), statements)


def send_along(connection: DBAPIConnection, statement: str, parameters: list[str]) -> bool:
    """Send a statement together with the BEGIN before it, on a pipelined connection.

    Returns:
        whether that was done; otherwise the caller executes the statement.
    """
    pipelined: Callable[..., object] | None = getattr(_own(connection), "send_along", None)
    return pipelined is not None and bool(pipelined(statement, parameters))


def is_in_transaction(connection: DBAPIConnection | None) -> bool:
    """Return whether a transaction is open and has not failed; ``True`` if that is not known."""
    try:
        return driver_of(connection).is_in_transaction(_own(connection))
    except (AttributeError, ValueError):  # it is closed, or there is none any more
        return True


def has_failed_transaction(connection: DBAPIConnection | None) -> bool | None:
    """Return whether a connection's transaction has failed; ``None`` if the driver cannot know."""
    try:
        return driver_of(connection).has_failed_transaction(_own(connection))
    except Exception:  # noqa: BLE001 - it is closed: the COMMIT itself reports that
        return False


def listener(connection: DBAPIConnection) -> Callable[[], object]:
    """Return a function that is true if a connection's socket has news.

    On an idle connection that is its end, or a last notice; but it may be news that the server sent
    by itself, such as a NOTIFY. No round trip, under TLS too; about half a microsecond.
    """
    descriptor = descriptor_of(connection)
    if descriptor is None:
        return lambda: False
    return driver_of(connection).listener(_own(connection), descriptor)


def encryption_of(connection: DBAPIConnection) -> Encryption | Literal["local"] | None:
    """Return what a connection reports about its encryption.

    Returns:
        ``"local"`` if it does not leave this machine, through a socket file; ``None`` if the driver
        does not show it.
    """
    driver = driver_of(connection)
    if sockets.is_local(descriptor_of(connection)):
        return "local"
    return None if driver.encryption is None else driver.encryption(_own(connection))


def descriptor_of(connection: DBAPIConnection | None) -> int | None:
    """Return the descriptor of a connection's socket; ``None`` if it has none, or is closed."""
    with suppress(Exception):
        descriptor = driver_of(connection).descriptor(_own(connection))
        return None if descriptor is None or descriptor < 0 else descriptor
    return None


def disconnect_here(connection: DBAPIConnection | None, dead: int) -> None:
    """Make a connection useless in this process, and in no other that has it too.

    Its descriptor becomes a copy of another. Closing the connection would reach the server, and an
    event loop would take it out of the epoll that it shares with the process it came from.

    Args:
        connection: the driver's connection.
        dead: the descriptor of a socket that is connected to nothing.
    """
    with suppress(Exception):  # it is closed already
        driver = driver_of(connection)
        driver.disconnect_here(_own(connection), descriptor_of(connection), dead)


def hang_up(connection: DBAPIConnection | None) -> None:
    """Shut a connection's socket down, so that a thread or task that waits for it gets an error."""
    with suppress(Exception):  # it is closed already
        driver_of(connection).hang_up(_own(connection), descriptor_of(connection))


def is_entered(connection: DBAPIConnection | None) -> bool:
    """Return whether a holder may be inside the driver's C code, which must not lose it.

    psycopg keeps a pointer to libpq's structure while it waits for an answer, sqlite3 asks SQLite
    for more when a statement has returned, mysqlclient and MySQL Connector's extension have the
    interpreter's lock released: if the connection were closed meanwhile, the process would die
    (measured: one storm of 60). A driver that is not known counts as one of these.
    """
    return driver_of(connection).is_in_c(_own(connection))


def close_entered(connection: DBAPIConnection | None, timeout: float) -> None:
    """Close a connection as soon as no holder is inside; see ``is_entered``.

    Where that cannot be known, or takes longer, its holder closes it, who is outside by then. No
    entry has it any more: otherwise a garbage collection that comes while this thread has the
    driver's lock might roll it back, and wait for that lock.

    Args:
        connection: the driver's connection; it was cancelled, and hung up.
        timeout: seconds to wait.
    """
    driver_of(connection).close_entered(_own(connection), timeout)


def abandon(connection: DBAPIConnection | None) -> None:
    """Close the socket of a connection whose event loop is gone, and touch nothing else.

    Every orderly way to close it needs the loop.
    """
    with suppress(Exception):  # it is closed already
        driver_of(connection).abandon(_own(connection))


def close_from_outside(entry: ConnectionPoolEntry) -> None:
    """Close an idle connection without its event loop, where the driver has a way."""
    driver_of(entry.dbapi_connection).close_from_outside(entry)


def _own(connection: DBAPIConnection | None) -> Any:
    """Return what the driver made: SQLAlchemy wraps the connections of asynchronous drivers."""
    return getattr(connection, "driver_connection", connection)
