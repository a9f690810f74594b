"""Drains an engine: waits for the connections that are out, cancels statements, then closes."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Never, TypeAlias, cast

from sessionfactory.clock import monotonic
from sessionfactory.drivers import connections, server_processes, sqlalchemy_private
from sessionfactory.errors import ClosedError
from sessionfactory.pool.owners import current_task
from sessionfactory.pool.waiting import TookLongerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.errors import SessionFactoryError
    from sessionfactory.pool.fair import FairPool
    from sessionfactory.pool.ledger import Checkout, Ledger
    from sessionfactory.pool.waiting import Waiting
    from sessionfactory.status import Holder

CutHold: TypeAlias = "tuple[Checkout, Holder]"
_GRACE: Final = 0.2
"""Seconds that a cancelled statement has to give its connection back before that is closed, and
then as many to close it: ``close(timeout=T)`` returns by T + 0.5 s."""
LATEST: Final = 0.5
"""Seconds after its time limit by which ``close`` has returned."""
_AGAIN: Final = 0.02
"""Seconds between two cancellations of the same statement."""


class CutConnection:
    """Placeholder for a connection that was force-closed while checked out.

    ``rollback`` and ``close``, which end its use, succeed; all else raises.

    Attributes:
        left: the connection, if its holder closes it, who at that moment runs nothing on it.
    """

    error: type[SessionFactoryError] = ClosedError
    """What it raises."""

    def __init__(self, message: str) -> None:
        self._message = message
        self.left: DBAPIConnection | None = None

    @property
    def refusal(self) -> SessionFactoryError:
        """The error that explains why the connection was closed."""
        return self.error(self._message)

    closed = True
    """As on drivers' connections; psycopg's cursors read it."""

    @property
    def driver_connection(self) -> CutConnection:
        """The placeholder: there is no connection of a driver behind it."""
        return self

    def rollback(self) -> None:
        """Roll nothing back: the transaction ended with its connection."""
        self.close()

    def close(self) -> None:
        """Close the connection, if that was left to its holder."""
        left, self.left = self.left, None
        if left is not None:
            with suppress(Exception):  # it was hung up
                left.close()

    def terminate(self) -> None:
        """Close the connection, if that was left to its holder."""
        self.close()

    def commit(self) -> Never:
        """Raise an error: nothing was committed."""
        raise self.refusal

    def __getattr__(self, name: str) -> Never:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.refusal


def cut_own(ledger: Ledger, waiting: Waiting) -> tuple[CutHold, ...]:
    """Close the connections of this thread or task, which cannot return them while it waits here.

    Returns:
        the checkouts that were closed, and their holders.
    """
    own = tuple(hold for hold in ledger.checkouts if _is_ours(hold))
    cut = tuple((hold, hold.holder) for hold in own)
    _cut(ledger, own, waiting, [], _close_own)
    return cut


def drain(
    engine: Engine,
    ledger: Ledger,
    deadline: float,
    waiting: Waiting,
    cut: tuple[CutHold, ...],
) -> tuple[Holder, ...]:
    """Wait until no connection is out; close those that are late, here and on the server.

    Args:
        engine: the engine that is closed.
        ledger: the engine's ledger.
        deadline: the time by which connections may be returned, on the monotonic clock.
        waiting: how this half waits.
        cut: checkouts that were closed already, because the closing thread or task held them.

    Returns:
        the holders that were cut off.
    """
    own, holders = [hold for hold, _ in cut], [holder for _, holder in cut]
    waiting.until(lambda: not ledger.checkouts, ledger, deadline)
    end = min(monotonic(), deadline) + 2 * _GRACE
    late = ledger.checkouts
    holders += [hold.holder for hold in late]
    if late and all(connections.can_cancel(hold.record.dbapi_connection) for hold in late):
        _cancel_all(ledger, late, waiting)
        still = ledger.still_out(late)
        _cut(ledger, still, waiting, _ending(engine, ledger, still, waiting))
    elif late:  # the driver cannot cancel: another connection ends the server's processes
        waiting.side_by_side(_ending(engine, ledger, late, waiting), _GRACE)
        back_by = monotonic() + _AGAIN
        waiting.until(lambda: not ledger.still_out(late), ledger, back_by)
        _cut(ledger, ledger.still_out(late), waiting, [])
    _settle(cast("FairPool", engine.pool), (*own, *late), end, ledger, waiting)
    return tuple(holders)


def dispose(engine: Engine, ledger: Ledger, waiting: Waiting) -> None:
    """Close the idle connections; hang up those that a silent network does not let close."""
    # Drivers for threads only send the end; asyncpg waits until the server has closed, too.
    waits = engine.dialect.is_async
    hang_up = partial(_hang_up, ledger.open)  # those that are open at this line
    with suppress(TookLongerError), waiting.alarm(_GRACE, hang_up) if waits else nullcontext():
        waiting.certainly(engine.dispose)


def _settle(
    pool: FairPool, closed: tuple[Checkout, ...], end: float, ledger: Ledger, waiting: Waiting
) -> None:
    """Wait for checkouts that have begun and are about to be refused, and for waiters that leave.

    Otherwise a checkout that was connecting would open its connection after ``close`` returned. A
    waiter that was refused counts until its thread or task has run.
    """

    def is_settled() -> bool:
        return not ledger.waiting and pool.taken() <= sum(hold.record.in_use for hold in closed)

    while not is_settled() and monotonic() < end:
        waiting.until(is_settled, ledger, monotonic() + _AGAIN)  # no event marks it


def _cancel_all(ledger: Ledger, holds: tuple[Checkout, ...], waiting: Waiting) -> None:
    """Cancel statements, so that their holders return the connections, and wait for that."""
    end = monotonic() + _GRACE
    while monotonic() < end and ledger.still_out(holds):
        # Repeatedly: a cancellation does not affect a statement that begins after it.
        late = ledger.still_out(holds)
        waiting.side_by_side([partial(_cancel, hold) for hold in late], end - monotonic())
        again = monotonic() + _AGAIN
        waiting.until(lambda: not ledger.still_out(holds), ledger, again)


def _ending(
    engine: Engine, ledger: Ledger, holds: tuple[Checkout, ...], waiting: Waiting
) -> list[Callable[[], None]]:
    """Return functions that end the processes of checkouts on the server."""
    numbers = [connections.backend_of(hold.record.dbapi_connection) for hold in holds]

    def pause(seconds: float) -> None:
        waiting.until(lambda: False, ledger, monotonic() + seconds)

    return [partial(server_processes.end, engine, numbers, pause)] if holds else []


def _cut(
    ledger: Ledger,
    holds: tuple[Checkout, ...],
    waiting: Waiting,
    meanwhile: list[Callable[[], None]],
    close: Callable[[Checkout], None] | None = None,
) -> None:
    """Close connections that are checked out."""
    message = f"The session factory {ledger.name!r} was closed, and this connection with it"
    take_from_holders(ledger, message, holds)
    closing = [partial(close or _close, hold) for hold in holds]
    waiting.side_by_side([*meanwhile, *closing], _GRACE)


def take_from_holders(
    ledger: Ledger, message: str, holds: tuple[Checkout, ...] | None = None
) -> None:
    """Put placeholders in the place of connections (by default all): their holders get errors."""
    for hold in ledger.checkouts if holds is None else holds:
        sqlalchemy_private.put_in_place(hold.proxy(), CutConnection(message))
        ledger.remove(hold)


def _cancel(hold: Checkout) -> None:
    connections.cancel(hold.record.dbapi_connection, _GRACE)


def _close(hold: Checkout) -> None:
    _cancel(hold)
    connection = hold.record.dbapi_connection
    if not connections.is_entered(connection):
        hold.record.invalidate()
        return
    proxy = hold.proxy()
    placeholder: object = None if proxy is None else proxy.dbapi_connection
    if isinstance(placeholder, CutConnection) and connections.is_for_threads(connection):
        placeholder.left = connection
    connections.hang_up(connection)
    connections.close_entered(sqlalchemy_private.part_with(hold.record), _GRACE)


def _close_own(hold: Checkout) -> None:
    if hold.proxy() is None:  # dropped: garbage collection may roll it back in another thread
        _close(hold)
        return
    connection = hold.record.dbapi_connection
    if not connections.can_cancel(connection):  # idle, but an orderly close may take long
        connections.hang_up(connection)
    hold.record.invalidate()


def _hang_up(opened: tuple[DBAPIConnection, ...]) -> None:
    for connection in opened:
        connections.hang_up(connection)


def _is_ours(hold: Checkout) -> bool:
    task = current_task()
    return hold.task is task and (task is not None or hold.thread is threading.current_thread())
