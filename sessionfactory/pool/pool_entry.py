"""The entries of a fair pool, and how many there may be."""

from __future__ import annotations

import weakref
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.pool.base import _ConnectionRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, Pool


class Permits:
    """The right to have a connection, as often as there may be connections. Thread-safe.

    A permit is a weak reference to the record that has it. So there are never fewer than there
    ought to be: a signal handler may raise between any two instructions, and a record that these
    had in hand is lost, but its permit comes back with the garbage.

    Without locks, as ``handoff`` is, and for the same reasons.

    Args:
        limit: how many there are; ``None`` for any number.
        returned: called when one came back.
    """

    def __init__(self, limit: int | None, returned: Callable[[], None]) -> None:
        self._limit = limit
        self._taken: dict[weakref.ref[FairRecord], None] = {}
        self._returned = returned

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._taken)

    @property
    def all_taken(self) -> bool:
        """Whether there is none left at this moment."""
        return self._limit is not None and len(self._taken) >= self._limit

    def take(self, record: FairRecord) -> bool:
        """Take one for a record; ``False`` if there is none left."""
        permit = record.permit = weakref.ref(record, self._lost)
        while True:
            # First taken, then looked whether it was one too many: of those who do so at the same
            # time, the dictionary knows who came first.
            self._taken[permit] = None
            if self._limit is None or list(self._taken).index(permit) < self._limit:
                return True
            del self._taken[permit]
            if self.all_taken:  # else one came back meanwhile, perhaps to be told that this had it
                return False

    def give_back(self, record: FairRecord) -> None:
        """Take a record's permit back, and say so; once more has no effect."""
        if record.permit is not None:
            self._lost(record.permit)

    def _lost(self, permit: weakref.ref[FairRecord]) -> None:
        if self._taken.pop(permit, self) is None:
            self._returned()


class FairRecord(_ConnectionRecord):
    """What SQLAlchemy keeps a connection in, which comes and goes meanwhile: an entry of a pool.

    The class is private there, but all that a pool has for an entry that has no connection yet:
    ``Pool._create_connection`` connects at once, before anybody could say until when.
    ``tests/pool/test_pool_entry.py`` notices if it changes.

    Attributes:
        permits: where its permit is from, and goes back to.
        permit: that permit.
        unused: whether there never was a connection: it is the right to open one.
        deadline: until when the checkout under way has to end, on the monotonic clock.
        due: when the connection is to be replaced by a fresh one, on the monotonic clock.
        opened: told of each connection as the driver opened it, before it is set up.
    """

    __slots__ = ("_connect", "_pool", "deadline", "due", "opened", "permit", "permits", "unused")

    def __init__(
        self, pool: Pool, permits: Permits, connect: Callable[[FairRecord], None] | None = None
    ) -> None:
        super().__init__(pool, connect=False)
        self._pool = pool
        self.permits: Permits = permits
        self.permit: weakref.ref[FairRecord] | None = None
        self.unused: bool = True
        self.deadline: float | None = None
        self.due: float = inf
        self.opened: Callable[[DBAPIConnection], None] | None = None
        self._connect = connect or FairRecord.connect_here

    # SQLAlchemy's private name for the step that opens a connection and has listeners set it up,
    # wherever one is missing: ``tests/pool/test_connector.py`` notices if it moves.
    def _ConnectionRecord__connect(self) -> None:  # noqa: N802
        self._connect(self)

    def connect_here(self) -> None:
        """Open a connection and have it set up, however long it takes."""
        _CONNECT(self)

    def stand_in(self) -> FairRecord:
        """Return a record without a permit, in which a connection is opened for this one."""
        record = FairRecord(self._pool, self.permits, self._connect)
        record.deadline = self.deadline
        record._notes.update(self._notes)
        return record

    def take_over(self, other: FairRecord) -> None:
        """Have the connection of another record, which has none then."""
        mine, theirs = cast("_ConnectionRecord", self), cast("_ConnectionRecord", other)
        mine.dbapi_connection, theirs.dbapi_connection = theirs.dbapi_connection, None
        mine.starttime, mine.fresh = theirs.starttime, True
        self.due = other.due
        self.info.update(other.info)
        self._notes.update(other._notes)

    @property
    def _notes(self) -> dict[Any, Any]:
        return cast("dict[Any, Any]", self.record_info)  # which no record is without


_CONNECT: Final[Callable[[_ConnectionRecord], None]] = vars(_ConnectionRecord)[
    "_ConnectionRecord__connect"
]


def deadline_of(record: ConnectionPoolEntry) -> float | None:
    """Return until when the checkout under way has to end, on the monotonic clock.

    For listeners to ``do_connect``, ``connect`` and ``checkout``, which are given the record.

    Returns:
        ``None`` if nothing limits it: the pool has no timeout, or is not a fair one.
    """
    return record.deadline if isinstance(record, FairRecord) else None
