"""Fewer round trips on psycopg: which settings ask for it, and what an engine does then."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.config.values import as_table
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.drivers.sqlalchemy_private import Connect

_THEIRS: Final = ("cursor_factory", "async_creator_fn")
"""Arguments of ``connect`` that would put others in the place of our cursors and connections."""


def refuse_unsupported(settings: DatabaseSettings, url: URL) -> None:
    """Refuse to pipeline where that cannot be done as promised.

    Raises:
        SettingsError: the driver is not psycopg 3, or it is one that this module does not know.
    """
    if not settings.pipeline:
        return
    if (url.get_backend_name(), url.get_driver_name()) != ("postgresql", "psycopg"):
        problem = (
            f"expected psycopg 3, and not {url.drivername}: no other driver can send a statement"
            " before the one ahead of it was answered; leave it, or write postgresql://"
        )
        raise SettingsError([Fault("pipeline", problem)])
    unknown = _problem_with_psycopg()
    if unknown:
        raise SettingsError([Fault("pipeline", unknown)])
    arguments = as_table(settings.engine_options.get("connect_args", {})) or {}
    given = [name for name in _THEIRS if name in arguments]
    given += [name for name in ("creator", "async_creator") if name in settings.engine_options]
    if given:
        problem = f"has cursors and connections of its own; take {', '.join(given)} away"
        raise SettingsError([Fault("pipeline", problem)])


def _problem_with_psycopg() -> str | None:
    psycopg: Any = import_module("psycopg")
    if not psycopg.capabilities.has_pipeline():
        return "expected libpq 14 or newer, which this psycopg does not have"
    try:
        relied_on: dict[Any, tuple[str, ...]] = import_module(_AHEAD).RELIED_ON
    except ImportError as error:
        return f"does not know psycopg {psycopg.__version__}: {error}"
    for owner, names in relied_on.items():
        for name in names:
            if not hasattr(owner, name):
                return f"does not know psycopg {psycopg.__version__}: it has no {name}"
    return None


_AHEAD: Final = "sessionfactory.drivers.psycopg_pipeline.connection_base"


def pipelining(dialect: Dialect, settings: DatabaseSettings, connect: Connect) -> Connect:
    """Return a way to connect that makes pipelined connections, if the settings ask for them."""
    if not settings.pipeline:
        return connect
    from sessionfactory.drivers.psycopg_pipeline.connections import (  # noqa: PLC0415 - psycopg may not be installed
        AsyncPipelinedConnection,
        PipelinedConnection,
    )

    def connect_pipelined(*arguments: Any, **keywords: Any) -> DBAPIConnection:
        if dialect.is_async:
            keywords["async_creator_fn"] = AsyncPipelinedConnection.connect
            return connect(*arguments, **keywords)
        connection: Any = PipelinedConnection.connect(*arguments, **keywords)
        return connection  # type: ignore[no-any-return]

    return connect_pipelined
