"""The outcome of a transaction by its marker, a row that it wrote itself.

The row's key is unique. To find out the outcome, the same row is written in another transaction. If
that is refused, the first transaction was committed. If it succeeds, the first was not, and its
COMMIT, even if it is still on the way, can no longer succeed.
"""

from __future__ import annotations

import random
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from attrs import field, frozen
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    MetaData,
    String,
    Table,
    Text,
    cast,
    delete,
    extract,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from sessionfactory.drivers import families
from sessionfactory.drivers.error_codes import classify, kind_of
from sessionfactory.engine.views.read_only import is_read_only
from sessionfactory.errors import SessionFactoryError
from sessionfactory.transactions.verification import postgres_status
from sessionfactory.transactions.verification.outcome import NothingWritten

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine

    from sessionfactory.drivers.families import Family
    from sessionfactory.transactions.verification.outcome import Outcome, OutcomeCheck

NAME: Final = "sessionfactory_commit"
RETENTION: Final = 3600
"""Seconds after which a marker is deleted: long after its outcome was looked for."""
_CLEANING: Final = 1 / 1000
"""The share of transactions with a marker that delete the old ones."""
_UNTRANSLATED: Final[dict[str, Any]] = {"schema_translate_map": {}}
"""The schema of the table is not translated by a session's options."""


def marker_table(metadata: MetaData, *, schema: str | None = None) -> Table:
    """Add the table of ``verify_commit="marker"`` to a ``MetaData``, for migrations to create it.

    A missing table is created at the first use, which needs the right to do that. A role that
    writes with markers needs SELECT, INSERT and DELETE on it. It has one row for each transaction
    of the last hour or so, by the database's clock; older rows are deleted along with new ones on
    PostgreSQL, MariaDB and MySQL. On other databases, delete them by a job of your own.

    Args:
        metadata: of your tables.
        schema: the schema; it has to be the one that is the default where it is used.

    Returns:
        the table, ``sessionfactory_commit``.
    """
    return Table(
        NAME,
        metadata,
        Column("id", String(32), primary_key=True),
        Column("made_at", BigInteger, nullable=False, index=True),
        Column("is_fence", Boolean, nullable=False),
        schema=schema,
    )


class MarkersMissingError(SessionFactoryError):
    """The table of markers was missing when a transaction was to be committed."""


def prepare(connection: Connection) -> OutcomeCheck | None:
    """Write a transaction's marker.

    Returns:
        ``None`` on SQLite, whose COMMIT cannot be lost.

    Raises:
        MarkersMissingError: there was no table, and now there is; repeat the transaction.
    """
    if not families.of_dialect(connection.dialect).has_server:
        return None
    if is_read_only(connection):  # it cannot write a marker either, but PostgreSQL has its status
        return postgres_status.prepare(connection) or NothingWritten()
    table = _table(connection.dialect.default_schema_name)
    try:
        return _write_marker(connection, table)
    except DBAPIError as error:
        if "missing table" not in classify(error).meanings:
            raise
        _create(connection, table, error)
        raise MarkersMissingError(
            f"The table {NAME} was missing, and is being created. The transaction was rolled back:"
            " repeat it"
        ) from error


def _write_marker(connection: Connection, table: Table) -> OutcomeCheck:
    # Every transaction writes one, even if it has no id yet: see ``postgres_status``.
    family = families.of_dialect(connection.dialect)
    now = _now(family)
    if now is not None and random.random() < _CLEANING:  # noqa: S311 - no secret
        old = delete(table).where(table.c.made_at < now - RETENTION)
        connection.execute(old, execution_options=_UNTRANSLATED)
    name = uuid4().hex
    row = insert(table).values(
        id=name, made_at=int(time.time()) if now is None else now, is_fence=False
    )
    if not family.is_postgresql:
        connection.execute(row, execution_options=_UNTRANSLATED)
        return Marker(table, name)
    written = row.returning(func.pg_backend_pid(), cast(func.pg_current_xact_id(), Text))
    pid, xid = connection.execute(written, execution_options=_UNTRANSLATED).one()
    return Marker(table, name, (pid, xid))


def _now(family: Family) -> ColumnElement[int] | None:
    """Return the database's own clock, in seconds: a client's may be hours off.

    ``None`` for a family without an expression here, whose markers are not deleted.
    """
    if family.speaks_postgresql:
        return cast(extract("epoch", func.clock_timestamp()), BigInteger)
    return func.unix_timestamp(type_=BigInteger) if family.speaks_mysql else None


@frozen
class Marker:
    """Looks for a transaction's marker, and prevents that it is committed later."""

    table: Table = field(repr=False)
    id: str
    process: tuple[int, str] | None = None
    """PostgreSQL's process, and the transaction's id there."""

    def find(self, engine: Engine) -> tuple[Outcome | None, str]:
        """Query the database once; see ``OutcomeCheck``."""
        now = _now(families.of_dialect(engine.dialect))
        fence = insert(self.table).values(
            id=self.id, made_at=int(time.time()) if now is None else now, is_fence=True
        )
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT", **_UNTRANSLATED)
            if self.process is not None:  # otherwise the fence waits for the lost connection's end
                postgres_status.end_backend(connection, *self.process)
            try:
                connection.execute(fence)
            except IntegrityError:
                found = select(self.table.c.is_fence).where(self.table.c.id == self.id)
                is_fence = connection.scalar(found)  # an earlier one of ours, whose reply was lost
                return ("rolled back" if is_fence else "committed"), ""
        return "rolled back", ""


def _create(connection: Connection, table: Table, error: DBAPIError) -> None:
    """Create the table of markers after an error without it; another client may be faster."""
    engine = connection.engine
    connection.invalidate(error)  # its transaction has failed, and the pool may allow only one
    try:
        with engine.begin() as other:
            table.create(other, checkfirst=True)
    except DBAPIError as refused:
        if kind_of(refused) is not None:
            return  # the next attempt creates it
        with engine.connect() as other:
            if inspect(other).has_table(table.name, schema=table.schema):
                return
        error.add_note(
            f"The table {NAME} is missing, and could not be created ({type(refused).__name__}):"
            " create it in a migration, with marker_table()"
        )
        raise error from refused


@lru_cache(maxsize=8)
def _table(schema: str | None) -> Table:
    # With its schema, because a transaction may have set another search_path.
    return marker_table(MetaData(), schema=schema)
