"""Cursors of psycopg whose statement travels with the BEGIN of its transaction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from psycopg._cursor_base import BaseCursor
from psycopg._preparing import Prepare
from psycopg.pq import Format

if TYPE_CHECKING:
    from psycopg.abc import Params, PQGen, Query
    from psycopg.pq.abc import PGresult

    from sessionfactory.drivers.psycopg_pipeline.connection_base import PipelinedBase

_COPY: Final = re.compile(rb"(?is)(?>\s+|--[^\n]*\n|/\*.*?\*/)*+copy\b").match


class PipelinedCursorBase(BaseCursor[Any, Any]):
    """What the cursors of both halves add to psycopg's."""

    __slots__ = ()
    _conn: PipelinedBase

    def _execute_gen(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        gen = super()._execute_gen(query, params, prepare=prepare, binary=binary)
        return self._conn.prepare_to_execute(gen)

    def _maybe_prepare_gen(
        self, pgq: Any, *, prepare: bool | None = None, binary: bool | None = None
    ) -> PQGen[None]:
        gen = super()._maybe_prepare_gen(pgq, prepare=prepare, binary=binary)
        if not self._conn.joins:
            return gen
        return self._join_gen(pgq, gen, prepare=prepare, binary=binary)

    def _join_gen(
        self, pgq: Any, alone: PQGen[None], *, prepare: bool | None, binary: bool | None
    ) -> PQGen[None]:
        """Send BEGIN and a statement in one flight; as ``alone`` if that might not do the same."""
        conn = self._conn
        prep, name = self._get_prepared(pgq, prepare)
        is_binary = self.format == Format.BINARY if binary is None else binary
        is_simple = prep is Prepare.NO and not pgq.params and not is_binary
        conn.send_begin()
        if is_simple and _needs_simple_protocol(pgq.query):
            yield from conn.read_answers_gen()
            yield from alone
            return
        try:
            if prep is Prepare.NO:
                self._execute_send(pgq, binary=binary, force_extended=True)
            else:
                if prep is Prepare.SHOULD:
                    self._send_prepare(name, pgq)
                self._send_query_prepared(name, pgq, binary=binary)
        except BaseException:  # libpq does not take it, but BEGIN is on its way
            yield from conn.read_answers_gen()
            raise
        results = yield from conn.read_answers_gen(prepares=prep is Prepare.SHOULD)
        conn.note_prepared(pgq, prep, name, results)
        self._check_results(results)
        self._set_results(results)

    def _set_results(self, results: list[PGresult]) -> None:
        super()._set_results(results)
        self._conn.note_results(results)


def _needs_simple_protocol(query: bytes) -> bool:
    """Return whether a statement may be several, or a COPY, which only that protocol takes."""
    return b";" in query.rstrip(b"; \t\r\n") or _COPY(query) is not None
