# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The settings as a type checker sees them; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_type

import attrs
from sqlalchemy import URL, make_url

from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    Secret,
    SessionSettings,
    SqliteSettings,
)


def database() -> None:
    """Every setting of a database, with the values it accepts."""
    DatabaseSettings("sqlite://")
    DatabaseSettings(make_url("sqlite://"))
    DatabaseSettings(url="sqlite://")
    DatabaseSettings(
        "postgresql://host/name",
        password="canary",
        connect_timeout=5,
        statement_timeout=1.5,
        lock_timeout=None,
        idle_in_transaction_timeout=60.0,
        tls="verify",
        echo=True,
        pipeline=True,
        replicas=["postgresql://replica/name", make_url("postgresql://other/name")],
        pool=PoolSettings(size=2),
        session=SessionSettings(autoflush=False),
        sqlite=SqliteSettings(begin="deferred"),
        engine_options={"max_identifier_length": 60, "connect_args": {"application_name": "x"}},
        url_secrets={"sslpassword": Secret("canary")},
    )
    DatabaseSettings("sqlite://", password=Secret("canary"), replicas=())


def database_values(settings: DatabaseSettings) -> None:
    """What is read from the settings is as narrow as what was checked."""
    assert_type(settings.url, URL)
    assert_type(settings.password, Secret | None)
    assert_type(settings.connect_timeout, float | None)
    assert_type(settings.statement_timeout, float | None)
    assert_type(settings.lock_timeout, float | None)
    assert_type(settings.idle_in_transaction_timeout, float | None)
    assert_type(settings.tls, Literal["driver", "require", "verify"])
    assert_type(settings.echo, bool | Literal["debug"])
    assert_type(settings.pipeline, bool)
    assert_type(settings.replicas, tuple[URL, ...])
    assert_type(settings.pool, PoolSettings)
    assert_type(settings.session, SessionSettings)
    assert_type(settings.sqlite, SqliteSettings)
    assert_type(settings.engine_options, Mapping[str, object])
    assert_type(settings.url_secrets, Mapping[str, Secret])
    assert_type(attrs.evolve(settings, echo=True), DatabaseSettings)


def pool() -> None:
    """Every setting of a pool."""
    settings = PoolSettings(
        size=1,
        max_overflow=0,
        timeout=None,
        recycle=None,
        pre_ping=False,
        ping_after=0.5,
        ping_timeout=1,
        reset="state",
        kind="none",
        hold_warning=3.0,
        processes=4,
        server_connections=90,
    )
    assert_type(settings.size, int)
    assert_type(settings.max_overflow, int)
    assert_type(settings.timeout, float | None)
    assert_type(settings.recycle, float | None)
    assert_type(settings.pre_ping, bool)
    assert_type(settings.ping_after, float)
    assert_type(settings.ping_timeout, float)
    assert_type(settings.reset, Literal["rollback", "state"])
    assert_type(settings.kind, Literal["fair", "none"])
    assert_type(settings.hold_warning, float | None)
    assert_type(settings.processes, int)
    assert_type(settings.server_connections, int | None)


def sessions_and_sqlite() -> None:
    """Every setting of sessions and of SQLite."""
    session = SessionSettings(autoflush=True, expire_on_commit=True)
    assert_type(session.autoflush, bool)
    assert_type(session.expire_on_commit, bool)
    sqlite = SqliteSettings(
        begin="immediate", journal="keep", synchronous="full", busy_timeout=1, foreign_keys=False
    )
    assert_type(sqlite.begin, Literal["immediate", "deferred"])
    assert_type(sqlite.journal, Literal["wal", "delete", "truncate", "persist", "keep"])
    assert_type(sqlite.synchronous, Literal["off", "normal", "full", "extra"])
    assert_type(sqlite.busy_timeout, float)
    assert_type(sqlite.foreign_keys, bool)


def secret(text: Secret) -> None:
    """A secret gives its text by one method only."""
    assert_type(Secret("canary").reveal(), str)
    assert_type(str(text), str)
    assert_type(bool(text), bool)


def refused(settings: DatabaseSettings) -> None:
    """What the constructors do not take, and what cannot be changed."""
    DatabaseSettings()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseSettings(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseSettings(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseSettings("sqlite://", "canary")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseSettings("sqlite://", pool_size=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseSettings("sqlite://", tls="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseSettings("sqlite://", password=b"canary")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseSettings("sqlite://", pool={"size": 5})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PoolSettings(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PoolSettings(size="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PoolSettings(size=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PoolSettings(kind="lifo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SessionSettings(False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SessionSettings(autocommit=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SqliteSettings(journal="off")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Secret()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    settings.echo = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    settings.pool.size = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
