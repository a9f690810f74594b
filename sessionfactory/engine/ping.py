"""A ping that returns in time, whatever the database does."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, cast

from sessionfactory.clock import monotonic
from sessionfactory.drivers import families, known
from sessionfactory.drivers.error_codes import classify, original
from sessionfactory.engine import sqlite
from sessionfactory.errors import ClosedError, SettingsError
from sessionfactory.pool_errors import PoolExhaustedError
from sessionfactory.status import Health

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.pool.ledger import Ledger
    from sessionfactory.pool.waiting import Waiting


class Pinger:
    """Pings one engine in a thread or task of its own, so that a silent network holds no caller.

    One ping is under way at a time; callers that come meanwhile wait for the same result.
    Thread-safe.
    """

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        # The ping that is under way. No lock: what starts it may run others' code in this thread.
        self._pending: dict[None, Future[Health]] = {}
        self._connected = False

    def ping(self, engine: Engine, ledger: Ledger, timeout: float) -> Health:
        """Return the state of the database, within ``timeout`` seconds."""
        if families.of_dialect(engine.dialect).is_sqlite:
            file = None if sqlite.is_shared_memory(engine.url) else sqlite.file_of(engine.url)
            if file is None:
                return Health("ok", 0.0, "in memory")
            # What opens an encrypted file is the passphrase that the engine's connections have.
            if not (known.named(engine.dialect.driver).encrypts_files and file.exists()):
                return sqlite.ping_file(file)
        mine = Future[Health]()
        while (pending := self._pending.setdefault(None, mine)).done():  # one step: one pings
            self._pending.pop(None, None)
        if pending is mine:
            if ledger.saturated:
                self._pending.pop(None, None)
                mine.set_result(_saturated(ledger))
                return _saturated(ledger)
            self._connected = False
            try:
                self._waiting.start(partial(self._run, engine, mine), "sessionfactory-ping")
            except BaseException:
                self._pending.pop(None, None)  # no ping will come
                mine.cancel()
                raise
        answer = self._waiting.answer(pending, timeout)
        if answer is not None:
            return answer
        if self._connected:
            return Health("slow", None, f"connected, but no answer within {timeout:g} s")
        # It may have filled up since the first look; then the ping waits for a connection, too.
        return self._no_connection(ledger, timeout)

    @staticmethod
    def _no_connection(ledger: Ledger, timeout: float) -> Health:
        if ledger.saturated:
            return _saturated(ledger)
        return Health("unreachable", None, f"no connection within {timeout:g} s")

    def _run(self, engine: Engine, result: Future[Health]) -> None:
        began = monotonic()
        on_sqlite = families.of_dialect(engine.dialect).is_sqlite
        try:
            connection = engine.raw_connection()
            try:
                self._connected = True
                driver = cast("DBAPIConnection", connection.dbapi_connection)
                if on_sqlite:  # where "SELECT 1" would read nothing of the file
                    sqlite.read_first_page(driver)
                else:
                    engine.dialect.do_ping(driver)
            finally:
                connection.close()
        except Exception as error:  # noqa: BLE001 - any error is the result
            result.set_result(sqlite.diagnose(error) if on_sqlite else _diagnose(error))
        except BaseException:  # its event loop ends
            result.cancel()
            raise
        else:
            result.set_result(Health("ok", monotonic() - began))


def _saturated(ledger: Ledger) -> Health:
    return Health("saturated", None, f"all {ledger.limit} connections are in use")


def _diagnose(error: Exception) -> Health:
    if isinstance(error, PoolExhaustedError):
        return Health("saturated", None, str(error))
    if isinstance(error, ClosedError):
        return Health("closed", None, str(error))
    text = " ".join(str(original(error)).split())
    refused = isinstance(error, SettingsError) or classify(error).is_refusal
    return Health("refused" if refused else "unreachable", None, text)
