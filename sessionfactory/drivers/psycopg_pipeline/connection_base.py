"""Pipelined connections of psycopg: two things that need no round trip of their own.

A transaction's BEGIN travels with the first statement, and the answer to the end of a transaction
that only read is not awaited. Both use libpq's pipeline mode, from one statement to the end of
its answers, so that whatever psycopg does next finds the connection as it knows it.

psycopg has no public place for this. What is used of its private names is listed in ``RELIED_ON``,
which ``installation`` looks up before it uses this module;
``tests/drivers/test_psycopg_pipeline_settings.py`` fails if one of them moves.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from psycopg import (
    BaseConnection,
    ConnectionInfo,
    DatabaseError,
    ProgrammingError,
    generators,
)
from psycopg._cursor_base import BaseCursor
from psycopg.errors import error_from_result
from psycopg.generators import execute, fetch_many, send
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.waiting import Ready

from sessionfactory.drivers.psycopg_pipeline.outstanding import Begun, Ended, promises_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import IsolationLevel
    from psycopg._pipeline_base import BasePipeline
    from psycopg._preparing import Prepare
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

RELIED_ON: Final[dict[object, tuple[str, ...]]] = {
    BaseConnection: (
        *("_start_query", "_commit_gen", "_rollback_gen", "_tpc_begin_gen", "_check_intrans_gen"),
        *("_set_autocommit_gen", "_set_isolation_level_gen", "_set_read_only_gen"),
        *("_set_deferrable_gen", "_get_tx_start_command", "_check_connection_ok"),
    ),
    BaseCursor: (
        *("_execute_gen", "_maybe_prepare_gen", "_get_prepared", "_execute_send", "_send_prepare"),
        *("_send_query_prepared", "_check_results", "_set_results", "_conn", "_pgconn"),
    ),
    generators: ("execute", "fetch_many", "send"),
}
"""Names without which nothing here works, by who has them."""

_log = logging.getLogger("sessionfactory")
NOTHING: Final[Any] = iter(())
"""Stands for a generator that has nothing to do, not even to wait for the answer to an end."""
_COPYING: Final = frozenset({ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH})
FATAL_ERROR, PIPELINE_SYNC = ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_SYNC
IDLE, INTRANS = TransactionStatus.IDLE, TransactionStatus.INTRANS


class PipelinedBase(BaseConnection[Any]):
    """What the connections of both halves add to psycopg's."""

    _along: Sequence[tuple[bytes, Sequence[bytes]]] = ()
    """Statements that go with the next BEGIN, and their parameters."""
    joins: bool = False
    """Whether a cursor sends BEGIN, along with its statement."""
    _first: object = None
    """The generator of a first statement, which may follow an end that is not answered yet."""
    _known = False
    """Whether the statement that starts is one whose outcome ``PipelinedCursorBase`` looks at."""
    _reads: bool = False
    """Whether the transaction is read-only, and has done nothing but SELECT."""
    ending: PQGen[None] | None = None
    """Reads the answer to the end of the last transaction, while that is still to come."""

    @property
    def info(self) -> ConnectionInfo:
        """Facts about the connection, on which no transaction is open once its end was sent.

        One is open as soon as statements wait for its BEGIN: SQLAlchemy's ``get_isolation_level``
        rolls back a connection that it found idle, and those statements would be lost.
        """
        if self._along:
            return Begun(self.pgconn)
        return super().info if self.ending is None else Ended(self.pgconn)

    def send_along(self, statement: str, parameters: Sequence[str]) -> bool:
        """Send a statement with the next BEGIN; return whether a BEGIN is to come."""
        if self.autocommit or not self._is_at_rest:
            return False
        encoded = [value.encode() for value in parameters]
        self._along = (*self._along, (statement.encode(), encoded))
        return True

    @property
    def has_waiting_settings(self) -> bool:
        """Whether statements wait for the next BEGIN."""
        return bool(self._along)

    def read_end(self) -> bool:
        """Read what has come of the answer to the end, without waiting for more of it.

        Returns:
            whether there was one to read, and the connection is sound.
        """
        ending = self.ending
        if ending is None or self.closed:
            return False
        with suppress(StopIteration, DatabaseError):
            next(ending)  # it begins, or returns again what it waits for
            ending.send(Ready.R)
        return not self.closed

    @property
    def _is_at_rest(self) -> bool:
        at_rest = self.ending is not None or (
            self.pgconn.transaction_status == TransactionStatus.IDLE
        )
        return at_rest and self._pipeline is None

    def _start_query(self) -> PQGen[None]:
        known, self._known = self._known, False
        if self.joins:
            return
        if self.autocommit or self.pgconn.transaction_status != IDLE:
            yield from super()._start_query()
        elif self._pipeline is None:
            self.send_begin()
            yield from self.read_answers_gen()
        else:
            self._enqueue_begin(self._pipeline)
        self._reads = self._reads and known

    def send_begin(self) -> None:
        """Send BEGIN and what goes along, all but flushed; ``read_answers_gen`` has to follow."""
        self._check_connection_ok()
        pgconn, along = self.pgconn, self._along
        begin = self._get_tx_start_command()
        self._reads, self._asks = promises_of(begin)
        self._ahead = 1 + len(along) + self._asks
        if self.ending is None:
            pgconn.enter_pipeline_mode()
        pgconn.send_query_params(begin, None)
        if along:
            self._along = ()
            for statement, parameters in along:
                pgconn.send_query_params(statement, parameters)
        if self._asks:
            pgconn.send_query_params(b"SHOW transaction_isolation", None)

    def _enqueue_begin(self, pipeline: BasePipeline) -> None:
        """Put BEGIN, and what goes along, into a pipeline of psycopg's own."""
        begin = (self._get_tx_start_command(), None)
        along, self._along = self._along, ()
        for statement, parameters in (begin, *along):
            send = partial(self.pgconn.send_query_params, statement, parameters)
            pipeline.command_queue.append(send)
            pipeline.result_queue.append(None)

    def read_answers_gen(self, *, prepares: bool = False) -> PQGen[list[PGresult]]:
        """Read all the answers, leave pipeline mode, and return the last statement's results.

        Args:
            prepares: whether that statement is prepared in this flight.
        """
        landed = yield from self._answers_gen()
        ahead = landed[: self._ahead + prepares]
        for results in ahead:
            if results[0].status == FATAL_ERROR:
                self._reads = False
                raise error_from_result(results[0], encoding=self.info.encoding)
        if self._asks:
            self._reads = ahead[self._ahead - 1][0].get_value(0, 0) != b"serializable"
        return landed[-1] if len(landed) > len(ahead) else []

    def _answers_gen(self) -> PQGen[list[list[PGresult]]]:
        pgconn = self.pgconn
        landed: list[list[PGresult]] = []
        pgconn.pipeline_sync()
        try:
            if self.ending is None:
                results = yield from execute(pgconn)
            else:
                yield from send(pgconn)
                yield from self.ending
                results = yield from fetch_many(pgconn)
            while results and results[0].status != PIPELINE_SYNC:
                landed.append(results)
                if results[0].status in _COPYING:  # not seen before it was sent; no way back
                    pgconn.finish()
                    break
                results = yield from fetch_many(pgconn)
            else:
                pgconn.exit_pipeline_mode()
        except DatabaseError:
            # The server may have sent the reason before it hung up.
            if not landed or landed[-1][0].status != FATAL_ERROR:
                raise
        return landed

    def _commit_gen(self) -> PQGen[None]:
        return self._end(b"COMMIT") or super()._commit_gen()

    def _rollback_gen(self) -> PQGen[None]:
        # psycopg would forget its prepared statements, because they might use what the transaction
        # made and ROLLBACK removed; a transaction that only read has made nothing.
        return self._end(b"ROLLBACK") or super()._rollback_gen()

    def _end(self, command: bytes) -> PQGen[None] | None:
        """Return what ends a transaction without awaiting it; ``None`` if it has to be awaited."""
        self._along = ()
        if self.ending is not None:
            return NOTHING  # type: ignore[no-any-return]
        reads, self._reads = self._reads, False
        plain = not self._num_transactions and self._tpc is None and self._pipeline is None
        if reads and plain and self.pgconn.transaction_status == INTRANS:
            return self._send_end_gen(command)
        return None

    def _send_end_gen(self, command: bytes) -> PQGen[None]:
        """Send the end of a transaction; the next use of the connection reads the answer."""
        pgconn = self.pgconn
        pgconn.enter_pipeline_mode()
        pgconn.send_query_params(command, None)
        pgconn.pipeline_sync()
        yield from send(pgconn)
        self.ending = self._read_end_gen()

    def _read_end_gen(self) -> PQGen[None]:
        """Read the answer to the end of a transaction."""
        pgconn = self.pgconn
        try:
            results = yield from fetch_many(pgconn)
            if results and results[0].status == FATAL_ERROR:
                error = error_from_result(results[0], encoding=self.info.encoding)
                message = error.diag.message_primary
                _log.warning("The end of a read-only transaction failed: %s", message)
            yield from fetch_many(pgconn)
        finally:
            self.ending = None
        if not (self.joins or self.closed):
            pgconn.exit_pipeline_mode()

    def prepare_to_execute(self, gen: PQGen[None]) -> PQGen[None]:
        """Return what executes a statement, the first one of a transaction together with BEGIN."""
        if self.autocommit or not self._is_at_rest:
            self._known = True
            return gen
        first = self._first = self._first_gen(gen)
        return first

    def _first_gen(self, gen: PQGen[None]) -> PQGen[None]:
        self.joins = True
        try:
            yield from gen
        finally:
            self.joins = False

    def note_prepared(self, pgq: Any, prep: Prepare, name: bytes, results: list[PGresult]) -> None:
        """Count the statement for psycopg, as a candidate to be prepared, or note that it is."""
        key = self._prepared.maybe_add_to_cache(pgq, prep, name)
        if key is not None:
            self._prepared.validate(key, prep, name, results)

    def note_results(self, results: list[PGresult]) -> None:
        """Note what a statement did: an end that may fail, or undo something, is awaited."""
        if self._reads:
            self._reads = all((done.command_status or b"")[:6] == b"SELECT" for done in results)

    def ending_before(self, gen: object) -> PQGen[None] | None:
        """Return what reads the answer to an end, where that comes before a generator runs."""
        first, self._first = self._first, None
        return None if gen is first else self.ending

    def _tpc_begin_gen(self, xid: Any) -> PQGen[None]:
        self._along, self._reads = (), False
        return super()._tpc_begin_gen(xid)

    def _set_autocommit_gen(self, value: bool) -> PQGen[None]:  # noqa: FBT001 - psycopg's
        return self._at_rest(super()._set_autocommit_gen(value))

    def _set_isolation_level_gen(self, value: IsolationLevel | None) -> PQGen[None]:
        return self._at_rest(super()._set_isolation_level_gen(value))

    def _set_read_only_gen(self, value: bool | None) -> PQGen[None]:  # noqa: FBT001 - psycopg's
        return self._at_rest(super()._set_read_only_gen(value))

    def _set_deferrable_gen(self, value: bool | None) -> PQGen[None]:  # noqa: FBT001 - psycopg's
        return self._at_rest(super()._set_deferrable_gen(value))

    def _at_rest(self, gen: PQGen[None]) -> PQGen[None]:
        """Run a generator now that sends nothing, if only the answer to an end is outstanding."""
        if self.ending is None:
            return gen
        deque(gen, maxlen=0)
        return NOTHING  # type: ignore[no-any-return]

    def _check_intrans_gen(self, attribute: str) -> PQGen[None]:
        if self._along:
            raise ProgrammingError(
                f"can't change {attribute!r} now: connection in transaction status INTRANS"
            )
        if self.ending is None:
            yield from super()._check_intrans_gen(attribute)
