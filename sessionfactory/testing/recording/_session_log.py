"""Records what single sessions do.

By SQLAlchemy's events on the session and on its connection, never on a class or an engine: what
other code does with the same database is not recorded.
"""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakKeyDictionary

import attrs
from sqlalchemy import event

from sessionfactory.pool import call_sites
from sessionfactory.pool.owners import current_task
from sessionfactory.status import Holder

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import ExecutionContext
    from sqlalchemy.orm import Session, SessionTransaction

Action = Literal["opened", "began", "sent", "committed", "rolled back", "closed"]

_QUOTED: Final = re.compile(
    r"""'(?:[^']|'')*' | "[^"]*" | `[^`]*` | --[^\n]* | /\*.*?\*/""", re.VERBOSE | re.DOTALL
)
_FIRST_WORD: Final = re.compile(r"[a-z]+")
_STEERING: Final = frozenset({"begin", "commit", "release", "rollback", "savepoint"})
_READING: Final = frozenset(
    {"desc", "describe", "explain", "fetch", "pragma", "reset"}
    | {"select", "set", "show", "table", "values", "with"}
)
# SELECT … INTO, and what can follow WITH or EXPLAIN ANALYZE; after FOR UPDATE there is no SET.
_CHANGING: Final = re.compile(r"\binto\b|\bdelete\s+from\b|\bupdate\b.*?\bset\b", re.DOTALL)


@attrs.frozen
class Statement:
    """One statement that was sent to the database; without its parameters, which may be secrets."""

    sql: str
    rows: int = 1
    """Parameter sets: more than one for an ``executemany``, which counts as one statement."""
    where: str | None = attrs.field(default=None, eq=False, kw_only=True)
    """The call site: file, line and function of the code that sent it, if known."""

    @property
    def writes(self) -> bool:
        """Whether it changes data or schema, judged by its words.

        What is not known to read counts as a write. What a function does inside is not seen.
        """
        words = _words(self.sql)
        return _first_word(words) not in _READING or _CHANGING.search(words) is not None

    def __str__(self) -> str:
        text = " ".join(self.sql.split())
        return text if self.rows == 1 else f"{text} ({self.rows} rows)"


@attrs.frozen
class Entry:
    """One line of the log."""

    session: int
    """Which session, counted from 1 in the order of their opening."""
    action: Action
    detail: str | Statement = ""

    def __str__(self) -> str:
        return f"session {self.session} {self.action} {self.detail}".rstrip()


@attrs.define(eq=False)
class Hold:
    """A connection that a session has, or had."""

    where: str
    owner: str
    since: float
    until: float | None = None

    def holder(self) -> Holder:
        """Return this hold as reports show it."""
        until = time.monotonic() if self.until is None else self.until
        return Holder(self.where, self.owner, until - self.since)


class SessionLog:
    """What recorded sessions did. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._holds: list[Hold] = []
        self._sessions = 0
        # Sessions may share a connection that outlives them: one listener for each connection.
        self._users: WeakKeyDictionary[Connection, list[int]] = WeakKeyDictionary()
        self._batch: ExecutionContext | None = None

    def entries(self) -> tuple[Entry, ...]:
        """Return all lines, in order."""
        with self._lock:
            return tuple(self._entries)

    def holders(self) -> tuple[Holder, ...]:
        """Return who held or holds connections, longest first."""
        with self._lock:
            holders = [hold.holder() for hold in self._holds]
        return tuple(sorted(holders, key=lambda holder: holder.held, reverse=True))

    def clear(self) -> None:
        """Forget everything except connections that are still held."""
        with self._lock:
            self._entries.clear()
            self._holds = [hold for hold in self._holds if hold.until is None]

    def listen(self, session: Session) -> None:
        """Record what is done with a session from now on."""
        where = call_sites.here() or "unknown"
        with self._lock:
            self._sessions = number = self._sessions + 1
            self._entries.append(Entry(number, "opened", f"at {where}"))
        listener = _Listener(self, number, where)
        event.listen(session, "after_begin", listener.began)
        event.listen(session, "after_commit", listener.committed)
        event.listen(session, "after_transaction_end", listener.ended)
        # There is no event for a close. An attribute of this one session shadows the method, for
        # ``with session:`` and ``AsyncSession`` too; the first close removes it.
        vars(session)["close"] = partial(self._close, session, session.close, number)

    def begin(self, session: int, where: str, connection: Connection) -> Hold:
        """Record that a session began a transaction, and listen to what is sent in it."""
        hold = Hold(where, _owner(), time.monotonic())
        with self._lock:
            self._entries.append(Entry(session, "began"))
            self._holds.append(hold)
            users = self._users.setdefault(connection, [])
            users.append(session)
            if len(users) == 1:
                event.listen(connection, "before_cursor_execute", self._send)
        return hold

    def end(self, session: int, hold: Hold, connection: Connection, action: Action) -> None:
        """Record how a session's transaction ended."""
        hold.until = time.monotonic()
        with self._lock:
            self._entries.append(Entry(session, action))
            self._batch = None
            users = self._users[connection]
            users.remove(session)
            if not users:
                event.remove(connection, "before_cursor_execute", self._send)

    def _send(
        self,
        connection: Connection,
        _cursor: object,
        sql: str,
        _parameters: object,
        context: ExecutionContext | None,
        executemany: bool,  # noqa: FBT001 - SQLAlchemy's signature
    ) -> None:
        rows = 1
        if executemany and context is not None:
            if context is self._batch:  # SQLAlchemy sends a long list of rows in several pieces
                return
            self._batch = context
            rows = len(context.parameters)
        if _first_word(_words(sql)) not in _STEERING:
            statement = Statement(sql, rows, where=call_sites.here())
            with self._lock:
                session = self._users[connection][-1]
                self._entries.append(Entry(session, "sent", statement))

    def _close(self, session: Session, close: Callable[[], None], number: int) -> None:
        vars(session).pop("close", None)
        try:
            close()
        finally:
            with self._lock:
                self._entries.append(Entry(number, "closed"))


@attrs.define(eq=False)
class _Listener:
    """Listens to one session."""

    log: SessionLog
    session: int
    where: str
    _committed: bool = False
    _holds: list[tuple[Hold, Connection]] = attrs.Factory(list["tuple[Hold, Connection]"])

    def began(
        self, _session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        if transaction.parent is None:  # else a savepoint
            self._committed = False
            self._holds.append((self.log.begin(self.session, self.where, connection), connection))

    def committed(self, session: Session) -> None:
        self._committed = not session.in_nested_transaction()

    def ended(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            action: Action = "committed" if self._committed else "rolled back"
            for hold, connection in self._holds:
                self.log.end(self.session, hold, connection, action)
            self._holds.clear()


def _words(sql: str) -> str:
    """Return a statement in lower case, without its comments and whatever is quoted."""
    return _QUOTED.sub(" ", sql).lower()


def _first_word(words: str) -> str:
    found = _FIRST_WORD.search(words)
    return found[0] if found else ""


def _owner() -> str:
    task = current_task()
    return f"task {task.get_name()}" if task else f"thread {threading.current_thread().name}"
