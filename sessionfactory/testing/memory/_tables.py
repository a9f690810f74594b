"""The tables of a fake, with the foreign keys that SQLAlchemy would leave out on SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionfactory.drivers.sqlalchemy_private import is_left_to_alter

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table
    from sqlalchemy.sql.compiler import DDLCompiler


def create_all(metadata: MetaData, bind: Engine | Connection) -> None:
    """Make the tables, their foreign keys included; the metadata is not changed.

    Where tables point at each other, ``create_all`` on PostgreSQL or MariaDB adds foreign keys by
    ALTER, and marks them, so that no CREATE TABLE has them from then on. SQLite has no other way:
    if the same process has made the tables on a server before, a fake would accept rows that point
    nowhere.
    """
    dialect = bind.dialect
    if not dialect.supports_alter:
        dialect.ddl_compiler = _with_all_keys(dialect.ddl_compiler)
    metadata.create_all(bind)


def _with_all_keys(compiler: type[DDLCompiler]) -> type[DDLCompiler]:
    """Return a compiler whose CREATE TABLE has the foreign keys that were left to ALTER, too."""

    class WithAllKeys(compiler):  # type: ignore[valid-type, misc]  # mypy wants it by name
        def create_table_constraints(self, table: Table, *args: Any, **keywords: Any) -> str:
            made: str = super().create_table_constraints(table, *args, **keywords)
            left = [key for key in table.foreign_key_constraints if is_left_to_alter(key)]
            # One that cannot be had here, into another file, is ``None``.
            return ", \n\t".join(filter(None, [made, *map(self.process, left)]))

    return WithAllKeys
