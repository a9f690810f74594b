"""A pool that keeps the books of a factory, looks at what it gives out, and can be closed."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Self, cast

from sqlalchemy.pool import Pool

from sessionfactory.drivers import connections, sqlalchemy_private
from sessionfactory.errors import ClosedError, Fault, SettingsError
from sessionfactory.pool import connection_settings
from sessionfactory.pool.liveness import RETURNED

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
    from sqlalchemy.pool.base import _ConnectionRecord, _CreatorFnType, _CreatorWRecFnType

    from sessionfactory.pool.ledger import Ledger
    from sessionfactory.pool.liveness import Liveness


class LedgerPool(Pool):
    """A pool that keeps the books of its factory, and can be closed. Mixed into each kind.

    It does so itself, and not by listeners to its events: those that every checkout and every
    return has to call cost more than what they would do here.
    """

    ledger: Ledger
    liveness: Liveness | None = None
    """Looks at the connections that are given out; ``None`` where nothing could be seen."""
    leaves: bool = False
    """Whether there may be something standing on connections, because a view left it there."""

    def _should_wrap_creator(
        self, creator: _CreatorFnType | _CreatorWRecFnType
    ) -> _CreatorWRecFnType:
        opened = super()._should_wrap_creator(creator)

        def open_without_traces(rec: ConnectionPoolEntry) -> DBAPIConnection:
            # Further out, no frame has the driver's arguments: this one is the last to see them.
            try:
                return opened(rec)
            except UnicodeError:
                problem = "holds a character that the driver cannot send"
                failure: BaseException = SettingsError([Fault("password", problem)])
            except BaseException as error:  # noqa: BLE001 - it is raised again
                connections.forget_arguments(error)
                failure = error
            try:
                raise failure
            finally:
                del failure  # else the error and this frame would keep each other

        return open_without_traces

    def recreate(self) -> Self:
        """Return a new pool of the same settings and the same books."""
        pool = cast("Self", super().recreate())
        pool.ledger = self.ledger
        pool.liveness = self.liveness
        pool.leaves = self.leaves
        return pool

    def connect(self) -> PoolProxiedConnection:
        """Return a connection on which nothing stands; see ``standing``."""
        while True:
            proxy = self.check_out()
            if not self.leaves or not connection_settings.is_left_on(proxy.info):
                return proxy
            try:
                connection_settings.take_back(proxy.info, proxy.dbapi_connection)
            except BaseException as error:
                sqlalchemy_private.fail_checkout(
                    proxy, error
                )  # nobody is to get it in such a state
                if not isinstance(error, Exception):
                    raise
            else:
                return proxy

    def connect_as_left(self) -> PoolProxiedConnection:
        """Return a connection with what a view may have left standing on it."""
        self.leaves = True
        return self.check_out()

    def check_out(self) -> PoolProxiedConnection:
        """Return a connection, which is in the books."""
        proxy = super().connect()
        is_awaited = self._dialect.is_async
        self.ledger.note_checkout(sqlalchemy_private.entry_of(proxy), proxy, is_awaited=is_awaited)
        # After the entry: either ``close`` sees the hold, or this sees that it closed meanwhile.
        try:
            self.ledger.refuse_if_closed()
        except ClosedError as error:
            sqlalchemy_private.fail_checkout(proxy, error)
            raise
        return proxy

    def wake(self) -> None:
        """Have everybody who waits for a connection look whether the factory was closed."""

    def close_idle(self) -> None:
        """Close the connections that nobody has; whoever asks for one opens it anew."""

    def taken(self) -> int:
        """Return how many connections are out, or are being opened."""
        return len(self.ledger.opening) + len(self.ledger.holds)

    def _do_get(self) -> ConnectionPoolEntry:
        self.ledger.refuse_if_closed()
        record = super()._do_get()
        if self.liveness is not None:
            try:
                if not self.liveness.vouches_for(record):
                    self._suspect(record)
            except BaseException:  # in the midst of a ping
                try:
                    record.invalidate()
                finally:
                    self._do_return_conn(record)
                raise
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self.ledger.note_return(record)
        if self.liveness is not None:
            record.info[RETURNED] = monotonic()
        super()._do_return_conn(record)

    def _suspect(self, record: ConnectionPoolEntry) -> None:
        """Replace a dead connection, and all that were opened before: what broke it broke them.

        As ``pool_pre_ping`` does, each when it is asked for.
        """
        self.logger.info("%r is dead; connections opened before now are replaced", record)
        record.invalidate()
        if self._invalidate_time < cast("_ConnectionRecord", record).starttime:
            self._invalidate_time = time()
