"""One way to write a test for both halves: as for the async one.

For the sync half everything is wrapped, so that it looks awaited. Nothing ever suspends there: such
a test needs no event loop, and what else would be a task is a thread.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast

import pytest

from sessionfactory import AsyncSessionFactoryRegistry
from tests.support.awaited import plain, sync_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager

    from sessionfactory import DatabaseSettings

P = ParamSpec("P")
T = TypeVar("T")

WAIT: Final = 30.0
"""Seconds after which a test gives up."""


class Signal(Protocol):
    """Signals another thread or task to go on."""

    def set(self) -> None: ...
    async def wait(self) -> object: ...


class Half(Protocol):
    """One of the halves."""

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test."""
        ...

    def make(self, kind: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Make an object of this half's twin of a class of the async half."""
        ...

    def me(self) -> str:
        """Return who holds what is opened here, as a ``Holder`` says it."""
        ...

    def signal(self) -> Signal:
        """Return what one may wait for that another sets."""
        ...

    async def breathe(self) -> None:
        """Let others run."""
        ...

    def elsewhere(
        self, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> AbstractAsyncContextManager[str]:
        """Do something in another task or thread; the value is its name, as a ``Holder`` says it.

        The block's end waits for it, and raises what it raises.
        """
        ...


class AsyncHalf:
    """The async half, as it is."""

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        async def within_time() -> None:
            async with asyncio.timeout(WAIT):
                await test

        asyncio.run(within_time())

    def make(self, kind: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        return kind(*arguments, **keywords)

    def me(self) -> str:
        task = asyncio.current_task()
        assert task
        return f"task {task.get_name()}"

    def signal(self) -> Signal:
        return asyncio.Event()

    async def breathe(self) -> None:
        await asyncio.sleep(0)

    @asynccontextmanager
    async def elsewhere(self, work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[str]:
        task = asyncio.create_task(work(), name="elsewhere")
        try:
            yield "task elsewhere"
        finally:
            await task


class SyncHalf:
    """The sync half, looking awaited."""

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        try:
            test.send(None)
        except StopIteration:
            return
        raise AssertionError("something of the sync half was really awaited")

    def make(self, kind: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        return cast("T", plain(sync_of(kind))(*arguments, **keywords))

    def me(self) -> str:
        return f"thread {threading.current_thread().name}"

    def signal(self) -> Signal:
        return _ThreadSignal()

    async def breathe(self) -> None:
        threading.Event().wait(0)

    @asynccontextmanager
    async def elsewhere(self, work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[str]:
        done = Future[None]()

        def run() -> None:
            try:
                self.run(work())
            except BaseException as error:  # noqa: BLE001 - it is raised at the block's end
                done.set_exception(error)
            else:
                done.set_result(None)

        thread = threading.Thread(target=run, name="elsewhere")
        thread.start()
        try:
            yield "thread elsewhere"
        finally:
            done.result(WAIT)
            thread.join()


def in_both_halves(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Have a test that is written for the async half run in either; ``half`` says in which."""

    @wraps(test)
    def run(half: Half, **fixtures: Any) -> None:
        half.run(test(half=half, **fixtures))

    halves = [pytest.param(SyncHalf(), id="sync"), pytest.param(AsyncHalf(), id="async")]
    marked: Callable[..., None] = pytest.mark.parametrize("half", halves, ids=["sync", "async"])(
        run
    )
    return marked


def registry_of(
    half: Half, databases: Mapping[str, DatabaseSettings] | None = None, **keywords: Any
) -> AsyncSessionFactoryRegistry:
    """Make a registry of a half."""
    make: Callable[..., AsyncSessionFactoryRegistry] = AsyncSessionFactoryRegistry
    return half.make(make, databases or {}, **keywords)


class _ThreadSignal:
    """A signal between threads; waiting for it looks awaited, and blocks."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        assert self._event.wait(WAIT)
