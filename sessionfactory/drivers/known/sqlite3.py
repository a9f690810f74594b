"""sqlite3 of the standard library, for the sync half."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers.driver import Code, Driver

if TYPE_CHECKING:
    from sqlalchemy import URL


_KEYS: Final = frozenset(
    {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
)


def codes(error: BaseException) -> list[Code]:
    """Return the primary code of an error; SQLite's extended codes have it in their last byte."""
    code: object = getattr(error, "sqlite_errorcode", None)
    return [code & 0xFF] if isinstance(code, int) else []


def query_keys(url: URL, _dbapi: Any) -> frozenset[str]:
    """Return what SQLAlchemy takes out of a query, and all of SQLite's own in a ``file:`` URI."""
    return _KEYS | (frozenset(url.query) if "uri" in url.query else frozenset[str]())


def can_cancel(_handle: Any) -> bool:
    """Return ``True``."""
    return True


def cancel(handle: Any, _timeout: float) -> None:
    """Interrupt the statement that runs on a connection."""
    handle.interrupt()


def no_descriptor(_handle: Any) -> int | None:
    """Return ``None``: there is no socket."""
    return None


def disconnect_here(handle: Any, _descriptor: int | None, _dead: int) -> None:
    """End the open cursors of a connection in a forked child; it touches no file."""
    handle.interrupt()


def is_in_c(_handle: Any) -> bool:
    """Return ``True``: a holder may read on in SQLite's C code when a statement has returned."""
    return True


def close_entered(handle: Any, _timeout: float) -> None:
    """Give the locks on the file back. It waits for SQLite's own lock; the holder closes it."""
    with suppress(Exception):
        handle.rollback()


def is_in_transaction(handle: Any) -> bool:
    """Return whether a transaction is open."""
    return bool(handle.in_transaction)


DRIVER: Final = Driver(
    name="pysqlite",
    code_table="sqlite",
    codes=codes,
    query_keys=query_keys,
    can_cancel=can_cancel,
    cancel=cancel,
    is_in_transaction=is_in_transaction,
    descriptor=no_descriptor,
    is_in_c=is_in_c,
    close_entered=close_entered,
    disconnect_here=disconnect_here,
)
