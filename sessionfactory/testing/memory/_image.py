"""What a SQLite database in memory looks like after its preparation, and how it gets back there."""

from __future__ import annotations

import sqlite3
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
from sqlalchemy import MetaData

from sessionfactory.config.settings import DatabaseSettings, PoolSettings
from sessionfactory.config.values import as_table
from sessionfactory.drivers import families
from sessionfactory.engine.sqlite import is_memory, pragmas
from sessionfactory.errors import Fault, SessionFactoryError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessionfactory.config.settings import SqliteSettings
    from sessionfactory.status import Holder

S = TypeVar("S")

_DEFAULTS: Final = DatabaseSettings("sqlite://", pool=PoolSettings(timeout=5.0))


class IsolationError(SessionFactoryError):
    """A test did what its isolation from other tests does not allow, or cannot give."""


class Image:
    """The prepared content, and the one connection that holds what became of it.

    The connection is met where ``sqlite3`` makes it (``connect(factory=…)``), which is public, and
    the same for ``aiosqlite``: that has no call of its own to serialize or deserialize.

    Args:
        name: what messages call the database.
        settings: what its connection gets.
        content: what a connection begins with; nothing until ``take``.
    """

    def __init__(self, name: str, settings: SqliteSettings, content: bytes = b"") -> None:
        self.content = content
        self._name = name
        self._pragmas = pragmas(settings)
        self._connection: sqlite3.Connection
        self._alone = False

    def connect(self, *arguments: Any, **keywords: Any) -> sqlite3.Connection:
        """Make the connection, as the ``factory`` of ``sqlite3.connect``.

        Raises:
            IsolationError: there was one before, and its rows would be missed.
        """
        if self._alone:
            raise IsolationError(
                f"The connection of the in-memory database {self._name!r} was closed, and the"
                " database was lost with it. reset() brings the prepared one back"
            )
        keywords["check_same_thread"] = False  # the pool hands it to one at a time
        self._connection = sqlite3.Connection(*arguments, **keywords)
        self._alone = True
        if self.content:
            self._connection.deserialize(self.content)
        return self._connection

    def options(self, settings: DatabaseSettings) -> dict[str, object]:
        """Return ``create_engine``'s options that the settings ask for, and this image's own."""
        given = dict(settings.engine_options)
        theirs = as_table(given.pop("connect_args", {})) or {}
        return given | {"connect_args": {**theirs, "factory": self.connect}}

    def take(self) -> None:
        """Let what the connection holds now be the prepared content."""
        # A database without a table has no content either, until something is written to it.
        self._connection.execute("PRAGMA user_version = 0").close()
        self.content = self._connection.serialize()

    def expect_connection(self, holders: tuple[Holder, ...]) -> None:
        """Let a connection be made even if there was one before: it begins with the content.

        Raises:
            IsolationError: somebody has the connection.
        """
        if holders:
            raise IsolationError(
                f"The in-memory database {self._name!r} cannot be reset while a session is open."
                f" Close it first; its connection is in use by: {'; '.join(map(str, holders))}"
            )
        self._alone = False

    def restore(self) -> bool:
        """Put the content back into the connection, and its settings; the caller has it out.

        Returns:
            whether that was all there was to do. A connection with temporary tables or attached
            databases must be replaced, because these are not part of the content.
        """
        if len(self._connection.execute("PRAGMA database_list").fetchall()) > 1:
            return False
        self._connection.deserialize(self.content)
        for pragma in self._pragmas:
            self._connection.execute(pragma).close()
        self._alone = True
        return True


def expect_all_closed(left: Iterable[Holder]) -> None:
    """Tell of sessions that a test left open.

    Args:
        left: their holders, who were cut off.

    Raises:
        IsolationError: there are any.
    """
    places = [str(holder) for holder in left]
    if places:
        message = "This test left sessions open, which were cut off; opened at:"
        raise IsolationError("\n  - ".join([message, *places]))


def in_memory(settings: DatabaseSettings | None) -> DatabaseSettings:
    """Return settings for a database in memory, by default with a short wait for the connection.

    Raises:
        SettingsError: they are for another database.
    """
    settings = settings or _DEFAULTS
    if not families.of_url(settings.url).is_sqlite or not is_memory(settings.url):
        raise SettingsError([Fault("url", "expected sqlite://, a database in memory")])
    return attrs.evolve(settings, url="sqlite://")


def as_metadata(given: object) -> MetaData:
    """Return what was given as metadata.

    Raises:
        TypeError: it is none, but the declarative base that has it, for instance.
    """
    if isinstance(given, MetaData):
        return given
    hint = ": say Base.metadata" if isinstance(getattr(given, "metadata", None), MetaData) else ""
    # Of a URL that was given by mistake, for instance, no more than the kind may be shown.
    kind = given.__name__ if isinstance(given, type) else f"{type(given).__name__} object"
    raise TypeError(f"expected a MetaData, not {kind}{hint}")


def as_seed(given: Callable[[S], object] | None) -> Callable[[S], object] | None:
    """Return what was given to put rows into the tables.

    Raises:
        TypeError: it is a coroutine function, which would never run.
    """
    if iscoroutinefunction(given):
        name = getattr(given, "__name__", repr(given))
        raise TypeError(
            f"seed is a coroutine function, {name!r}: in both halves it is a plain function over a"
            " plain Session"
        )
    return given
