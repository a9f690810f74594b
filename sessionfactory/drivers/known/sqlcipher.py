"""SQLCipher, encrypted SQLite, through sqlcipher3: a copy of sqlite3 on another library."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from sessionfactory.drivers.known import sqlite3

DRIVER: Final = evolve(sqlite3.DRIVER, name="pysqlcipher", install="sqlcipher3-binary")
