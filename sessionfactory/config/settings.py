"""The settings of a database: frozen values, checked when they are built.

Durations are seconds, as floats, and ``None`` means "no limit". Every fault of a class, the rules
between its fields included, is reported in one ``SettingsError``. Text is read as its field's
type (``"10"`` is 10, ``"false"`` is false), because configuration files and environments hold text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping  # noqa: TC003 - attrs resolves the annotations
from typing import Final, Literal, cast

import attrs
from sqlalchemy import URL  # noqa: TC002 - attrs resolves the annotations

from sessionfactory._lazy import publish
from sessionfactory.config import removed
from sessionfactory.config.hide_arguments import unseen
from sessionfactory.config.masking import (
    Secret,
    SecretLike,
    UrlLike,
    is_secret_key,
    take_secrets,
    takes_password,
)
from sessionfactory.config.validation import settle
from sessionfactory.config.values import SHORTEST, as_table, at_least, checked, more_than
from sessionfactory.errors import Fault

_NO_UNLIMITED: Final = (
    "expected 1 or more: SQLAlchemy takes 0 as unlimited, and an unlimited pool exhausts the"
    " server; for a connection per checkout use kind='none'"
)
# What a setting covers may not be given a second time, where it would win silently.
_COVERED: Final = {
    "url": "url", "echo": "echo",
    "pool_size": "pool.size", "max_overflow": "pool.max_overflow", "pool_timeout": "pool.timeout",
    "pool_recycle": "pool.recycle", "pool_pre_ping": "pool.pre_ping", "poolclass": "pool.kind",
    "pool": "pool.kind",
    "pool_reset_on_return": "pool.reset",
}  # fmt: skip
_COVERED_OF_SESSIONS: Final = {
    "autoflush": "session.autoflush", "expire_on_commit": "session.expire_on_commit",
    "close_resets_only": "session.close_resets_only",
    "bind": "url", "class_": "session_class", "sync_session_class": "session_class",
}  # fmt: skip
_COVERED_CONNECT_ARGS: Final = {
    "connect_timeout": "connect_timeout", "user": "url", "host": "url", "port": "url",
    "dbname": "url", "database": "url",
}  # fmt: skip


def _shown_options(options: Mapping[str, object]) -> str:
    return f"{{{', '.join(f'{key!r}: …' for key in options)}}}"


def _check_session_options(options: Mapping[str, object]) -> str | None:
    named = [
        f"{key} (use {_COVERED_OF_SESSIONS[key]})" for key in options if key in _COVERED_OF_SESSIONS
    ]
    return f"may not name what a setting covers: {', '.join(named)}" if named else None


@attrs.frozen(kw_only=True)
class PoolSettings:
    """The pool of an engine.

    Args:
        size: connections kept open.
        max_overflow: connections beyond ``size`` that a rush may open; they close on return.
        timeout: seconds a checkout may take in all: to wait for a connection
            (``PoolExhaustedError``), to open one and set it up (``ConnectTimeoutError``), to
            ping it.
        recycle: seconds after which a connection is replaced when it is next taken.
        pre_ping: whether a connection that was idle is checked before it is used.
        ping_after: a connection used within this many seconds is used without a ping.
        ping_timeout: seconds that a ping may take.
        reset: what happens to a connection between two sessions: ``"rollback"``, or ``"state"``,
            which also clears what the former left on it (PostgreSQL, and not behind a pooler), in
            one round trip that takes the place of pings.
        kind: ``"fair"`` (first come, first served) or ``"none"`` (a connection per checkout).
        hold_warning: seconds after which a connection that is still out is logged.
        processes: how many processes have such a pool; ``sessionfactory check`` warns if all of
            them together may want more connections than the server gives.
        server_connections: how many connections the server, or a pooler before it, has for them;
            by default what the server reports.
    """

    size: int = attrs.field(default=5, metadata=at_least(1, instead=_NO_UNLIMITED))
    max_overflow: int = attrs.field(default=10, metadata=at_least(0))
    timeout: float | None = attrs.field(default=30.0, metadata=more_than(0))
    recycle: float | None = attrs.field(
        default=1800.0, metadata=more_than(0, instead="; for no limit use None, in text 'none'")
    )
    pre_ping: bool = True
    ping_after: float = attrs.field(default=5.0, metadata=at_least(0))
    ping_timeout: float = attrs.field(default=1.0, metadata=more_than(0))
    reset: Literal["rollback", "state"] = "rollback"
    kind: Literal["fair", "none"] = attrs.field(
        default="fair", metadata=removed.values(queue=removed.QUEUE)
    )
    hold_warning: float | None = attrs.field(default=None, metadata=more_than(0))
    processes: int = attrs.field(default=1, metadata=at_least(1))
    server_connections: int | None = attrs.field(default=None, metadata=at_least(1))

    def __attrs_post_init__(self) -> None:
        settle(self)


@removed.without(owner=removed.OWNER)
@attrs.frozen(kw_only=True)
class SessionSettings:
    """The sessions that a factory makes.

    Args:
        autoflush: as SQLAlchemy's ``Session(autoflush=…)``.
        expire_on_commit: whether objects forget their state at commit. False here, unlike in
            SQLAlchemy: what a service returns after its scope can still be read.
        close_resets_only: whether a session that was closed opens again when it is used. False
            here, unlike in SQLAlchemy: a use after the scope is an error, not a connection that is
            never returned.
        options: anything else for the session class: ``twophase``, ``binds``, ``info``,
            ``autobegin``, ``join_transaction_mode``, ``query_cls``, or what a class of your own
            takes. It may not name what a setting covers.
    """

    autoflush: bool = True
    expire_on_commit: bool = False
    close_resets_only: bool = False
    options: Mapping[str, object] = attrs.field(
        factory=dict[str, object], repr=_shown_options, metadata=checked(_check_session_options)
    )

    def __attrs_post_init__(self) -> None:
        settle(self)


@attrs.frozen(kw_only=True)
class SqliteSettings:
    """What a SQLite database gets; other databases do not look at it.

    Args:
        begin: how ``factory.begin()`` and the engine itself begin a transaction. ``"immediate"``
            takes the write lock at once, so that no update is lost and none fails half-way;
            ``"deferred"`` takes it at the first write. ``factory()`` and readers are always
            deferred.
        journal: the journal of a file: ``"wal"`` lets readers and a writer work side by side.
            ``"keep"`` leaves the file as it is.
        synchronous: ``"normal"`` survives a crash of the process, and with WAL also never corrupts
            on a power cut; ``"full"`` also keeps the last commits.
        busy_timeout: seconds to wait for another connection's lock.
        foreign_keys: whether foreign keys are enforced, which SQLite leaves off.
    """

    begin: Literal["immediate", "deferred"] = "immediate"
    journal: Literal["wal", "delete", "truncate", "persist", "keep"] = "wal"
    synchronous: Literal["off", "normal", "full", "extra"] = "normal"
    busy_timeout: float = attrs.field(default=5.0, metadata=at_least(0))
    foreign_keys: bool = True

    def __attrs_post_init__(self) -> None:
        settle(self)


def _check_options(options: Mapping[str, object]) -> str | None:
    named = [f"{key} (use {_COVERED[key]})" for key in options if key in _COVERED]
    arguments = as_table(options.get("connect_args", {}))
    if arguments is None:
        return "connect_args: expected a table of the driver's arguments"
    for key in map(str, arguments):
        if is_secret_key(key):
            named.append(f"connect_args.{key} (a secret belongs into password or url)")
        elif key in _COVERED_CONNECT_ARGS:
            named.append(f"connect_args.{key} (use {_COVERED_CONNECT_ARGS[key]})")
    return f"may not name what a setting covers: {', '.join(named)}" if named else None


# The converters below only widen what type checkers let a caller write; ``settle`` does the work.
def _url(given: str | URL | UrlLike | SecretLike) -> URL:
    return cast("URL", given)


def _password(
    given: str | Secret | SecretLike | Callable[[], str] | Callable[[], Awaitable[str]] | None,
) -> Secret | None:
    return cast("Secret | None", given)


def _replicas(given: Iterable[str | URL | UrlLike]) -> tuple[URL, ...]:
    return cast("tuple[URL, ...]", given)


@unseen
@attrs.frozen(kw_only=True)
class DatabaseSettings:
    """One database: where it is, and how its engine, pool and sessions behave.

    It never changes, so that threads may share it. Of durations, ``None`` is no limit.

    Args:
        url: where the database is, as text or ``sqlalchemy.URL``; ``postgres://`` means
            ``postgresql://``. Secrets in it are moved to ``password``, so that nothing shows them.
        password: the password; with one in the URL too, both must be the same. A function is
            called when a connection is opened (``RotatingSecret``).
        connect_timeout: seconds to open a connection.
        statement_timeout: seconds that a statement may run (PostgreSQL, MariaDB).
        lock_timeout: seconds that a statement may wait for a lock (PostgreSQL, MySQL, MariaDB).
        idle_in_transaction_timeout: seconds after which the server ends a session that left a
            transaction open (PostgreSQL, MariaDB).
        tls: ``"driver"`` (the driver's own default), ``"require"`` or ``"verify"``.
        echo: log every statement, as ``create_engine(echo=True)``; ``"debug"``: rows, too.
        pipeline: fewer round trips on psycopg 3: a transaction's BEGIN travels with its first
            statement, and the end of a transaction that only read is not awaited.
            Refused on every other driver.
        replicas: URLs of read replicas; a replica has its primary's password.
        pool: the pool.
        session: the sessions.
        sqlite: what a SQLite database gets.
        engine_options: anything else for ``create_engine``; it may not name what a setting covers.
        url_secrets: other secrets of the URL's query (``sslpassword``), by key; they are moved here
            from the URL, and go back into it when connecting.

    Raises:
        SettingsError: what cannot be used, all of it at once.
    """

    url: URL = attrs.field(kw_only=False, converter=_url)
    password: Secret | None = attrs.field(default=None, converter=_password)
    connect_timeout: float | None = attrs.field(default=10.0, metadata=more_than(0))
    statement_timeout: float | None = attrs.field(default=None, metadata=at_least(SHORTEST))
    lock_timeout: float | None = attrs.field(default=None, metadata=at_least(SHORTEST))
    idle_in_transaction_timeout: float | None = attrs.field(
        default=None, metadata=at_least(SHORTEST)
    )
    tls: Literal["driver", "require", "verify"] = "driver"
    echo: bool | Literal["debug"] = False
    pipeline: bool = False
    replicas: tuple[URL, ...] = attrs.field(default=(), converter=_replicas)
    pool: PoolSettings = attrs.field(factory=PoolSettings)
    session: SessionSettings = attrs.field(factory=SessionSettings)
    sqlite: SqliteSettings = attrs.field(factory=SqliteSettings)
    engine_options: Mapping[str, object] = attrs.field(
        factory=dict[str, object], repr=_shown_options, metadata=checked(_check_options)
    )
    url_secrets: Mapping[str, Secret] = attrs.field(factory=dict[str, Secret])

    def __attrs_post_init__(self) -> None:
        settle(self, self._hide_secrets)

    def _hide_secrets(self, sound: set[str]) -> list[Fault]:
        """Move the secrets out of all URLs, and report where they contradict each other."""
        faults: list[Fault] = []
        if not {"url", "url_secrets"} <= sound:
            return faults
        url, secrets = take_secrets(self.url)
        passwords = [secrets.pop(key) for key in ("", "password") if key in secrets]
        if "password" in sound and self.password is not None:
            passwords.append(self.password)
        if passwords and not takes_password(url):
            faults.append(Fault("password", "not supported for SQLite"))
        if len(set(passwords)) > 1:
            faults.append(
                Fault("password", "is not the one in the URL; give it in one of the two places")
            )
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "url_secrets", {**self.url_secrets, **secrets})
        object.__setattr__(self, "password", passwords[0] if passwords else None)
        return faults + (self._hide_replica_secrets(passwords) if "replicas" in sound else [])

    def _hide_replica_secrets(self, passwords: list[Secret]) -> list[Fault]:
        split = [take_secrets(url) for url in self.replicas]
        object.__setattr__(self, "replicas", tuple(url for url, _ in split))
        return [
            Fault(f"replicas[{index}]", problem)
            for index, (url, secrets) in enumerate(split)
            if (problem := self._problem_with_replica(url, secrets, passwords))
        ]

    def _problem_with_replica(
        self, url: URL, secrets: Mapping[str, Secret], passwords: list[Secret]
    ) -> str | None:
        if url.get_backend_name() != self.url.get_backend_name():
            return f"expected a {self.url.get_backend_name()} URL, as the primary's"
        if not set(secrets.values()) <= {*passwords, *self.url_secrets.values()}:
            return "has a secret of its own; a replica has its primary's password"
        return None


publish(PoolSettings, SessionSettings, SqliteSettings, DatabaseSettings)
