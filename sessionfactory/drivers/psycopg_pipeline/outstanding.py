"""What is true of a connection while a BEGIN, or the answer to an end, is outstanding."""

from __future__ import annotations

from functools import lru_cache

from psycopg import ConnectionInfo
from psycopg.pq import TransactionStatus


@lru_cache
def promises_of(begin: bytes) -> tuple[bool, bool]:
    """Return what a BEGIN promises: whether its transaction only reads, and its end is not awaited.

    Returns:
        whether it does, and whether it depends on the isolation level, which is the session's
        default. What SERIALIZABLE has read is true only once COMMIT has succeeded, unless it is
        DEFERRABLE.
    """
    words = begin.split()
    reads = b"ONLY" in words
    if b"DEFERRABLE" in words and b"NOT" not in words:
        return reads, False
    return reads and b"SERIALIZABLE" not in words, reads and b"LEVEL" not in words


class Begun(ConnectionInfo):
    """Facts about a connection whose transaction has begun, but for the BEGIN that is to come."""

    @property
    def transaction_status(self) -> TransactionStatus:
        """The status that users of the connection see."""
        return TransactionStatus.INTRANS


class Ended(ConnectionInfo):
    """Facts about a connection whose transaction is over, but for the answer to its end."""

    @property
    def transaction_status(self) -> TransactionStatus:
        """The status that users of the connection see."""
        return TransactionStatus.IDLE
