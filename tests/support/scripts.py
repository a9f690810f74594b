"""Scripts of operations on a connection, for both halves, and what a user sees of each."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from attrs import define, field
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.util.concurrency import await_only

from sessionfactory import CommitRolledBackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine, NestedTransaction, TwoPhaseTransaction

TABLES: Final = (
    "CREATE TABLE item (id int PRIMARY KEY, note text)",
    "CREATE TABLE part (item int REFERENCES item DEFERRABLE INITIALLY DEFERRED)",
)
PREPARED: Final = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
Outcome: TypeAlias = tuple[str, object]


@define
class Desk:
    """The state of a script: a connection, and what lasts from one operation to the next."""

    engine: Engine
    xid: str
    connection: Connection = field(init=False)
    savepoints: list[NestedTransaction] = field(factory=list["NestedTransaction"])
    two_phase: TwoPhaseTransaction | None = None

    def __attrs_post_init__(self) -> None:
        self.connection = self.engine.connect()

    @property
    def driver(self) -> Any:
        """The driver's connection."""
        return self.connection.connection.driver_connection

    def all(self, statement: str, **parameters: object) -> list[tuple[object, ...]]:
        """Execute a statement, and return its rows."""
        result = self.connection.execute(text(statement), parameters)
        return [tuple(row) for row in result.all()] if result.returns_rows else []


def wait(outcome: Any) -> Any:
    """Await what the async half gives."""
    return await_only(outcome) if inspect.isawaitable(outcome) else outcome


def insert(desk: Desk) -> object:
    """Insert the next row."""
    return desk.all("INSERT INTO item SELECT coalesce(max(id), 0) + 1, :n FROM item", n="a")


def insert_many(desk: Desk) -> object:
    """Insert two rows by executemany."""
    rows = [{"id": id_, "note": "many"} for id_ in (100, 101)]
    return desk.connection.execute(text("INSERT INTO item VALUES (:id, :note)"), rows).rowcount


def insert_several(desk: Desk) -> object:
    """Execute two statements in one text, which the extended protocol refuses."""
    desk.connection.exec_driver_sql("INSERT INTO item VALUES (200); INSERT INTO item VALUES (201)")
    return None


def copy_in(desk: Desk) -> object:
    """COPY rows in, by the driver's own method."""
    if not desk.connection.in_transaction():
        desk.connection.begin()  # so that SQLAlchemy knows that there is something to end
    cursor = desk.driver.cursor()

    async def copy() -> None:
        async with cursor.copy("COPY item FROM STDIN") as copying:
            await copying.write("300\tcopied\n")

    if desk.engine.dialect.is_async:
        await_only(copy())
    else:
        with cursor.copy("COPY item FROM STDIN") as copying:
            copying.write("300\tcopied\n")
    return cursor.rowcount


def stream(desk: Desk) -> object:
    """Read by a server-side cursor."""
    options = {"stream_results": True, "max_row_buffer": 1}
    result = desk.connection.execute(
        text("SELECT id FROM item ORDER BY id"), execution_options=options
    )
    return [tuple(row) for row in result]


def set_isolation(level: str) -> Callable[[Desk], object]:
    """Return what sets the isolation level of the next transactions."""

    def set_level(desk: Desk) -> object:
        desk.connection.execution_options(isolation_level=level)
        return None

    return set_level


def set_mode(**options: bool) -> Callable[[Desk], object]:
    """Return what sets how the next transactions begin."""

    def set_options(desk: Desk) -> object:
        desk.connection.execution_options(**options)
        return None

    return set_options


def take_another(desk: Desk) -> object:
    """Close the connection, and check out another."""
    closed = check_in(desk)
    desk.connection, desk.savepoints, desk.two_phase = desk.engine.connect(), [], None
    return closed


def check_in(desk: Desk) -> object:
    """Close the connection, and return the name of the error that this raised, if any."""
    try:
        desk.connection.close()
    except DBAPIError as error:
        return type(error).__name__
    return None


def savepoint(desk: Desk) -> object:
    """Set a savepoint."""
    desk.savepoints.append(desk.connection.begin_nested())
    return None


def end_savepoint(desk: Desk) -> object:
    """Release the last savepoint."""
    if desk.savepoints:
        desk.savepoints.pop().commit()
    return None


def undo_savepoint(desk: Desk) -> object:
    """Roll back to the last savepoint."""
    if desk.savepoints:
        desk.savepoints.pop().rollback()
    return None


def begin_two_phase(desk: Desk) -> object:
    """Begin a transaction in two phases."""
    desk.two_phase = desk.connection.begin_twophase(desk.xid)
    return None


def prepare(desk: Desk) -> object:
    """End the first phase."""
    if desk.two_phase is not None:
        desk.two_phase.prepare()
    return None


def commit(desk: Desk) -> object:
    """Commit, in either kind of transaction."""
    two_phase, desk.two_phase, desk.savepoints = desk.two_phase, None, []
    (two_phase or desk.connection).commit()
    return None


def rollback(desk: Desk) -> object:
    """Roll back, in either kind of transaction."""
    two_phase, desk.two_phase, desk.savepoints = desk.two_phase, None, []
    (two_phase or desk.connection).rollback()
    return None


def drivers_transaction(desk: Desk) -> object:
    """Run a transaction block of the driver's own, on a connection that has none."""
    if desk.connection.in_transaction():
        return None

    async def run() -> None:
        async with desk.driver.transaction():
            await desk.driver.execute("INSERT INTO item VALUES (400)")

    if desk.engine.dialect.is_async:
        await_only(run())
    else:
        with desk.driver.transaction():
            desk.driver.execute("INSERT INTO item VALUES (400)")
    return None


OPERATIONS: Final[dict[str, Callable[[Desk], object]]] = {
    "select": lambda desk: desk.all("SELECT id, note FROM item ORDER BY id"),
    "select by id": lambda desk: desk.all("SELECT note FROM item WHERE id > :id", id=1),
    "select seven times": lambda desk: [desk.all("SELECT :n + 1", n=n) for n in range(7)],
    "select nothing": lambda desk: desk.connection.exec_driver_sql("").returns_rows,
    "insert": insert,
    "insert many": insert_many,
    "insert several": insert_several,
    "insert returning": lambda desk: desk.all("INSERT INTO item VALUES (:i) RETURNING id", i=50),
    "insert for later": lambda desk: desk.all("INSERT INTO part VALUES (:id)", id=-1),
    "copy in": copy_in,
    "stream": stream,
    "misspell": lambda desk: desk.all("SELEKT 1"),
    "misname": lambda desk: desk.all("SELECT no_column FROM item"),
    "divide": lambda desk: desk.all("SELECT 1 / :n", n=0),
    "take too long": lambda desk: (
        desk.all("SELECT set_config('statement_timeout', '20ms', true)")
        and desk.all("SELECT pg_sleep(:s)", s=0.1)
    ),
    "make a table": lambda desk: desk.all("CREATE TABLE made (a int)"),
    "use the table": lambda desk: desk.all("SELECT a FROM made"),
    "drop the table": lambda desk: desk.all("DROP TABLE made"),
    "show isolation": lambda desk: desk.all("SHOW transaction_isolation"),
    "show mode": lambda desk: desk.all("SHOW transaction_read_only"),
    "set isolation": lambda desk: desk.all("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    "set for the session": lambda desk: desk.all("SET application_name = 'script'"),
    "show the name": lambda desk: desk.all("SHOW application_name"),
    "ask for the level": lambda desk: desk.connection.get_isolation_level(),
    "serializable": set_isolation("SERIALIZABLE"),
    "autocommit": set_isolation("AUTOCOMMIT"),
    "read committed": set_isolation("READ COMMITTED"),
    "read-only": set_mode(postgresql_readonly=True),
    "read-write": set_mode(postgresql_readonly=False),
    "deferrable": set_mode(postgresql_deferrable=True),
    "savepoint": savepoint,
    "release": end_savepoint,
    "undo": undo_savepoint,
    "begin in two phases": begin_two_phase,
    "prepare": prepare,
    "driver's transaction": drivers_transaction,
    "commit": commit,
    "rollback": rollback,
    "take another": take_another,
}


def run(engine: Engine, script: list[str]) -> list[Outcome]:
    """Run a script, and return what came of each of its operations, and what it left behind."""
    desk = Desk(engine, f"begun on {engine.url.database}")
    outcomes: list[Outcome] = []
    try:
        outcomes += [(name, outcome(desk, OPERATIONS[name])) for name in script]
    finally:
        outcomes.append(("close", check_in(desk)))
    with engine.connect() as connection:  # usable, and as it was
        rows = connection.exec_driver_sql("SELECT id, note FROM item ORDER BY id").all()
        outcomes.append(("rows", [tuple(row) for row in rows]))
        prepared = connection.exec_driver_sql(PREPARED).all()
        outcomes.append(("prepared transactions", len(prepared)))
    return outcomes


def outcome(desk: Desk, operation: Callable[[Desk], object]) -> object:
    """Return the result of an operation, or its error; and how the connection is then."""
    found: object
    try:
        found = operation(desk)
    except DBAPIError as error:
        found = (
            type(error).__name__,
            getattr(error.orig, "sqlstate", None),
            str(error.orig).replace(desk.xid, "xid"),
        )
    except psycopg.Error as error:  # of what is done beside SQLAlchemy
        found = (type(error).__name__, error.sqlstate, str(error))
    except (CommitRolledBackError, SQLAlchemyError) as error:
        found = (type(error).__name__, str(error))
    if desk.connection.invalidated or desk.connection.closed:
        return found, "invalidated"
    return found, desk.driver.info.transaction_status.name, desk.driver.autocommit


def start_over(engine: Engine) -> None:
    """Have the tables as they were at first."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for name in connection.exec_driver_sql(PREPARED).scalars().all():
            connection.exec_driver_sql(f"ROLLBACK PREPARED '{name}'")
        connection.exec_driver_sql("DROP TABLE IF EXISTS made")
        connection.exec_driver_sql("TRUNCATE item, part")
        connection.exec_driver_sql("INSERT INTO item VALUES (1, 'one'), (2, 'two')")
        connection.exec_driver_sql("SET application_name = 'none'")
