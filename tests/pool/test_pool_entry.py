"""Permits come back once; SQLAlchemy's records are what a fair pool takes them for."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.pool import NullPool, QueuePool

from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.pool_entry import Permits, PoolEntry, deadline_of

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry

    from tests.support.sqlite_pools import Databases


class Told:
    """Counts the returns."""

    def __init__(self) -> None:
        self.times = 0

    def once(self) -> None:
        self.times += 1


def taken(pool: FairPool, permits: Permits) -> PoolEntry | None:
    """Return a record with a permit, if there is one left."""
    record = PoolEntry(pool, permits)
    return record if permits.take(record) else None


def test_as_many_as_there_are(databases: Databases) -> None:
    """There are as many permits as may be; one that came back is given again."""
    told, pool = Told(), FairPool(databases.connect)
    permits = Permits(2, told.once)
    first, second = PoolEntry(pool, permits), PoolEntry(pool, permits)
    assert permits.take(first)
    assert permits.take(second)
    assert permits.all_taken
    assert taken(pool, permits) is None
    permits.give_back(first)
    permits.give_back(first)
    assert (len(permits), told.times) == (1, 1)
    assert taken(pool, permits) is not None


def test_any_number(databases: Databases) -> None:
    """Without a limit there is always another one."""
    told, pool = Told(), FairPool(databases.connect)
    permits = Permits(None, told.once)
    records = [taken(pool, permits) for _ in range(100)]
    assert None not in records
    assert not permits.all_taken


def test_record_without_a_permit(databases: Databases) -> None:
    """A record that never had a permit gives none back."""
    told = Told()
    permits = Permits(1, told.once)
    permits.give_back(PoolEntry(FairPool(databases.connect), permits))
    assert (len(permits), told.times) == (0, 0)


def test_lost_record_gives_its_permit_back(databases: Databases) -> None:
    """The permit of a dropped pool entry is there again."""
    told, pool = Told(), FairPool(databases.connect)
    permits = Permits(1, told.once)
    assert taken(pool, permits) is not None
    gc.collect()
    assert (len(permits), told.times) == (0, 1)


def test_last_permit_comes_back_as_it_is_asked_for(databases: Databases) -> None:
    """A waiter that finds no free connection looks again: one may have been returned meanwhile."""
    told, pool = Told(), FairPool(databases.connect)
    permits = Permits(1, told.once)
    first = PoolEntry(pool, permits)
    assert permits.take(first)

    class Watched(dict["weakref.ref[PoolEntry]", None]):
        def __delitem__(self, key: weakref.ref[PoolEntry]) -> None:
            super().__delitem__(key)
            permits.give_back(first)

    permits._taken = Watched(permits._taken)
    second = taken(pool, permits)
    assert second is not None
    assert list(permits._taken) == [second.permit]


def test_record_without_a_connection(databases: Databases) -> None:
    """SQLAlchemy's record is made without a connection, and connects when it is told to."""
    pool = FairPool(databases.connect)
    record = PoolEntry(pool, pool._entries.permits)
    assert (databases.opened, record.record_info, record.info) == (0, {}, {})
    connection = record.get_connection()
    assert record.dbapi_connection is connection
    assert databases.opened == 1


def test_deadline(databases: Databases) -> None:
    """A listener can read until when the checkout has to end, if it has to."""
    found: dict[str, float | None] = {}

    def note(name: str) -> Callable[..., None]:
        def listener(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
            found[name] = deadline_of(record)

        return listener

    pools = {
        "fair": FairPool(databases.connect, timeout=3600),
        "endless": FairPool(databases.connect, timeout=None),
        "queue": QueuePool(databases.connect),
        "null": NullPool(databases.connect),
    }

    for name, pool in pools.items():
        event.listen(pool, "checkout", note(name))
        pool.connect().close()
    fair = found.pop("fair")
    assert fair is not None
    assert fair > 3600
    assert found == {"endless": None, "queue": None, "null": None}
