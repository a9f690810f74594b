"""The connections of psycopg that need fewer round trips, and their cursors, for both halves."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from psycopg import (
    AsyncConnection,
    AsyncCursor,
    AsyncServerCursor,
    AsyncTransaction,
    Connection,
    Cursor,
    ServerCursor,
    Transaction,
)

from sessionfactory.drivers.psycopg_pipeline.connection_base import NOTHING, PipelinedBase
from sessionfactory.drivers.psycopg_pipeline.cursor_base import PipelinedCursorBase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from psycopg.abc import PQGen

T = TypeVar("T")


class PipelinedCursor(PipelinedCursorBase, Cursor[Any]):
    """A cursor of ``PipelinedConnection``."""

    __slots__ = ()

    def stream(self, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        """Iterate row by row on a result."""
        cast("PipelinedConnection", self._conn).finish_end()
        yield from super().stream(*arguments, **keywords)


class AsyncPipelinedCursor(PipelinedCursorBase, AsyncCursor[Any]):
    """Async twin of ``PipelinedCursor``."""

    __slots__ = ()

    async def stream(self, *arguments: Any, **keywords: Any) -> AsyncIterator[Any]:
        """Iterate row by row on a result."""
        await cast("AsyncPipelinedConnection", self._conn).finish_end()
        stream = cast("AsyncGenerator[Any]", super().stream(*arguments, **keywords))
        async with aclosing(stream) as rows:
            async for row in rows:
                yield row


class PipelinedServerCursor(ServerCursor[Any]):
    """A server-side cursor of ``PipelinedConnection``."""

    __slots__ = ()

    def execute(self, *arguments: Any, **keywords: Any) -> Self:
        """Open the cursor."""
        cast("PipelinedConnection", self._conn).finish_end()
        return super().execute(*arguments, **keywords)


class AsyncPipelinedServerCursor(AsyncServerCursor[Any]):
    """Async twin of ``PipelinedServerCursor``."""

    __slots__ = ()

    async def execute(self, *arguments: Any, **keywords: Any) -> Self:
        """Open the cursor."""
        await cast("AsyncPipelinedConnection", self._conn).finish_end()
        return await super().execute(*arguments, **keywords)


class PipelinedConnection(PipelinedBase, Connection[Any]):
    """A connection of psycopg's that needs fewer round trips."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        psycopgs: Connection[Any] = self
        psycopgs.cursor_factory = PipelinedCursor
        psycopgs.server_cursor_factory = PipelinedServerCursor

    def wait(self, gen: PQGen[T], *arguments: Any, **keywords: Any) -> T:
        """Run one of psycopg's generators, after the answer to the end of what was before."""
        if gen is NOTHING:
            return cast("T", None)
        ending = self.ending_before(gen)
        if ending is not None:
            super().wait(ending)
        return super().wait(gen, *arguments, **keywords)

    def finish_end(self) -> None:
        """Read the answer to the end of the last transaction, if that is still to come."""
        with self.lock:
            if self.ending is not None:
                super().wait(self.ending)

    @contextmanager
    def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 - psycopg's
    ) -> Generator[Transaction]:
        """Begin a block: a savepoint, if settings wait for the BEGIN of the transaction."""
        with self.lock:
            if self.has_waiting_settings:
                self.wait(self._start_query())
        with super().transaction(savepoint_name, force_rollback) as block:
            yield block


class AsyncPipelinedConnection(PipelinedBase, AsyncConnection[Any]):
    """Async twin of ``PipelinedConnection``."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        psycopgs: AsyncConnection[Any] = self
        psycopgs.cursor_factory = AsyncPipelinedCursor
        psycopgs.server_cursor_factory = AsyncPipelinedServerCursor

    async def wait(self, gen: PQGen[T], *arguments: Any, **keywords: Any) -> T:
        """Run one of psycopg's generators, after the answer to the end of what was before."""
        if gen is NOTHING:
            return cast("T", None)
        ending = self.ending_before(gen)
        if ending is not None:
            await super().wait(ending)
        return await super().wait(gen, *arguments, **keywords)

    async def finish_end(self) -> None:
        """Read the answer to the end of the last transaction, if that is still to come."""
        async with self.lock:
            if self.ending is not None:
                await super().wait(self.ending)

    @asynccontextmanager
    async def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 - psycopg's
    ) -> AsyncGenerator[AsyncTransaction]:
        """Begin a block: a savepoint, if settings wait for the BEGIN of the transaction."""
        async with self.lock:
            if self.has_waiting_settings:
                await self.wait(self._start_query())
        async with super().transaction(savepoint_name, force_rollback) as block:
            yield block
