"""How a prepared database is copied: PostgreSQL by its templates, SQLite as a file."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from sqlalchemy.engine.default import DefaultDialect

from sessionfactory.drivers import dialects, families
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sessionfactory.config.settings import DatabaseSettings

_STRATEGIES_SINCE: Final = 150000


class Templates(Protocol):
    """Makes databases, and makes them from others. All but ``url`` is called in one thread.

    Each may raise what SQLAlchemy or the operating system raises.
    """

    def url(self, name: str) -> URL:
        """Return where the database of that name is."""
        ...

    def create(self, name: str, template: str | None = None) -> None:
        """Make a database, empty or like another one, to which nobody is connected."""
        ...

    def drop(self, name: str) -> None:
        """Drop a database if it is there, whoever is connected to it."""
        ...

    def close(self) -> None:
        """Leave nothing behind but databases that were not dropped."""
        ...


class Server(Protocol):
    """Executes statements on a server, outside of any transaction."""

    is_async: ClassVar[bool]

    def __init__(self, settings: DatabaseSettings) -> None: ...

    def execute(self, statement: str) -> object:
        """Execute a statement, and return the first value of its first row, if it has rows."""
        ...

    def close(self) -> None:
        """Give up what it has of the server."""
        ...


def templates_for(settings: DatabaseSettings, server: type[Server]) -> Templates:
    """Return what copies databases where the settings point.

    Args:
        settings: the database.
        server: how this half speaks to a server.

    Raises:
        SettingsError: this database cannot be copied, or no engine could be built.
    """
    backend, family = settings.url.get_backend_name(), families.of_url(settings.url)
    if not (family.is_postgresql or family.is_sqlite):
        problem = f"expected postgresql or sqlite: {backend} does not copy databases"
        raise SettingsError([Fault("url", problem)])
    url = dialects.with_driver(settings.url, is_async=server.is_async)
    dialects.load_dialect(url, is_async=server.is_async)
    if family.is_sqlite:
        return SqliteTemplates(settings)
    return PostgresTemplates(settings.url, server(settings))


def new_name() -> str:
    """Return the start of a name that no other process uses, and that tells which one does."""
    return f"sessionfactory_{os.getpid()}_{secrets.token_hex(4)}"


def _quoted(name: str) -> str:
    return DefaultDialect().identifier_preparer.quote_identifier(name)


class PostgresTemplates:
    """Copies by ``CREATE DATABASE … TEMPLATE``, through the database that the settings name."""

    def __init__(self, url: URL, server: Server) -> None:
        self._url = url
        self._server = server

    def url(self, name: str) -> URL:
        """Return where the database of that name is."""
        return self._url.set(database=name)

    def create(self, name: str, template: str | None = None) -> None:
        """Make a database, empty or like another one, to which nobody is connected."""
        like = f" TEMPLATE {_quoted(template)}{self._strategy}" if template else ""
        self._server.execute(f"CREATE DATABASE {_quoted(name)}{like}")

    def drop(self, name: str) -> None:
        """Drop a database if it is there, whoever is connected to it."""
        self._server.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    @cached_property
    def _strategy(self) -> str:
        waits_for_the_disk = self._server.execute("SHOW fsync") == "on"
        version = int(str(self._server.execute("SHOW server_version_num")))
        # Copying files takes two checkpoints: half the time of the default, or many times as much.
        return "" if waits_for_the_disk or version < _STRATEGIES_SINCE else " STRATEGY file_copy"


class SqliteTemplates:
    """Copies files in a temporary directory; the file that the settings name is left alone."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._url = settings.url
        self._images: dict[str, bytes] = {}

    def url(self, name: str) -> URL:
        """Return where the database of that name is."""
        return self._url.set(database=str(self._directory / name), query={})

    def create(self, name: str, template: str | None = None) -> None:
        """Make a database, empty or like another one."""
        (self._directory / name).write_bytes(self._image(template) if template else b"")

    def drop(self, name: str) -> None:
        """Remove the files of a database."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            (self._directory / f"{name}{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self._directory)

    @cached_property
    def _directory(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="sessionfactory-"))

    def _image(self, name: str) -> bytes:
        # Through SQLite: what was committed may still be in the file's log.
        if name not in self._images:
            with closing(sqlite3.connect(self._directory / name)) as connection:
                connection.execute("PRAGMA user_version = 0")  # an empty file has no image
                self._images[name] = connection.serialize()
        return self._images[name]
