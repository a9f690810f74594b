"""SQLCipher, encrypted SQLite, through sqlcipher3: a copy of sqlite3 on another library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from sessionfactory.drivers.known import sqlite3

if TYPE_CHECKING:
    from sqlalchemy import URL

_PRAGMAS: Final = frozenset({"kdf_iter", "cipher", "cipher_page_size", "cipher_use_hmac"})


def query_keys(url: URL, dbapi: Any) -> frozenset[str]:
    """Return sqlite3's keys, and the settings of the encryption."""
    return sqlite3.query_keys(url, dbapi) | _PRAGMAS


DRIVER: Final = evolve(
    sqlite3.DRIVER,
    name="pysqlcipher",
    install="sqlcipher3-wheels",
    query_keys=query_keys,
    encrypts_files=True,
)
