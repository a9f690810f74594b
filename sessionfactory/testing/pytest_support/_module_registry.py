"""The async registry that the tests of a module share."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

import attrs

from sessionfactory.registry.borrowed import owned
from sessionfactory.testing.rollback.rollback_async import AsyncRollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy.ext.asyncio import AsyncSession

    from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry


@attrs.frozen
class ModuleRegistry:
    """An async registry for all tests of a module, which run in one event loop."""

    registry: AsyncSessionFactoryRegistry
    loop: asyncio.AbstractEventLoop = attrs.field(init=False, factory=asyncio.get_running_loop)

    @asynccontextmanager
    async def for_test(self) -> AsyncGenerator[AsyncSessionFactoryRegistry]:
        """Undo what a test does on the rollback views of the module.

        Raises:
            RuntimeError: the test runs in another loop, which cannot use the module's connections.
        """
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                "async_module_session_factory belongs to the event loop of the module, and this"
                " test runs in another one: in the test file, write"
                " pytestmark = pytest.mark.asyncio(loop_scope='module')"
            )
        async with AsyncExitStack() as blocks:
            overriding = self.registry._catalogue.overriding()  # noqa: SLF001 - our own
            for sessions in map(owned, overriding):
                if isinstance(sessions, AsyncRollbackSessionFactory):
                    view = cast("AsyncRollbackSessionFactory[AsyncSession]", sessions)
                    await blocks.enter_async_context(view.savepoint())
            yield self.registry
