"""Async twin of ``recording``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, Protocol, Self, cast

import attrs
from typing_extensions import TypeVar

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.interfaces import A_co
from sessionfactory.testing.recording.recording import Recording

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sessionfactory.interfaces import AsyncSessionFactory

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)


class _WithReader(Protocol[A_co]):
    @property
    def reader(self) -> AsyncSessionFactory[A_co]: ...


@attrs.define(eq=False)
class AsyncRecordingSessionFactory(Generic[A]):
    """Async twin of ``RecordingSessionFactory``; its recording is the same ``Recording``.

    Args:
        inner: any async session factory.
        recording: where to record; several factories may share one.
    """

    inner: AsyncSessionFactory[A]
    recording: Recording = attrs.field(factory=Recording, kw_only=True, repr=False)

    @property
    def reader(self) -> AsyncSessionFactory[A]:
        """The reader of ``inner``, with the same recording.

        Raises:
            AttributeError: ``inner`` has none.
        """
        reader = cast("_WithReader[A]", self.inner).reader
        return AsyncRecordingSessionFactory(reader, recording=self.recording)

    def __call__(self) -> A:
        """Return a new session of ``inner``; the caller closes it."""
        session = self.inner()
        self.recording.listen(session.sync_session)
        return session

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[A]:
        """Run one transaction of ``inner``."""
        async with self.inner.begin() as session:
            self.recording.listen(session.sync_session)
            yield session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
