"""A process that forks, and its child: connections stay the parent's, the child opens its own.

After a fork, both processes share every socket. The server cannot distinguish them: anything that
the child sends, even an orderly close or the ROLLBACK of a session that it drops, ends or disturbs
the parent's transaction, without an error. So the child sends nothing. It gets new pools, the
connections that were in use are poisoned, and its copies of the sockets are disconnected.

SQLite has no server. Its library records in the process which locks it has on a file, and the child
inherits these records without the locks, so that its commits may be lost. So the parent closes its
idle connections to files before it forks, and if some were in use, the child refuses to open the
file. https://sqlite.org/howtocorrupt.html, section 2.6.

``drivers.fork_gate`` makes a fork wait for threads that are connecting.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

from sqlalchemy import event

from sessionfactory.drivers import connections, families, fork_gate, sqlalchemy_private
from sessionfactory.engine.drain import CutConnection
from sessionfactory.errors import ForkedConnectionError, SessionFactoryError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Dialect, Engine, ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.drivers.sqlalchemy_private import Connect
    from sessionfactory.pool.ledger import Checkout, Ledger


class Forked(Protocol):
    """An object that is notified of forks."""

    def before_fork(self) -> None:
        """Close what a child must not inherit."""
        ...

    def start_anew(self) -> None:
        """Drop everything that was inherited, in the child."""
        ...


_forked: Final[WeakValueDictionary[int, Forked]] = WeakValueDictionary()
"""The objects to notify. Module-level state is allowed here: a process forks as a whole."""
_inherited: Final[list[DBAPIConnection]] = []
"""Connections of the parent process. Never freed, because that would close them."""
_locked: Final[set[Path]] = set()
"""SQLite files that the parent process had in use when it forked."""


class InheritedConnection(CutConnection):
    """Placeholder, in a forked child, for a connection that is the parent's."""

    error: type[SessionFactoryError] = ForkedConnectionError


def register(forked: Forked) -> None:
    """Notify an object of every fork of this process, as long as it lives. Thread-safe."""
    _forked[id(forked)] = forked


def guard(engine: Engine, file: Path | None) -> None:
    """Make an engine report what a fork did to its connections, and refuse a file that was in use.

    Args:
        engine: the engine.
        file: the file of a SQLite database.
    """
    event.listen(engine, "handle_error", _explain, retval=True)
    if file is not None:
        path = file.resolve()

        @event.listens_for(engine, "do_connect")
        def refuse(*_: object) -> None:
            if path in _locked:
                raise ForkedConnectionError(
                    f"The parent of process {os.getpid()} had sessions open on the SQLite file"
                    f" {str(file)!r} when it forked, and the child cannot open it safely: fork"
                    ' while no session is open, or start processes by "spawn"'
                )


def leave_to_parent(ledger: Ledger, file: Path | None) -> None:
    """Make sure that this child does not use, close or free what its parent has open.

    Args:
        ledger: the ledger as the parent left it; it is cleared.
        file: the file of a SQLite database.
    """
    holds, inherited = ledger.start_anew()
    _inherited.extend(inherited)
    if inherited:
        connections.never_free(_inherited)
    if file is not None and inherited:
        _locked.add(file.resolve())
    for hold in holds:
        sqlalchemy_private.take_away(hold.proxy(), hold.record, _placeholder(hold, ledger.name))
    dead, other_end = socket.socketpair()
    other_end.close()
    with dead:
        for connection in inherited:
            connections.disconnect_here(connection, dead.fileno())


def _placeholder(hold: Checkout, name: str) -> InheritedConnection:
    return InheritedConnection(
        f"Process {os.getpid()} was forked while a session of {name!r} was in use, and its"
        f" connection stays with the parent process (taken at {hold.holder.where}). Close this"
        " session, which sends nothing, and open a new one; or fork while no session is open"
    )


def _explain(context: ExceptionContext) -> SessionFactoryError | None:
    """Explain the error of a read from a result whose socket this child disconnected."""
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    placeholder: object = connection.connection.dbapi_connection
    if not isinstance(placeholder, InheritedConnection):
        return None
    context.is_disconnect = False  # the pool's other connections are this child's own
    return placeholder.refusal


def between_forks(dialect: Dialect, connect: Connect) -> Connect:
    """Return a ``connect`` during which no fork happens."""
    if not families.of_dialect(dialect).has_server:
        return connect

    return partial(fork_gate.connect, connect)


def _registered() -> list[Forked]:
    # Not by iterating over the dictionary: another thread may add to it meanwhile.
    return [forked for reference in _forked.valuerefs() if (forked := reference()) is not None]


def _before_fork() -> None:
    fork_gate.close()
    with ExitStack() as notifications:  # all run, even if one raises
        for forked in _registered():
            notifications.callback(forked.before_fork)


def _in_child() -> None:
    fork_gate.clear()
    sqlalchemy_private.free_counters()
    with ExitStack() as notifications:
        for forked in _registered():
            notifications.callback(forked.start_anew)


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=fork_gate.reopen, after_in_child=_in_child
    )
