"""An engine and its life: built once, on first use; watched; drained; closed."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

from sqlalchemy import event
from sqlalchemy.exc import ArgumentError

from sessionfactory.clock import monotonic
from sessionfactory.drivers import (
    connections,
    dialects,
    families,
    sqlalchemy_private,
    tls,
)
from sessionfactory.drivers.psycopg_pipeline import installation
from sessionfactory.engine import (
    arguments,
    connect,
    creators,
    credentials,
    dialect_hooks,
    failover,
    forks,
    sqlite,
    timeouts,
)
from sessionfactory.engine.drain import LATEST, CutHold, cut_own, dispose, drain, take_from_holders
from sessionfactory.engine.ping import Pinger
from sessionfactory.engine.views import views
from sessionfactory.errors import ClosedError, Fault, SettingsError
from sessionfactory.pool import leak_warnings, session_reset
from sessionfactory.pool.ledger import Ledger
from sessionfactory.pool.liveness import Liveness
from sessionfactory.pool.owners import current_owner
from sessionfactory.pool.tracked import LoopBinding, Tracking
from sessionfactory.pool.waiting import Tasks, Threads
from sessionfactory.pool_errors import unwrap
from sessionfactory.status import Health, Holder, PoolStatus

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.pool import Pool

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.pool.fair import FairPool
    from sessionfactory.pool.owners import Owner
    from sessionfactory.pool.tracked import TrackedPool


class _Closing:
    """A close that is under way, or done.

    Args:
        owner: the thread or task that closes.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner: Owner | None = owner
        self.done: Future[None] = Future()


class ManagedEngine:
    """Owns one engine, for a factory of either half. Thread-safe.

    For the async half, ``ping`` and ``close`` run in a greenlet of SQLAlchemy's.

    Args:
        settings: the database.
        name: what messages call it.
        is_async: whether the engine has an asynchronous driver.

    Raises:
        SettingsError: no engine could be built from these settings: an unknown driver, one that is
            not installed, a limit that the database does not know.
    """

    def __init__(self, settings: DatabaseSettings, name: str, *, is_async: bool = False) -> None:
        self.settings = settings
        self.name = name
        self.is_async = is_async
        self._url = dialects.with_driver(settings.url, is_async=is_async)
        dialects.load_dialect(self._url, is_async=is_async)
        dialects.refuse_unsupported(settings)
        if settings.pool.reset == "state":
            session_reset.refuse_other_databases(self._url)
        installation.refuse_unsupported(settings, self._url)
        creators.refuse_unsupported(settings, self._url, is_async=is_async)
        credentials.refuse_missing_passphrase(settings, self._url)
        credentials.refuse_coroutine(settings, is_async=is_async)
        self._options = arguments.of_engine(settings, self._url, is_async=is_async)
        self._engine: Engine | None = None
        self._reading: Engine | None = None
        # Re-entrant, and ``close`` does without: a signal handler, a listener or a log handler may
        # use or close the engine while this thread builds it.
        self._lock = threading.RLock()
        self._closing: dict[None, _Closing] = {}
        self._cut: tuple[CutHold, ...] = ()
        self._waiting = Tasks() if is_async else Threads()
        self._pinger = Pinger(self._waiting)
        size, overflow = arguments.pool_size(settings, self._url)
        limit = None if settings.pool.kind == "none" else size + overflow
        in_memory = arguments.is_in_memory(self._url)
        self.ledger: Ledger = Ledger(name, size, limit, in_memory=in_memory)
        self._tracking = Tracking(self.ledger)
        if is_async and (settings.pool.kind != "none" or in_memory):
            replace = None if in_memory else self._replace
            self._tracking.loops = LoopBinding(name, replace)
        self._renewals = credentials.renewals(settings)
        on_sqlite = families.of_url(self._url).is_sqlite
        self._file = sqlite.file_of(self._url) if on_sqlite else None
        forks.register(self)

    @property
    def engine(self) -> Engine:
        """The engine, built on first use; ``ClosedError`` after ``close``."""
        self.ledger.refuse_if_closed()
        engine = self._engine
        if engine is None:
            with self._lock:
                self.ledger.refuse_if_closed()
                engine = self._engine or self._build()
            if self.ledger.closed:  # while it was built: ``close`` saw it, or this sees the close
                self._engine = None
                self.ledger.refuse_if_closed()
        return engine

    @property
    def built(self) -> bool:
        """Whether there is an engine that ought to be closed."""
        return self._engine is not None and not self.ledger.closed

    @property
    def reading(self) -> Engine:
        """A view whose transactions take no lock before they write."""
        engine = self.engine
        if not families.of_dialect(engine.dialect).is_sqlite:
            return engine
        if self._reading is None:  # one, as for any view: see ``views``
            self._reading = sqlite.deferred(engine)
        return self._reading

    @property
    def read_only(self) -> Engine:
        """A view whose transactions cannot write."""
        return views.view_of(self.engine, views.READ_ONLY)

    def ping(self, timeout: float) -> Health:
        """Return how the database does, within ``timeout`` seconds."""
        try:
            engine = self.engine
        except ClosedError as error:
            return Health("closed", None, str(error))
        return self._pinger.ping(engine, self.ledger, timeout)

    def status(self) -> PoolStatus:
        """Return what the pool holds."""
        return self.ledger.status()

    def refuse_sessions(self) -> None:
        """Let nobody have another session, or connection: what ``close`` does first."""
        if self._engine is not None and self._tracking.loops is not None:
            # It has to be closed in its own event loop.
            self._tracking.loops.pool_here(cast("TrackedPool", self._engine.pool))
        self.ledger.closed = True

    def start_close(self) -> None:
        """Refuse new sessions, and cut what the calling thread or task holds itself."""
        self.refuse_sessions()
        engine = self._engine
        if engine is not None:
            cast("FairPool", engine.pool).turn_away()
            self._cut += cut_own(self.ledger, self._waiting)

    def wait_idle(self, deadline: float) -> None:
        """Wait until no connection is out, or for the deadline."""
        self._waiting.until(lambda: not self.ledger.checkouts, self.ledger, deadline)

    def close(self, timeout: float) -> tuple[Holder, ...]:
        """Refuse new sessions, wait for connections that are out, cut what is late, dispose.

        While another thread or task closes it, wait until that is done, or for the time limit.

        Returns:
            the holders that were cut off by this call.
        """
        mine = _Closing(current_owner())
        first = self._closing.setdefault(None, mine)  # atomic: of two, one closes
        if first is not mine and first.owner is not mine.owner:
            self._waiting.answer(first.done, timeout + LATEST)
            return ()
        try:
            return self._close(timeout)
        finally:
            if first is mine:
                first.owner = None  # else this would keep the task, and all that it refers to
                first.done.set_result(None)

    def _close(self, timeout: float) -> tuple[Holder, ...]:
        deadline = monotonic() + timeout
        self.start_close()
        engine, self._engine = self._engine, None
        if engine is None:
            return ()
        self._reading = None
        try:
            return drain(engine, self.ledger, deadline, self._waiting, self._cut)
        finally:  # whatever interrupts the waiting
            dispose(engine, self.ledger, self._waiting)

    def before_fork(self) -> None:
        """Close idle connections to a file of SQLite, which no process may take through a fork."""
        pool = self._engine.pool if self._engine is not None else None
        if self._file is not None and pool is not None:
            cast("FairPool", pool).close_idle()

    def start_anew(self) -> None:
        """Have nothing open, in a forked child, and no lock that another thread had."""
        self._lock = threading.RLock()
        self._closing = {}
        self._pinger = Pinger(self._waiting)
        for renew in self._renewals:
            renew()
        if self.ledger.in_memory and not self.is_async:
            return  # the child has a database of its own now: a copy
        forks.leave_to_parent(self.ledger, self._file)
        if self._engine is not None:
            sqlalchemy_private.free_first_connect(self._engine.pool)
            self._engine.dispose(close=False)

    def _replace(self, pool: TrackedPool) -> TrackedPool:
        """Put a new pool in the place of one whose event loop is gone."""
        engine = self.engine
        with self._lock:
            if engine.pool is cast("Pool", pool):
                if pool.loop is not None and pool.loop.is_closed():
                    take_from_holders(
                        self.ledger, f"The event loop of this session of {self.name!r} ended"
                    )
                for connection in self.ledger.forget_idle():
                    connections.abandon(connection)
                pool.retire()
                self._pinger = Pinger(self._waiting)
                engine.dispose(close=False)
        return cast("TrackedPool", engine.pool)

    def _build(self) -> Engine:
        tls.warn_of_risk(self.settings, self.name)
        try:
            with_password = credentials.url_for_hooks(self.settings, self._url)
            engine = arguments.create(with_password, self._options, is_async=self.is_async)
            engine.url = self._url
        except (TypeError, ArgumentError) as error:
            problem = f"SQLAlchemy does not take them: {error}"
            raise SettingsError([Fault("engine_options", problem)]) from None
        if self._engine is not None:  # a handler that interrupted this has used, and so built, one
            return self._engine
        cast("FairPool", engine.pool).track(self._tracking)
        self.ledger.listen_to_closes(engine.pool)
        connect.compose(engine, self.settings, self._waiting)
        dialect_hooks.install(engine.dialect)
        event.listen(engine, "handle_error", unwrap, retval=True)
        forks.guard(engine, self._file)
        failover.leave_read_only_servers(engine)
        timeouts.limit_mysql(engine, self.settings)
        if families.of_dialect(engine.dialect).is_sqlite:
            sqlite.prepare(engine, self.settings.sqlite, self.name)
        elif self.settings.pool.pre_ping or self.settings.pool.reset == "state":
            self._tracking.liveness = Liveness(engine, self.settings.pool, self._waiting)
        if self.settings.pool.hold_warning is not None:
            renew = leak_warnings.warn_of_long_holds(
                engine, self.ledger, self.settings.pool.hold_warning
            )
            self._renewals.append(renew)
        self.ledger.listen_to_connects(engine.pool)
        self._engine = engine
        return engine
