"""A process that forks, and its child: connections stay the parent's, the child opens its own.

After a fork, both processes have every connection. What the child says on one of them, and be it a
good-bye or the ROLLBACK of a session that it drops, the server takes for words of the parent: its
answers go astray, its transaction is gone without an error. So the child says nothing. Its pools
are new, its hands are off what was in use, and its copies of the sockets lead nowhere.

SQLite's library has no server that would tell the processes apart; it keeps notes of its locks on a
file, which the child inherits and takes for its own. What the child then commits may be lost. So
the parent closes its idle connections to files before it forks, and where some were in use, the
child does not open the file. https://sqlite.org/howtocorrupt.html, section 2.6.

How forks and attempts to connect keep out of each other's way: ``drivers.fork_gate``.
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
    """What wants to be told of forks."""

    def before_fork(self) -> None:
        """Put away what no process may take through a fork."""
        ...

    def start_anew(self) -> None:
        """Have nothing open, in the child."""
        ...


_forked: Final[WeakValueDictionary[int, Forked]] = WeakValueDictionary()
"""Whom to tell: an exemption from "no ambient state", for a process forks as a whole."""
_left: Final[list[DBAPIConnection]] = []
"""What the parent of this process has open. Never freed, for that would close it."""
_locked: Final[set[Path]] = set()
"""Files of SQLite that the parent of this process was using when it forked."""


class InheritedConnection(CutConnection):
    """Placeholder, in a forked child, for a connection that is the parent's."""

    error: type[SessionFactoryError] = ForkedConnectionError


def tell(forked: Forked) -> None:
    """Tell an object of every fork of this process, as long as it lives. Thread-safe."""
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
                    f"Sessions of the process from which process {os.getpid()} was forked had the"
                    f" SQLite file {str(file)!r} in use, and it cannot be opened safely here: fork"
                    ' while no session is open, or start processes by "spawn"'
                )


def leave_to_parent(ledger: Ledger, file: Path | None) -> None:
    """Make sure that this child does not use, close or free what its parent has open.

    Args:
        ledger: the books of the parent, which begin anew.
        file: the file of a SQLite database.
    """
    holds, inherited = ledger.start_anew()
    _left.extend(inherited)
    if inherited:
        connections.never_free(_left)
    if file is not None and inherited:
        _locked.add(file.resolve())
    for hold in holds:
        sqlalchemy_private.take_away(hold.proxy(), hold.record, _stand_in(hold, ledger.name))
    dead, other_end = socket.socketpair()
    other_end.close()
    with dead:
        for connection in inherited:
            connections.disconnect_here(connection, dead.fileno())


def _stand_in(hold: Checkout, name: str) -> InheritedConnection:
    return InheritedConnection(
        f"Process {os.getpid()} was forked while a session of {name!r} was in use, and its"
        f" connection stays with the parent process (taken at {hold.holder.where}). Close this"
        " session, which sends nothing, and open a new one; or fork while no session is open"
    )


def _explain(context: ExceptionContext) -> SessionFactoryError | None:
    """Say what it is about when reading on in a result fails, because the socket is dead."""
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    stand_in: object = connection.connection.dbapi_connection
    if not isinstance(stand_in, InheritedConnection):
        return None
    context.is_disconnect = False  # no reason to suspect the other connections of this process
    return stand_in.refusal


def between_forks(dialect: Dialect, connect: Connect) -> Connect:
    """Return a way to connect that no fork interrupts: see above."""
    if not families.of_dialect(dialect).has_server:
        return connect

    return partial(fork_gate.connect, connect)


def _told() -> list[Forked]:
    # Not by iterating over the dictionary: another thread may add to it meanwhile.
    return [forked for reference in _forked.valuerefs() if (forked := reference()) is not None]


def _before_fork() -> None:
    fork_gate.close()
    with ExitStack() as everybody:  # and if one fails, the others all the same
        for forked in _told():
            everybody.callback(forked.before_fork)


def _in_child() -> None:
    fork_gate.clear()
    sqlalchemy_private.free_counters()
    with ExitStack() as everybody:
        for forked in _told():
            everybody.callback(forked.start_anew)


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=fork_gate.reopen, after_in_child=_in_child
    )
