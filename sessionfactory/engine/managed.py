"""An engine and its life: built once, on first use; watched; drained; closed."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import create_engine, event
from sqlalchemy.exc import ArgumentError

from sessionfactory.engine import credentials, drivers, liveness, readonly, sqlite
from sessionfactory.engine.drain import drain
from sessionfactory.engine.errors import unwrap
from sessionfactory.engine.health import Pinger
from sessionfactory.engine.ledger import Ledger
from sessionfactory.engine.pools import LedgerNullPool, LedgerQueuePool
from sessionfactory.errors import ClosedError, Fault, SettingsError
from sessionfactory.status import Health, Holder, PoolStatus
from sessionfactory.validation import as_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Engine

    from sessionfactory.settings import DatabaseSettings


_COVERED_ON_SQLITE: Final = frozenset({"timeout", "isolation_level"})
"""What ``sqlite.busy_timeout`` and ``sqlite.begin`` decide."""


class ManagedEngine:
    """Owns one engine, for a factory of either half. Thread-safe.

    Args:
        settings: the database.
        name: what messages call it.

    Raises:
        SettingsError: no engine could be built from these settings: an unknown driver, one that is
            not installed, a limit that the database does not know.
    """

    def __init__(self, settings: DatabaseSettings, name: str) -> None:
        self.settings = settings
        self.name = name
        self._url = drivers.with_driver(settings.url)
        drivers.load_dialect(self._url)
        drivers.refuse_unsupported(settings)
        self._options = _engine_options(settings, self._url)
        self._engine: Engine | None = None
        self._views: dict[str, Engine] = {}
        self._lock = threading.Lock()
        self._pinger = Pinger()
        size, overflow = _pool_size(settings, self._url)
        limit = None if settings.pool.kind == "none" else size + overflow
        in_memory = _in_memory(self._url)
        self.ledger: Ledger = Ledger(name, size, limit, in_memory=in_memory)

    @property
    def engine(self) -> Engine:
        """The engine, built on first use; ``ClosedError`` after ``close``."""
        self.ledger.refuse_if_closed()
        engine = self._engine
        if engine is None:
            with self._lock:
                self.ledger.refuse_if_closed()
                engine = self._engine = self._engine or self._build()
        return engine

    @property
    def built(self) -> bool:
        """Whether there is an engine that ought to be closed."""
        return self._engine is not None and not self.ledger.closed

    @property
    def reading(self) -> Engine:
        """A view whose transactions take no lock before they write."""
        engine = self.engine
        if engine.dialect.name != "sqlite":
            return engine
        return self._view("reading", sqlite.deferred)

    @property
    def read_only(self) -> Engine:
        """A view whose transactions cannot write."""
        return self._view("read-only", readonly.read_only)

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

    def close(self, timeout: float) -> tuple[Holder, ...]:
        """Refuse new sessions, wait for connections that are out, cut what is late, dispose.

        Returns:
            the holders that were cut off.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self.ledger.closed = True
            engine, self._engine = self._engine, None
        if engine is None:
            return ()
        self._views.clear()
        if isinstance(engine.pool, LedgerQueuePool):
            engine.pool.wake()
        try:
            return drain(self.ledger, deadline)
        finally:  # whatever interrupts the waiting
            engine.dispose()

    def _view(self, name: str, make: Callable[[Engine], Engine]) -> Engine:
        # One each: SQLAlchemy's cache of compiled statements knows engines by their dialect.
        engine = self.engine
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = make(engine)
        return view

    def _build(self) -> Engine:
        try:
            engine = create_engine(self._url, **self._options)
        except (TypeError, ArgumentError) as error:
            problem = f"SQLAlchemy does not take them: {error}"
            raise SettingsError([Fault("engine_options", problem)]) from None
        cast("LedgerQueuePool | LedgerNullPool", engine.pool).ledger = self.ledger
        self.ledger.keep(engine.pool)
        credentials.hand_over(engine, self.settings)
        event.listen(engine, "handle_error", unwrap, retval=True)
        readonly.enforce(engine)
        drivers.limit_mysql(engine, self.settings)
        if engine.dialect.name == "sqlite":
            sqlite.prepare(engine, self.settings.sqlite, self.name)
        elif self.settings.pool.pre_ping:
            liveness.ping_idle(engine, self.settings.pool.ping_after)
        self.ledger.keep_opened(engine.pool)
        return engine


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and sqlite.is_memory(url)


def _pool_size(settings: DatabaseSettings, url: URL) -> tuple[int, int]:
    # A database in memory is its connection: sessions take turns on the one.
    return (1, 0) if _in_memory(url) else (settings.pool.size, settings.pool.max_overflow)


def _engine_options(settings: DatabaseSettings, url: URL) -> dict[str, object]:
    pool = settings.pool
    in_memory = _in_memory(url)
    size, overflow = _pool_size(settings, url)
    given = dict(settings.engine_options)
    theirs = given.pop("connect_args", None)
    arguments = drivers.connect_arguments(settings, url)
    on_sqlite = url.get_backend_name() == "sqlite"
    ours = {*arguments, *(_COVERED_ON_SQLITE if on_sqlite else ())}
    named = {*dict(as_table(theirs) or {}), *(_COVERED_ON_SQLITE & url.query.keys())}
    clash = sorted(str(name) for name in ours & named)
    if clash:
        problem = f"connect_args and url may not name what a setting covers: {', '.join(clash)}"
        raise SettingsError([Fault("engine_options", problem)])
    options: dict[str, object] = {
        **given,
        "echo": settings.echo,
        "connect_args": arguments | dict(as_table(theirs) or {}),
        "pool_recycle": -1 if pool.recycle is None or in_memory else pool.recycle,
    }
    if pool.kind == "none" and not in_memory:
        return options | {"poolclass": LedgerNullPool}
    return options | {
        "poolclass": LedgerQueuePool,
        "pool_size": size,
        "max_overflow": overflow,
        "pool_timeout": pool.timeout,
    }
