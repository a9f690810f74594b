"""A session factory for tests: everything done through it, commits included, is undone.

    with RollbackSessionFactory(sessions) as fake:
        Signup(fake).register("ada@example.org")
        with fake() as session:
            assert session.scalar(select(func.count(User.id))) == 1

What it is, and what it is not: all its sessions share one connection, in one transaction that is
never committed, and each session's transaction is a savepoint there. So sessions see each other's
uncommitted work. Their transactions may nest or follow one another; ending one while another that
began later is open is an error that names both, because a savepoint takes with it all that was
made after it. For the same reason, what an earlier transaction does while a later one is open is
undone if that one is rolled back. Tests of concurrency, of isolation or of statements that commit
by themselves need a database of their own.

A fake may last for several tests, as for those of a module. ``savepoint`` then undoes each test's
own work:

    with RollbackSessionFactory(sessions) as fake:
        add_shops(fake)  # there for every test
        with fake.savepoint():
            Signup(fake).register("ada@example.org")  # undone here
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Self, cast

import attrs
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from sessionfactory.sessions.scope import S, TransactionScope
from sessionfactory.testing.rollback._engines import engine_behind
from sessionfactory.testing.rollback._open_transactions import (
    OpenTransactions,
    raise_problem,
    require_not_entered,
    require_open,
)
from sessionfactory.testing.rollback._sessions import bind_session

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sessionfactory.interfaces import SessionFactory


@attrs.define(eq=False)
class RollbackSessionFactory(Generic[S]):
    """A ``SessionFactory`` whose work is undone when its block ends; see the module.

    Its sessions are made by the given factory, and so are of its class and have its options; only
    their connection is another. Threads may use it one after the other. A statement that a session
    would send to another engine, by its ``binds`` or its own ``get_bind``, goes to the one
    connection as well.

    Args:
        sessions: the factory, or the engine, of the real sessions; the caller closes it.

    Raises:
        InterleavedTransactionsError: from ``commit``, ``rollback`` or ``close`` of a session, if a
            transaction that began later is open; nothing has changed, and all can be used on.
        ConcurrentUseError: a second thread or task uses it while another is inside a call.
        SessionLeftOpenError: at the block's end, if a transaction is still open.
        ConnectionLostError: the connection was closed, invalidated or killed; from its next use,
            and at the block's end.
        NotUndoneError: at the block's end, if something was committed past it, as DDL does on
            MariaDB and MySQL.
        ClosedError: it is used outside of its block.
    """

    _sessions: SessionFactory[S] | Engine
    _transactions: OpenTransactions | None = attrs.field(init=False, default=None, repr=False)

    def __call__(self) -> S:
        """Return a new session; the caller closes it: ``with fake() as session:``."""
        transactions = require_open(self._transactions)
        session = self._open_real()
        bind_session(session, transactions)
        return session

    def begin(self) -> AbstractContextManager[S]:
        """Run one transaction; its commit is visible to the fake's sessions only."""
        return TransactionScope(self)

    @property
    def reader(self) -> SessionFactory[S]:
        """This fake itself, for services that ask for a reader.

        Another connection would not see the test's data, and this one's transaction writes: that a
        reader does not write is not checked here.
        """
        return self

    @contextmanager
    def savepoint(self) -> Generator[Self]:
        """Undo at the end of a block what is done in it; what was done before stays.

        Blocks nest. A session that was opened before the block may be used in it; its transaction
        cannot end there if it began before, and if it began in the block it is rolled back at the
        end. Objects that such a session flushed in the block are stale after it: refresh them.

        Raises:
            InterleavedTransactionsError: in the block, from the end of a transaction that began
                before it.
            SessionLeftOpenError: at the end, if a session that was opened in the block has a
                transaction; it is closed.
            ConnectionLostError: see the class.
            NotUndoneError: see the class.
            ClosedError: the fake is outside of its own block.
        """
        transactions = require_open(self._transactions)
        made = transactions.open_savepoint()
        try:
            yield self
        except BaseException as error:
            raise_problem(transactions.undo_to(made), error)
            raise
        raise_problem(transactions.undo_to(made), None)

    def __enter__(self) -> Self:
        require_not_entered(self._transactions)
        self._transactions = OpenTransactions(engine_behind(self._sessions, is_async=False))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transactions = require_open(self._transactions)
        self._transactions = None
        raise_problem(transactions.finish(), error)

    def _open_real(self) -> S:
        if isinstance(self._sessions, Engine):
            return cast("S", Session(self._sessions))  # ``S`` is then its default
        return self._sessions()
