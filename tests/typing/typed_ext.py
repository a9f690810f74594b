# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The integrations as a type checker sees them; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Protocol, assert_type

from dishka import Provider
from fastapi import APIRouter, FastAPI
from litestar import Litestar
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from sessionfactory import (
    AsyncSessionFactory,
    AsyncSessionFactoryRegistry,
    SessionFactory,
    SessionFactoryRegistry,
)
from sessionfactory.ext import fastapi, flask, litestar, starlette
from sessionfactory.ext.dishka import async_session_factories, session_factories
from sessionfactory.ext.svcs import register

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import svcs
    from flask import Flask


class MySession(Session):
    """A session class of a user's own."""


class Analytics(SessionFactory, Protocol):
    """A second database."""


Analytical = Annotated[SessionFactory[MySession], fastapi.sessions("analytics")]


def make() -> SessionFactoryRegistry[MySession]:
    """Make a registry whose sessions are of a user's own class."""
    return SessionFactoryRegistry(session_class=MySession)


@asynccontextmanager
async def own(app: FastAPI) -> AsyncGenerator[None]:
    """Do nothing around an application."""
    yield


@asynccontextmanager
async def stateful(app: Starlette) -> AsyncGenerator[dict[str, object]]:
    """Give an application's requests a state."""
    yield {}


def lifespans() -> None:
    """Either half is taken, whatever its session class, with an own lifespan or without."""
    FastAPI(lifespan=fastapi.lifespan(SessionFactoryRegistry.from_env))
    FastAPI(lifespan=fastapi.lifespan(AsyncSessionFactoryRegistry.from_env, own=own))
    FastAPI(lifespan=fastapi.lifespan(make, own=stateful, require=["analytics"], timeout=1))
    Starlette(lifespan=starlette.lifespan(make, own=stateful))
    nested = starlette.lifespan(make, own=starlette.lifespan(AsyncSessionFactoryRegistry))
    Starlette(lifespan=nested)
    fastapi.lifespan(make())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def injected(
    sessions: fastapi.Sessions,
    reader: fastapi.AsyncReader,
    session: fastapi.Transaction,
    other: fastapi.AsyncTransaction,
    analytical: Analytical,
) -> None:
    """An endpoint's arguments have the types of the interface."""
    assert_type(sessions, SessionFactory)
    assert_type(reader, AsyncSessionFactory)
    assert_type(session, Session)
    assert_type(other, AsyncSession)
    assert_type(analytical(), MySession)


def parts(app: FastAPI) -> None:
    """What belongs to an application is typed."""
    assert_type(fastapi.health_router(names=["default"]), APIRouter)
    assert_type(fastapi.registry_of(app), SessionFactoryRegistry)
    assert_type(fastapi.async_registry_of(app), AsyncSessionFactoryRegistry)
    fastapi.add_error_handlers(app, read_only=None, retry_after=5)


def flask_parts(app: Flask) -> None:
    """Flask takes the sync half only."""
    flask.init_app(app, make())
    flask.init_app(app, AsyncSessionFactoryRegistry())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(flask.sessions("analytics"), SessionFactory)
    assert_type(flask.registry_of(), SessionFactoryRegistry)


def plugins() -> None:
    """Litestar takes either half."""
    Litestar(plugins=[litestar.SessionFactoryPlugin(make)])
    Litestar(plugins=[litestar.SessionFactoryPlugin(AsyncSessionFactoryRegistry.from_env)])


def containers(services: svcs.Registry) -> None:
    """Containers take their half, and sub-protocols as types."""
    register(services, make(), types={SessionFactory: "default", Analytics: "analytics"})
    register(services, AsyncSessionFactoryRegistry())
    assert_type(session_factories(SessionFactoryRegistry.from_env), tuple[Provider, ...])
    async_session_factories(AsyncSessionFactoryRegistry.from_env, components=["analytics"])
    session_factories(AsyncSessionFactoryRegistry.from_env)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
