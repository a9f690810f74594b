"""Alembic: migrations on the databases of a registry, one process at a time.

An ``env.py`` is five lines; no URL passes through ``alembic.ini``, whose parser breaks on ``%``::

    from sessionfactory import SessionFactoryRegistry
    from sessionfactory.ext.alembic import run_migrations
    from app.models import Base

    with SessionFactoryRegistry.from_env() as registry:
        run_migrations(registry, Base.metadata)

``alembic init -t "$(python -m sessionfactory.ext.alembic)" migrations`` writes one from a template.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from logging.config import fileConfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import attrs
from alembic import context
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData

from sessionfactory.errors import Fault, SettingsError
from sessionfactory.ext.alembic_locks import LOCKS, MigrationKeysError, MigrationLockError

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, RevisionStep
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


__all__ = [
    "AsyncEngines",
    "Engines",
    "MigrationKeysError",
    "MigrationLockError",
    "MigrationState",
    "Target",
    "run_migrations",
    "run_migrations_async",
    "states",
    "template",
]

Target: TypeAlias = MetaData | Sequence[MetaData] | None
"""The tables that ``alembic revision --autogenerate`` compares with the database."""
DEFAULT: Final = "default"
_NAME: Final = "sessionfactory_database"
_TEMPLATES: Final = Path(__file__).with_name("_alembic_templates")


class Engines(Protocol):
    """What is used of a ``SessionFactoryRegistry``, whatever its sessions are."""

    def engine(self, name: str, /) -> Engine:
        """Return the engine of a database."""
        ...


class AsyncEngines(Protocol):
    """Async twin of ``Engines``."""

    def engine(self, name: str, /) -> AsyncEngine:
        """Return the engine of a database."""
        ...


def run_migrations(
    registry: Engines,
    target: Target | Mapping[str, Target],
    *,
    lock_timeout: float | None = 300.0,
    **options: object,
) -> None:
    """Run what the ``alembic`` command asks for; for ``env.py``.

    On PostgreSQL, MySQL, MariaDB and SQLite one process migrates a database; others wait, log for
    whom, and then find nothing to do. A process that is killed loses the lock. On SQLite, all
    migrations are one transaction without foreign keys, which are checked at its end: a batch
    migration keeps the rows that refer to the rebuilt table. ``autocommit_block()`` is not possible
    there.

    A connection in ``config.attributes["connection"]`` is used instead of the registry's, as it is:
    no lock is taken, and nothing is committed.

    Args:
        registry: has the databases.
        target: the metadata of the database ``default``; for several databases, or one with
            another name, a mapping from names. ``-x database=NAME`` restricts it to one of them.
        lock_timeout: seconds to wait for another process; ``None`` takes no lock.
        options: for Alembic's ``context.configure()``.

    Raises:
        MigrationLockError: another process still migrates after ``lock_timeout``.
        MigrationKeysError: migrations of a SQLite database broke foreign keys.
        NotConfiguredError: the registry has no such database.
    """
    _configure_logging()
    for name, run in _runs(target, lock_timeout, options).items():
        engine = registry.engine(name)
        given = _given_connection()
        if context.is_offline_mode():
            run.offline(engine)
        elif given is not None:
            run.on_given(given)
        else:
            with engine.connect() as connection:
                run.online(connection)


async def run_migrations_async(
    registry: AsyncEngines,
    target: Target | Mapping[str, Target],
    *,
    lock_timeout: float | None = 300.0,
    **options: object,
) -> None:
    """Async twin of ``run_migrations``, for ``asyncio.run`` in ``env.py``.

    The event loop stands still while it waits for another process: nothing else runs in it.
    """
    _configure_logging()
    for name, run in _runs(target, lock_timeout, options).items():
        engine = registry.engine(name)
        given = _given_connection()
        if context.is_offline_mode():
            run.offline(engine)
        elif given is not None:
            run.on_given(given)
        else:
            async with engine.connect() as connection:
                await connection.run_sync(run.online)


@attrs.frozen
class MigrationState:
    """Where a database is, and where the migration scripts end."""

    name: str
    current: tuple[str, ...]
    """Revisions that the database has."""
    heads: tuple[str, ...]
    """The newest revisions of the scripts."""

    @property
    def is_current(self) -> bool:
        """Whether the database has every migration."""
        return set(self.current) == set(self.heads)

    def __str__(self) -> str:
        if self.is_current:
            return f"up to date at {', '.join(self.current) or 'no revision'}"
        at, ends = (", ".join(each) or "no revision" for each in (self.current, self.heads))
        return f"at {at}, the scripts end at {ends}; run `alembic upgrade head`"


def states(config_file: str = "alembic.ini") -> tuple[MigrationState, ...]:
    """Return where each database is, as the project's ``env.py`` finds it; nothing is changed.

    Args:
        config_file: Alembic's configuration; ``pyproject.toml`` beside it is read as well.

    Raises:
        SettingsError: there is no such file, or Alembic cannot use it.
    """
    if not Path(config_file).is_file():
        raise SettingsError([Fault("", "the file does not exist", config_file)])
    try:
        return _states(Config(config_file))
    except CommandError as error:
        raise SettingsError([Fault("", str(error), config_file)]) from error


def _states(config: Config) -> tuple[MigrationState, ...]:
    script = ScriptDirectory.from_config(config)
    found: list[MigrationState] = []

    def look(revisions: tuple[str, ...], migrations: MigrationContext) -> list[RevisionStep]:
        name = str(migrations.opts.get(_NAME, DEFAULT))
        found.append(MigrationState(name, tuple(revisions), tuple(script.get_heads())))
        return []

    look_only = cast("Any", look)  # Alembic's type is narrower than what it calls
    with EnvironmentContext(config, script, fn=look_only, dont_mutate=True):
        script.run_env()
    return tuple(found)


def template(kind: str = "sync") -> str:
    """Return the folder of a template for ``alembic init -t``.

    Args:
        kind: ``"sync"``, ``"async"`` or ``"multidb"``.

    Raises:
        ValueError: there is no such template.
    """
    known = sorted(path.name for path in _TEMPLATES.iterdir() if path.is_dir())
    if kind not in known:
        raise ValueError(f"expected one of {', '.join(known)}")
    return str(_TEMPLATES / kind)


@attrs.frozen
class _Run:
    """The migrations of one database."""

    name: str
    lock_timeout: float | None
    options: dict[str, Any]
    arguments: dict[str, str]
    """For ``upgrade()`` and ``downgrade()`` of the scripts."""

    def online(self, connection: Connection) -> None:
        """Migrate over a connection that is in no transaction, under the lock."""
        lock = LOCKS.get(connection.dialect.name)
        self._configure(connection)
        only_reads = bool(context.get_context().opts.get("dont_mutate"))  # current, check
        if lock is None or self.lock_timeout is None or only_reads:
            self._migrate()
            connection.commit()
            return
        with lock(connection).held(self.name, self.lock_timeout):
            if lock.in_transaction:
                self._configure(connection)  # anew, because Alembic looks for a transaction here
            self._migrate()

    def on_given(self, connection: Connection) -> None:
        """Migrate over the caller's connection, whose transaction is the caller's."""
        self._configure(connection)
        self._migrate()

    def offline(self, engine: Engine | AsyncEngine) -> None:
        """Print SQL."""
        context.configure(
            dialect_name=engine.dialect.name,
            dialect_opts={"paramstyle": "named"},
            literal_binds=True,
            **self.options,
        )
        self._migrate()

    def _configure(self, connection: Connection) -> None:
        context.configure(connection=connection, **self.options)

    def _migrate(self) -> None:
        with context.begin_transaction():
            context.run_migrations(**self.arguments)


def _runs(
    target: Target | Mapping[str, Target], lock_timeout: float | None, options: dict[str, object]
) -> dict[str, _Run]:
    several = isinstance(target, Mapping)
    targets = target if isinstance(target, Mapping) else {DEFAULT: target}
    chosen = context.get_x_argument(as_dictionary=True).get("database")
    if chosen is not None and chosen not in targets:
        raise SettingsError([Fault("-x database", f"expected one of {', '.join(targets)}")])
    return {
        name: _Run(
            name,
            lock_timeout,
            {
                "target_metadata": metadata,
                "upgrade_token": f"{name}_upgrades" if several else "upgrades",
                "downgrade_token": f"{name}_downgrades" if several else "downgrades",
                "render_as_batch": True,  # plain statements everywhere but on SQLite
                _NAME: name,
                **options,
            },
            {"engine_name": name} if several else {},
        )
        for name, metadata in targets.items()
        if chosen in (None, name)
    }


def _given_connection() -> Connection | None:
    given: object = context.config.attributes.get("connection")
    return given if isinstance(given, Connection) else None


def _configure_logging() -> None:
    """Configure logging from ``alembic.ini``, for the command; a program has its own."""
    config = context.config
    if config.cmd_opts is None or config.config_file_name is None:
        return
    if config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{template(*sys.argv[1:2])}\n")
    except ValueError as _error:
        sys.exit(str(_error))
