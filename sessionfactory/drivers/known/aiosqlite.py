"""aiosqlite, for the async half: sqlite3 in a thread for each connection."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.util.concurrency import await_only

from sessionfactory.drivers.driver import Driver
from sessionfactory.drivers.known import sqlite3

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry


def cancel(handle: Any, _timeout: float) -> None:
    """Interrupt the statement that runs on a connection."""
    await_only(handle.interrupt())


def is_in_c(_handle: Any) -> bool:
    """Return ``False``: whatever is asked of a connection is done by its own thread."""
    return False


def disconnect_here(handle: Any, _descriptor: int | None, _dead: int) -> None:
    """Stop using a connection in a forked child: its thread is not in this process.

    A call would never be answered, and there is no public switch.
    """
    handle._running = False  # noqa: SLF001


def abandon(handle: Any) -> None:
    """Stop a connection's thread, which closes the file. It wants an event loop: in a thread."""
    stop = threading.Thread(target=handle.stop)
    stop.start()
    stop.join()


def close_from_outside(entry: ConnectionPoolEntry) -> None:
    """Close an idle connection without its event loop, and wait until it is closed.

    ``tests/engine/test_forks.py`` notices if the thread moves. Before 0.22.1 there is no way.
    """
    driver: Any = entry.driver_connection
    if hasattr(driver, "stop"):
        # In a thread: it would make an event loop here, if none runs.
        closing = threading.Thread(target=entry.invalidate)
        closing.start()
        closing.join()
        driver._thread.join()  # noqa: SLF001


DRIVER: Final = Driver(
    name="aiosqlite",
    install="aiosqlite",
    code_table="sqlite",
    codes=sqlite3.codes,
    opens_in_thread=True,
    query_keys=sqlite3.query_keys,
    can_cancel=sqlite3.can_cancel,
    cancel=cancel,
    is_in_transaction=sqlite3.is_in_transaction,
    descriptor=sqlite3.no_descriptor,
    is_in_c=is_in_c,
    abandon=abandon,
    disconnect_here=disconnect_here,
    close_from_outside=close_from_outside,
)
