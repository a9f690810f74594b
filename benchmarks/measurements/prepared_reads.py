"""Reads that the database has to plan: what it is worth that psycopg keeps its prepared statements.

psycopg forgets them at a ROLLBACK, by which a session that is closed without a commit ends.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import create_engine, text

from benchmarks.setups.databases import disposing, factory_on, plain_sessions
from benchmarks.setups.plain_and_ours import OURS, PLAIN
from benchmarks.setups.scopes import scope
from benchmarks.setups.servers import socket_only
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest, timed
from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from benchmarks.tool.figures import Group
    from sessionfactory import SessionFactory

READER: Final = "reader"
PIPELINED: Final = "reader, pipeline=True"
_SHOP: Final = """
    CREATE TABLE country (id int PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE customer (
        id int PRIMARY KEY, name text NOT NULL, country_id int NOT NULL REFERENCES country
    );
    CREATE TABLE supplier (
        id int PRIMARY KEY, name text NOT NULL, country_id int NOT NULL REFERENCES country
    );
    CREATE TABLE product (
        id int PRIMARY KEY, name text NOT NULL, supplier_id int NOT NULL REFERENCES supplier
    );
    CREATE TABLE purchase (
        id int PRIMARY KEY, made date NOT NULL, customer_id int NOT NULL REFERENCES customer
    );
    CREATE TABLE item (
        id int PRIMARY KEY, quantity int NOT NULL,
        purchase_id int NOT NULL REFERENCES purchase, product_id int NOT NULL REFERENCES product
    );
    CREATE INDEX ON customer (country_id);
    CREATE INDEX ON supplier (country_id);
    CREATE INDEX ON product (supplier_id);
    CREATE INDEX ON purchase (customer_id);
    CREATE INDEX ON item (purchase_id);
    CREATE INDEX ON item (product_id);
    INSERT INTO country SELECT n, 'country ' || n FROM generate_series(0, 49) n;
    INSERT INTO customer SELECT n, 'customer ' || n, n % 50 FROM generate_series(0, 999) n;
    INSERT INTO supplier SELECT n, 'supplier ' || n, n % 50 FROM generate_series(0, 99) n;
    INSERT INTO product SELECT n, 'product ' || n, n % 100 FROM generate_series(0, 999) n;
    INSERT INTO purchase
        SELECT n, date '2026-01-01' + n % 300, n % 1000 FROM generate_series(0, 4999) n;
    INSERT INTO item SELECT n, n % 9, n % 5000, n % 1000 FROM generate_series(0, 14999) n;
    ANALYZE country, customer, supplier, product, purchase, item;
"""
_PURCHASE: Final = """
    SELECT purchase.made, customer.name, country.name, item.quantity, product.name, supplier.name
    FROM purchase
    JOIN customer ON customer.id = purchase.customer_id
    JOIN country ON country.id = customer.country_id
    JOIN item ON item.purchase_id = purchase.id
    JOIN product ON product.id = item.product_id
    JOIN supplier ON supplier.id = product.supplier_id
    WHERE purchase.id = :id
"""
_HEAVY: Final = "the same, from suppliers in the customer's country"
_QUERIES: Final = {
    "one purchase with all that belongs to it": _PURCHASE,
    # A circle of joins has many more orders to choose from than a chain.
    _HEAVY: (f"{_PURCHASE} AND supplier.country_id = country.id ORDER BY item.id"),
}
_ID: Final = {"id": 50}
_LOOKS: Final = 25
_NOTES: Final = (
    "One client on a Unix socket: open a session, join six tables of a shop, close it.",
    "sessionmaker's and the factory's own sessions end in ROLLBACK, the reader's in COMMIT.",
    "A round takes the fastest of several samples.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of each group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        scopes: how many make a sample.
    """

    rounds: int
    passes: int = 3
    scopes: int


FULL = Plan(rounds=21, scopes=40)
QUICK = Plan(rounds=3, passes=1, scopes=10)


def measure(plan: Plan) -> Table:
    """Measure sessions that are closed without a commit."""
    with (
        socket_only() as url,
        disposing(create_engine(url)) as engine,
        factory_on(url) as ours,
        SqlAlchemySessionFactory(DatabaseSettings(url, pipeline=True)) as pipelined,
    ):
        with engine.begin() as connection:
            connection.execute(text(_SHOP))
        rivals: dict[str, SessionFactory] = {
            PLAIN: plain_sessions(engine),
            OURS: ours,
            READER: ours.reader,
            PIPELINED: pipelined.reader,
        }
        groups = tuple(_group(plan, title, rivals) for title in _QUERIES)
        notes = (*_NOTES, *(_planning(engine, title) for title in _QUERIES))
    return Table(
        name="prepared_reads",
        title="reads that have to be planned",
        notes=notes,
        groups=groups,
    )


def _group(plan: Plan, title: str, rivals: Mapping[str, SessionFactory]) -> Group:
    query = text(_QUERIES[title])

    def read(session: Session) -> None:
        assert session.execute(query, _ID).all()  # it is not an empty join

    candidates = {
        name: timed(scope(sessions, read), plan.scopes) for name, sessions in rivals.items()
    }
    taken = fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes)
    question = Question(
        title=title,
        unit=Unit("scopes a second", better="more"),
        targets={name: Target(">=", 2) for name in (READER, PIPELINED) if title == _HEAVY},
        also=[(READER, OURS)],
    )
    rates = {name: [1 / seconds for seconds in samples] for name, samples in taken.items()}
    return compare(question, rates)


def _planning(engine: Engine, title: str) -> str:
    """Say how long the server plans, and how long it works, as a table's note."""
    explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {_QUERIES[title]}")
    with engine.connect() as connection:
        told = [connection.execute(explain, _ID).scalar_one()[0] for _ in range(_LOOKS)]
    planning, execution = (
        median(float(each[f"{what} Time"]) for each in told) for what in ("Planning", "Execution")
    )
    return f"EXPLAIN, {title}: {planning:.2f} ms to plan, {execution:.2f} ms to execute."
