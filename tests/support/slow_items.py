"""A table whose COMMIT is slow, and fails for negative numbers: by a deferred trigger."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory import AsyncSessionFactoryRegistry, SessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.ext.registries import AnyRegistry
    from sessionfactory.testing import PostgresServer

CREATED: Final = 201
NOT_FOUND: Final = 404
_SLOW: Final = """
CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep({seconds});
    IF NEW.id < 0 THEN RAISE EXCEPTION 'this COMMIT fails'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON ext_item DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slow_commit();
"""


class Base(DeclarativeBase):
    """The tables of these tests."""


class Item(Base):
    """A row."""

    __tablename__ = "ext_item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


@contextmanager
def slow_items(server: PostgresServer, seconds: float) -> Generator[None]:
    """Make the table on a server for the length of a block."""
    server.execute("CREATE TABLE ext_item (id int PRIMARY KEY)")
    try:
        server.execute(_SLOW.format(seconds=seconds))
        yield
    finally:
        server.execute("DROP TABLE ext_item; DROP FUNCTION IF EXISTS slow_commit()")


def maker(half: str, url: str, **settings: object) -> Callable[[], AnyRegistry]:
    """Return a function that makes a registry of one half, with one database."""
    databases = {"default": {"url": url, **settings}}
    if half == "async":
        return lambda: AsyncSessionFactoryRegistry.from_mapping(databases)
    return lambda: SessionFactoryRegistry.from_mapping(databases)
