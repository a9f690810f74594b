"""The arguments of ``create_engine`` that settings mean, and the call of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy

from sessionfactory.config.values import as_table
from sessionfactory.drivers import families, tls
from sessionfactory.engine import creators, sqlite, timeouts
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.loop_bound import AsyncFairPool

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from sessionfactory.config.settings import DatabaseSettings

_COVERED_ON_SQLITE: Final = frozenset({"timeout", "isolation_level"})
"""What ``sqlite.busy_timeout`` and ``sqlite.begin`` decide."""
_SAME_THREAD: Final = (
    "check_same_thread is False here: the pool hands a connection to one thread at a time, and"
    " another thread may close it; leave it away"
)
_AUTOCOMMIT: Final = (
    "the driver's autocommit would begin transactions elsewhere than sqlite.begin does; leave it"
    ' away, or write isolation_level="AUTOCOMMIT" in engine_options'
)


def create(url: URL, options: dict[str, Any], *, is_async: bool) -> Engine:
    """Create an engine by SQLAlchemy's function, as it is now: instrumentation replaces it."""
    if not is_async:
        return sqlalchemy.create_engine(url, **options)
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - heavy, and one half's

    return create_async_engine(url, **options).sync_engine


def is_in_memory(url: URL) -> bool:
    """Return whether a URL means a database in memory."""
    return families.of_url(url).is_sqlite and sqlite.is_memory(url)


def pool_size(settings: DatabaseSettings, url: URL) -> tuple[int, int]:
    """Return the size of a pool, and how many connections may be added."""
    # A database in memory is its connection: sessions take turns on the one.
    return (1, 0) if is_in_memory(url) else (settings.pool.size, settings.pool.max_overflow)


def of_engine(settings: DatabaseSettings, url: URL, *, is_async: bool) -> dict[str, object]:
    """Return the arguments of ``create_engine``, without the URL.

    Raises:
        SettingsError: ``engine_options`` or the URL name what a setting covers, or the database has
            no such setting.
    """
    pool = settings.pool
    in_memory = is_in_memory(url)
    size, overflow = pool_size(settings, url)
    given = dict(settings.engine_options)
    theirs = as_table(given.pop("connect_args", None)) or {}
    for name in creators.NAMES:
        given.pop(name, None)  # part of the chain: see ``connect``
    reuse = pool.kind != "none" or in_memory
    return {
        **given,
        "echo": settings.echo,
        "connect_args": _of_connect(
            settings, url, {str(name): value for name, value in theirs.items()}, is_async=is_async
        ),
        "pool_recycle": -1 if pool.recycle is None or in_memory else pool.recycle,
        "poolclass": AsyncFairPool if is_async else FairPool,
        "pool_size": size if reuse else 0,  # no limit
        "max_overflow": overflow,
        "pool_timeout": pool.timeout,
        "reuse": reuse,
        # A file is opened at once, and without a thread apart.
        "connect_in_time": not families.of_url(url).is_sqlite,
    }


def _of_connect(
    settings: DatabaseSettings, url: URL, given: dict[str, object], *, is_async: bool
) -> dict[str, object]:
    """Return the arguments of the driver's ``connect``."""
    limits = timeouts.connect_arguments(settings, url, given)
    arguments = tls.connect_arguments(settings, url, given)
    covered = {*arguments}
    named = {*given}
    if families.of_url(url).is_sqlite:
        covered |= _COVERED_ON_SQLITE
        named |= _COVERED_ON_SQLITE & url.query.keys()
        if "autocommit" in {*given, *url.query}:
            raise SettingsError([Fault("engine_options", _AUTOCOMMIT)])
        if not is_async:  # aiosqlite has a thread for each connection
            if given.get("check_same_thread", False):
                raise SettingsError([Fault("engine_options", _SAME_THREAD)])
            # The pool hands a connection to one thread at a time.
            arguments["check_same_thread"] = False
    clash = sorted(covered & named)
    if clash:
        problem = f"connect_args and url may not name what a setting covers: {', '.join(clash)}"
        raise SettingsError([Fault("engine_options", problem)])
    return arguments | given | limits
