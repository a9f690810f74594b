"""What has no public name in SQLAlchemy: a function for each thing, and a test that watches it."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from sqlalchemy import event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.orm import Session
from sqlalchemy.orm.session import _SessionCloseState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sqlalchemy import Connection, Dialect, Engine, ForeignKeyConstraint
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.event.base import _DispatchCommon
    from sqlalchemy.event.registry import _ListenerFnType
    from sqlalchemy.log import _EchoFlagType
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection
    from sqlalchemy.pool.base import _ConnDialect, _ConnectionFairy, _ResetStyleArgType

    Connect = Callable[..., DBAPIConnection]

_COUNTERS: Final = (
    ("sqlalchemy.orm.session", "_new_sessionid"),
    ("sqlalchemy.orm.loading", "_new_runid"),
    ("sqlalchemy.dialects.postgresql._psycopg_common", "_server_side_id"),
)

_LISTENING: Final = "sessionfactory_listening"

entry_of: Final[Callable[[PoolProxiedConnection], ConnectionPoolEntry]] = attrgetter(
    "_connection_record"
)
"""Returns the pool's entry for a connection that was checked out just now.

A listener to ``checkout`` is given it, too, but to have one costs more than all that we do there.
``tests/pool/test_tracked.py`` notices if it moves.
"""


class PoolOptions(TypedDict, total=False):
    """The keywords of every ``sqlalchemy.pool.Pool``, as SQLAlchemy documents them there."""

    recycle: int
    echo: _EchoFlagType
    logging_name: str | None
    reset_on_return: _ResetStyleArgType
    events: list[tuple[_ListenerFnType, str]] | None
    dialect: _ConnDialect | Dialect | None
    pre_ping: bool
    _dispatch: _DispatchCommon[Pool] | None


class _Derived(OptionEngine):
    """An engine derived by ``execution_options`` from one of ours; it connects as that one does."""

    def __init__(self, proxied: Engine, execution_options: Any) -> None:
        self._connection_cls = proxied._connection_cls  # noqa: SLF001
        self._option_cls = _Derived
        super().__init__(proxied, execution_options)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection from the pool, as the engine does from which this one comes."""
        return self._proxied.raw_connection()

    def update_execution_options(self, **options: Any) -> None:
        """Update the default execution options, unless the connections would refuse them."""
        refuse = getattr(self._connection_cls, "refuse_options", None)
        if refuse is not None:
            refuse(options)
        super().update_execution_options(**options)


def connect_as(engine: Engine, connection_class: type[Connection]) -> None:
    """Make an engine, and those derived from it, open connections of a class.

    The class may have a static method ``refuse_options``, which raises for execution options that
    no derived engine may have. Events would cost each statement of the engine.
    ``tests/engine/test_sqlite_begin.py`` notices if one of these names moves.
    """
    engine._connection_cls = connection_class  # noqa: SLF001
    engine._option_cls = _Derived  # noqa: SLF001


def derived_from(engine: Engine) -> Iterator[Engine]:
    """Yield the engines that an engine was derived from by ``execution_options``, nearest first.

    ``tests/transactions/test_options.py`` notices if the name moves.
    """
    while isinstance(engine, OptionEngine):
        engine = engine._proxied  # noqa: SLF001
        yield engine


def pool_of(connection: PoolProxiedConnection) -> Pool:
    """Return the pool that a connection came from.

    ``tests/engine/test_sqlite_begin.py`` notices if it moves.
    """
    return cast("_ConnectionFairy", connection)._pool  # noqa: SLF001


def isolation_level_of(engine: Engine) -> str | None:
    """Return the isolation level that an engine was made with; ``None`` for the database's default.

    What is public asks the database. ``tests/transactions/test_options.py`` notices if it moves.
    """
    level = engine.get_execution_options().get("isolation_level")
    dialect: Any = engine.dialect
    found: str | None = level or dialect._on_connect_isolation_level  # noqa: SLF001
    return None if found is None else str(found).upper().replace("_", " ")


def fail_checkout(proxy: PoolProxiedConnection, error: BaseException) -> None:
    """Close a connection that was checked out just now, and have its pool know.

    What SQLAlchemy does where a listener to ``checkout`` raises. ``proxy.invalidate()`` would keep
    the place of the connection if it is cancelled while it closes in an orderly way.
    ``tests/pool/test_tracked.py`` notices if it moves.
    """
    entry: Any = entry_of(proxy)
    entry._checkin_failed(error)  # noqa: SLF001


@contextmanager
def between_transactions(session: Session) -> Generator[None]:
    """Let a session be used before the scope of its last transaction, which has ended, is left.

    SQLAlchemy refuses that, because code after a commit within ``with session.begin():`` may be
    meant for that transaction. What runs after a commit is called from the end of that scope, and
    means another transaction. ``tests/contract/test_on_commit.py`` fails if it moves.
    """
    using: Any = session
    scope, using._trans_context_manager = using._trans_context_manager, None  # noqa: SLF001
    try:
        yield
    finally:
        using._trans_context_manager = scope  # noqa: SLF001


def put_in_place(proxy: PoolProxiedConnection | None, stand_in: object) -> None:
    """Replace the connection of ``proxy`` by ``stand_in``, for its holder, if there still is one.

    The attribute is documented for reading only. Writing it is the one way to end a connection that
    another thread has, and give its holder an error of ours: ``tests/engine/test_close``
    notices if that changes.
    """
    if proxy is not None:
        cast("_ConnectionFairy", proxy).dbapi_connection = cast("DBAPIConnection", stand_in)


def take_away(
    proxy: PoolProxiedConnection | None, record: ConnectionPoolEntry, stand_in: object
) -> None:
    """Take a connection that is out from its holder and from its pool, which gets no notice.

    That is ``PoolProxiedConnection.detach`` without the pool, whose lock a thread may have had that
    a forked process does not have. Whoever drops or closes the proxy now returns nothing.
    ``tests/engine/test_forks.py`` notices if one of these attributes moves.
    """
    entry: Any = record
    entry.fairy_ref = entry.dbapi_connection = None
    if proxy is not None:
        cast("_ConnectionFairy", proxy)._connection_record = None  # noqa: SLF001
        put_in_place(proxy, stand_in)


def part_with(record: ConnectionPoolEntry) -> DBAPIConnection | None:
    """Take a connection from its entry, as ``invalidate()`` does, and leave its closing to others.

    Listeners run. ``tests/engine/test_close_entered.py`` notices if one of these names moves.
    """
    entry: Any = record
    connection: DBAPIConnection | None = entry.dbapi_connection
    try:
        if connection is not None:
            dispatch = entry._ConnectionRecord__pool.dispatch  # noqa: SLF001
            dispatch.invalidate(connection, record, None)
            dispatch.close(connection, record)
    finally:
        entry.dbapi_connection = None
    return connection


def free_first_connect(pool: Pool) -> None:
    """Free the lock under which SQLAlchemy opens the first connection of an engine.

    The thread that had it does not exist in a forked process. ``tests/engine/test_forks.py``
    notices if it moves.
    """
    listeners: Any = pool.dispatch.connect
    listeners.for_modify(pool.dispatch)._exec_once_mutex = None  # noqa: SLF001


def connect_first_concurrently(pool: Pool) -> None:
    """Let several event loops open the first connection of an async engine at the same time.

    SQLAlchemy does so under a lock of asyncio, in which a second loop waits for ever. Without it,
    each of the first connections sets the dialect up, which comes to the same.
    ``tests/pool/test_many_loops.py`` fails if the attribute moves.
    """
    listeners: Any = pool.dispatch.connect
    listeners.for_modify(pool.dispatch)._exec_once_mutex = nullcontext()  # noqa: SLF001


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


def open_apart(pool: Pool) -> DBAPIConnection:
    """Open a connection as a pool does, which the pool does not have.

    ``Pool.recreate`` is the public way to a pool's creator, but for a pool of the same kind only.
    ``tests/engine/test_close_servers.py`` notices if it moves.
    """
    return cast("Any", pool)._invoke_creator(None)  # type: ignore[no-any-return]  # noqa: SLF001


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


def of_transaction(transaction: SessionTransaction) -> list[Connection]:
    """Return the connections that a session's transaction has, or had before it ended.

    There is no public name. ``tests/transactions/test_retrying.py`` notices if it moves.
    """
    return list({entry[0] for entry in transaction._connections.values()})  # noqa: SLF001


def is_autocommit(connection: Connection) -> bool:
    """Return whether each statement of a connection commits by itself, by any option.

    What is public asks the database. ``tests/transactions/test_retrying.py`` notices if it moves.
    """
    return bool(connection._is_autocommit_isolation())  # noqa: SLF001


def is_left_to_alter(key: ForeignKeyConstraint) -> bool:
    """Return whether no CREATE TABLE has a foreign key any more, since an ALTER TABLE made it once.

    ``AddConstraint``, which ``create_all`` uses for tables that point at each other, gives the key
    a rule for good, as nothing else does; a key with a ``ddl_if`` goes by that. The rule has no
    public name: ``tests/testing/test_memory.py`` notices if it moves.
    """
    return key._create_rule is not None and key._ddl_if is None  # noqa: SLF001


def is_closed_for_good(session: Session) -> bool:
    """Return whether a session was closed that does not open again (``close_resets_only=False``).

    ``tests/sessions/test_lost_sessions.py`` fails if the attribute moves.
    """
    return session._close_state is _SessionCloseState.CLOSED  # noqa: SLF001


def close_blank(session: Session) -> bool:
    """Close a session of which ``close()`` has nothing to end or expunge; return whether it did.

    ``close()`` takes longer than to open the session, for it makes new maps in the place of the
    empty ones. What shows that they are empty has no public name:
    ``tests/sessions/test_guarded_session.py`` fails if one of these moves, or if ``close()`` does
    more one day.
    """
    if (
        session._transaction is not None  # noqa: SLF001
        or session._new  # noqa: SLF001
        or session._deleted  # noqa: SLF001
        or session.identity_map._dict  # noqa: SLF001
        or type(session).expunge_all is not Session.expunge_all
    ):
        return False
    if session._close_state is _SessionCloseState.ACTIVE:  # noqa: SLF001
        session._close_state = _SessionCloseState.CLOSED  # noqa: SLF001
    return True


def listen_once(engine: Engine, name: str, listener: Callable[..., object], **how: Any) -> None:
    """Make a function listen to an event of an engine, unless it does so already. Thread-safe.

    Not by ``event.contains``: that knows an engine by its ``id``, and takes it for another one,
    which is gone, as long as the dialect or the pool of that one is not.

    Args:
        engine: which remembers it.
        name: the event's.
        listener: the function.
        how: what ``event.listen`` takes.
    """
    listening: dict[object, object] = vars(engine).setdefault(_LISTENING, {})
    me = object()
    if listening.setdefault((name, listener), me) is me:
        event.listen(engine, name, listener, **how)
