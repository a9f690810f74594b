"""FastAPI: factories as dependencies, one transaction around an endpoint, and Starlette's parts.

Inject a factory (``Sessions``), and open the transaction where the work is: it is committed before
the response, and a response that streams holds no connection. ``Transaction`` is for endpoints that
are one transaction.
"""

# No ``from __future__ import annotations``: FastAPI reads these annotations from callable objects,
# which have no ``__globals__`` in which it could look text up.

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import fastapi
from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency
from fastapi.requests import HTTPConnection, Request
from sqlalchemy.orm import Session

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.ext.starlette import (
    add_error_handlers,
    async_registry_of,
    health_routes,
    lifespan,
    registry_of,
)
from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
from sessionfactory.registry.registry import SessionFactoryRegistry
from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry

if "scope" not in inspect.signature(Dependency).parameters:
    raise ImportError(
        "sessionfactory.ext.fastapi needs FastAPI 0.121 or newer, and this is"
        f" {fastapi.__version__}: there, what a dependency does after its yield is done when the"
        ' response is out, a COMMIT too. Install "sessionfactory[fastapi]"'
    )

__all__ = [
    "AsyncReader",
    "AsyncReaderOf",
    "AsyncSessions",
    "AsyncSessionsOf",
    "AsyncTransaction",
    "AsyncTransactionOf",
    "Reader",
    "ReaderOf",
    "Sessions",
    "SessionsOf",
    "Transaction",
    "TransactionOf",
    "add_error_handlers",
    "async_reader",
    "async_registry_of",
    "async_sessions",
    "async_transaction",
    "get_async_registry",
    "get_registry",
    "health_router",
    "lifespan",
    "reader",
    "registry_of",
    "sessions",
    "transaction",
]

_DEFAULT: Final = "default"


async def get_registry(connection: HTTPConnection) -> SessionFactoryRegistry:
    """Return the registry of the request's application; all dependencies here start from it.

    ``app.dependency_overrides[get_registry] = lambda: registry`` replaces all databases at once.
    """
    return registry_of(connection)


async def get_async_registry(connection: HTTPConnection) -> AsyncSessionFactoryRegistry:
    """Async twin of ``get_registry``."""
    return async_registry_of(connection)


_Registry: TypeAlias = Annotated[SessionFactoryRegistry, Depends(get_registry)]
_AsyncRegistry: TypeAlias = Annotated[AsyncSessionFactoryRegistry, Depends(get_async_registry)]


# Dataclasses: equal ones are one dependency to FastAPI, in its cache and in dependency_overrides.
# Those that are factories are coroutine functions: FastAPI runs plain functions in a thread.
@dataclass(frozen=True, slots=True)
class SessionsOf:
    """Finds a factory for a request; the key of ``app.dependency_overrides`` for it."""

    name: str = _DEFAULT

    async def __call__(self, registry: _Registry) -> SessionFactory:
        """Return the factory."""
        return registry.get(self.name)


@dataclass(frozen=True, slots=True)
class ReaderOf:
    """Finds a factory of read-only transactions; a key of ``app.dependency_overrides``."""

    name: str = _DEFAULT

    async def __call__(self, registry: _Registry) -> SessionFactory:
        """Return the factory."""
        return registry.reader(self.name)


@dataclass(frozen=True, slots=True)
class TransactionOf:
    """Runs a transaction around an endpoint; a key of ``app.dependency_overrides``."""

    name: str = _DEFAULT

    def __call__(self, registry: _Registry) -> Generator[Session]:
        """Yield the session, and end its transaction."""
        with registry.get(self.name).begin() as session:
            yield session


@dataclass(frozen=True, slots=True)
class AsyncSessionsOf:
    """Async twin of ``SessionsOf``."""

    name: str = _DEFAULT

    async def __call__(self, registry: _AsyncRegistry) -> AsyncSessionFactory:
        """Return the factory."""
        return registry.get(self.name)


@dataclass(frozen=True, slots=True)
class AsyncReaderOf:
    """Async twin of ``ReaderOf``."""

    name: str = _DEFAULT

    async def __call__(self, registry: _AsyncRegistry) -> AsyncSessionFactory:
        """Return the factory."""
        return registry.reader(self.name)


@dataclass(frozen=True, slots=True)
class AsyncTransactionOf:
    """Async twin of ``TransactionOf``."""

    name: str = _DEFAULT

    async def __call__(self, registry: _AsyncRegistry) -> AsyncGenerator[AsyncSession]:
        """Yield the session, and end its transaction."""
        async with registry.get(self.name).begin() as session:
            yield session


def sessions(name: str = _DEFAULT) -> Dependency:
    """Return the dependency that is a database's factory.

    ``Analytics = Annotated[SessionFactory, sessions("analytics")]``; the class of the sessions is
    what the annotation says, ``SessionFactory[MySession]``. A test replaces it with
    ``app.dependency_overrides[SessionsOf("analytics")] = lambda: fake``.
    """
    return Dependency(SessionsOf(name))


def reader(name: str = _DEFAULT) -> Dependency:
    """Return the dependency that is a database's factory of read-only transactions."""
    return Dependency(ReaderOf(name))


def transaction(name: str = _DEFAULT) -> Dependency:
    """Return the dependency that is a session, in a transaction around the endpoint.

    It is committed when the endpoint has returned and before the response is sent, and rolled back
    if the endpoint raises, an ``HTTPException`` too. A response with an error status that is
    *returned* commits. The session is closed when a response streams, and when background tasks
    run: inject a factory there. Sub-dependencies that ask for it get the same session.
    """
    return Dependency(TransactionOf(name), scope="function")


def async_sessions(name: str = _DEFAULT) -> Dependency:
    """Async twin of ``sessions``."""
    return Dependency(AsyncSessionsOf(name))


def async_reader(name: str = _DEFAULT) -> Dependency:
    """Async twin of ``reader``."""
    return Dependency(AsyncReaderOf(name))


def async_transaction(name: str = _DEFAULT) -> Dependency:
    """Async twin of ``transaction``."""
    return Dependency(AsyncTransactionOf(name), scope="function")


Sessions: TypeAlias = Annotated[SessionFactory, sessions()]
Reader: TypeAlias = Annotated[SessionFactory, reader()]
Transaction: TypeAlias = Annotated[Session, transaction()]
AsyncSessions: TypeAlias = Annotated[AsyncSessionFactory, async_sessions()]
AsyncReader: TypeAlias = Annotated[AsyncSessionFactory, async_reader()]
AsyncTransaction: TypeAlias = Annotated[AsyncSession, async_transaction()]


def health_router(
    *,
    prefix: str = "/health",
    names: Iterable[str] | None = None,
    timeout: float = 2.0,
    details: Callable[[Request], bool] | None = None,
) -> APIRouter:
    """Return a router with the routes of ``health_routes``; they are not in the OpenAPI schema."""
    routes = health_routes(prefix=prefix, names=names, timeout=timeout, details=details)
    return APIRouter(routes=[*routes])
