"""Whether a transaction has happened, by a row that it wrote itself.

The row's key is unique, and so is the answer: who asks writes the same row, in a transaction of his
own. If that is refused, the first one has happened. If it succeeds, the first one has not, and its
COMMIT, even if it is still on its way, can no longer succeed.
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
    func,
    insert,
    inspect,
    literal,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from sessionfactory.drivers import families
from sessionfactory.drivers.error_codes import classify, kind_of
from sessionfactory.engine.read_only import is_read_only
from sessionfactory.errors import SessionFactoryError
from sessionfactory.transactions.verification.postgres_status import end_backend
from sessionfactory.transactions.verification.question import NothingWritten

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from sessionfactory.transactions.verification.question import Outcome, Question

NAME: Final = "sessionfactory_commit"
KEPT: Final = 3600.0
"""Seconds after which a marker is deleted: long after anybody asks for it."""
_CLEANING: Final = 1 / 1000
"""How many of the transactions with a marker delete the old ones."""
_AS_IT_IS: Final[dict[str, Any]] = {"schema_translate_map": {}}
"""The schema is the one that is written, whatever a session's options make of others."""


def marker_table(metadata: MetaData, *, schema: str | None = None) -> Table:
    """Add the table of ``verify_commit="marker"`` to a ``MetaData``, for migrations to create it.

    Without one, it is created at the first use, which needs the right to do that. A role that
    writes with markers needs SELECT, INSERT and DELETE on it. It has one row for each transaction
    of the last hour or so; older ones are deleted along with new ones.

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
    """The table of markers was not there when a transaction was to be committed."""


def prepare(connection: Connection) -> Question | None:
    """Write a transaction's marker.

    Returns:
        ``None`` on SQLite, whose COMMIT cannot be lost.

    Raises:
        MarkersMissingError: there was no table, and now there is; do the transaction again.
    """
    if not families.of_dialect(connection.dialect).has_server:
        return None
    if is_read_only(connection):
        return NothingWritten()
    table = _table(connection.dialect.default_schema_name)
    try:
        if random.random() < _CLEANING:  # noqa: S311 - no secret
            old = table.c.made_at < time.time() - KEPT
            connection.execute(delete(table).where(old), execution_options=_AS_IT_IS)
        return _mark(connection, table)
    except DBAPIError as error:
        if "missing table" not in classify(error).meanings:
            raise
        _create(connection, table, error)
        raise MarkersMissingError(
            f"The table {NAME} was missing, and is being created. The transaction was rolled back:"
            " do it again"
        ) from error


def _mark(connection: Connection, table: Table) -> Question:
    name = uuid4().hex
    row = {"id": name, "made_at": int(time.time()), "is_fence": False}
    if not families.of_dialect(connection.dialect).is_postgresql:
        connection.execute(insert(table).values(row), execution_options=_AS_IT_IS)
        return Marker(table, name)
    # None is written by a transaction that has written nothing else.
    writes = func.pg_current_xact_id_if_assigned().is_not(None)
    values = [literal(value, table.c[column].type) for column, value in row.items()]
    statement = insert(table).from_select(list(row), select(*values).where(writes))
    told = statement.returning(func.pg_backend_pid(), cast(func.pg_current_xact_id(), Text))
    found = connection.execute(told, execution_options=_AS_IT_IS).one_or_none()
    return NothingWritten() if found is None else Marker(table, name, (found[0], found[1]))


@frozen
class Marker:
    """Asks whether a transaction's marker is there, and sees to it that it does not come later."""

    table: Table = field(repr=False)
    id: str
    process: tuple[int, str] | None = None
    """PostgreSQL's process, and the transaction's id there."""

    def ask(self, engine: Engine) -> tuple[Outcome | None, str]:
        """Ask once; see ``Question``."""
        fence = insert(self.table).values(id=self.id, made_at=int(time.time()), is_fence=True)
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT", **_AS_IT_IS)
            if self.process is not None:  # else the fence waits until the database notices itself
                end_backend(connection, *self.process)
            try:
                connection.execute(fence)
            except IntegrityError:
                found = select(self.table.c.is_fence).where(self.table.c.id == self.id)
                is_fence = connection.scalar(found)  # ours, whose own answer was lost
                return ("rolled back" if is_fence else "committed"), ""
        return "rolled back", ""


def _create(connection: Connection, table: Table, error: DBAPIError) -> None:
    """Create the table of markers, for which there was an error; somebody else may be faster."""
    engine = connection.engine
    connection.invalidate(error)  # its transaction has failed, and its place may be the only one
    try:
        with engine.begin() as other:
            table.create(other, checkfirst=True)
    except DBAPIError as refused:
        if kind_of(refused) is not None:
            return  # the next attempt finds out
        with engine.connect() as other:
            if inspect(other).has_table(table.name, schema=table.schema):
                return
        error.add_note(
            f"The table {NAME} is missing, and could not be created ({type(refused).__name__}):"
            " have a migration create it, by marker_table()"
        )
        raise error from refused


@lru_cache(maxsize=8)
def _table(schema: str | None) -> Table:
    # By its schema, for a transaction may have set another search_path.
    return marker_table(MetaData(), schema=schema)
