"""Connections that are opened by a function of the user's, such as a cloud provider's connector.

SQLAlchemy's ``creator`` and ``async_creator`` replace all of the way to a connection. Here they are
its innermost part: the deadline, the books, the look at the encryption and the fork gate stay. What
would travel as an argument of the driver's ``connect`` cannot; it is set afterwards, or reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import connections, families, known
from sessionfactory.engine import timeouts
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.drivers.sqlalchemy_private import Connect

NAMES: Final = ("creator", "async_creator")
"""The engine options."""


def of_settings(settings: DatabaseSettings) -> Callable[[], Any] | None:
    """Return the function that opens connections, if the settings have one."""
    given = (settings.engine_options.get(name) for name in NAMES)
    found: Any = next((function for function in given if function is not None), None)
    return found  # type: ignore[no-any-return]  # checked by ``refuse_unsupported``


def refuse_unsupported(settings: DatabaseSettings, url: URL, *, is_async: bool) -> None:
    """Refuse a function that this half cannot call, and settings that it would make void.

    Raises:
        SettingsError: it is the other half's, not callable, or beside a limit that cannot be set.
    """
    faults: list[Fault] = []
    mine, theirs = ("async_creator", "creator") if is_async else ("creator", "async_creator")
    if settings.engine_options.get(theirs) is not None:
        half = "async" if is_async else "sync"
        faults.append(Fault("engine_options", f"{theirs} is not for the {half} half; give {mine}"))
    function = settings.engine_options.get(mine)
    if function is not None and not callable(function):
        problem = f"{mine} is a function that opens a connection, not {type(function).__name__}"
        faults.append(Fault("engine_options", problem))
    limits = timeouts.postgresql_settings(settings)
    on_postgresql = families.of_url(url).speaks_postgresql
    can_send = known.named(url.get_driver_name()).send is not None
    if function is not None and limits and on_postgresql and not can_send:
        faults += [Fault(name, f"cannot be set on a connection of {mine}") for name in limits]
    if faults:
        raise SettingsError(faults)


def opening(dialect: Dialect, settings: DatabaseSettings, connect: Connect) -> Connect:
    """Return a way to connect that calls the user's function, if the settings have one."""
    function = of_settings(settings)
    if function is None:
        return connect
    limits = timeouts.postgresql_settings(settings)
    limited = limits if families.of_dialect(dialect).speaks_postgresql else {}
    statements = "; ".join(f"SET {name} = {value}" for name, value in limited.items())

    def connect_by_function(*_arguments: object, **_keywords: object) -> DBAPIConnection:
        connection: DBAPIConnection = (
            connect(async_creator_fn=function) if dialect.is_async else function()
        )
        if statements:
            try:
                connections.send(connection, statements)
            except BaseException:
                dialect.do_terminate(connection)
                raise
        return connection

    return connect_by_function
