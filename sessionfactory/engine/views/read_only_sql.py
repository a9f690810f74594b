"""Recognises SQL that ends a read-only transaction, or turns it into another.

The server holds the rest. PostgreSQL lets ``SET TRANSACTION READ WRITE`` do that before the first
query, MariaDB a later ``START TRANSACTION READ WRITE``, and in AUTOCOMMIT it is a setting of the
connection that makes statements read-only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sessionfactory.drivers.families import Family

_ENDS: Final = re.compile(
    r"(?:^|;)\s*(?:"
    r"SET\b[^;]*\bREAD\s+WRITE\b|(?:SET|RESET)\b[^;]*read_only|SET\b[^;]*\bU&\"|"
    r"RESET\s+ALL\b|DISCARD\b|"
    r"BEGIN\b|START\b|COMMIT\b|END\b|ABORT\b|PREPARE\s+TRANSACTION\b|"
    r"ROLLBACK\b(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
    r")",
    re.IGNORECASE,
)
_OF_MYSQL: Final = re.compile(
    r"(?:^|;)\s*(?:EXECUTE\s+IMMEDIATE\b|PREPARE\b[^;]*\bFROM\b)", re.IGNORECASE
)
"""SQL that the server makes of a text, which may be any statement."""
_SETS: Final = re.compile(
    r"\bset_config\s*\(\s*'[^']*read_only|^\s*DO\b.*(?:read_only|\bREAD\s+WRITE\b)",
    re.IGNORECASE | re.DOTALL,
)
"""PostgreSQL's ways of setting in other words."""

_PRAGMA: Final = re.compile(r"\bPRAGMA\b.*\bquery_only\b.*[=(]", re.IGNORECASE | re.DOTALL)
"""SQLite's switch, quoted or not, of any schema, and run by EXPLAIN as well."""

_COMMENT: Final = re.compile(r"/\*|\*/")
_SKIPPED: Final = re.compile(
    r"\bE'(?:[^'\\]|\\.|'')*'|'[^']*'|\$(\w*)\$.*?\$\1\$|\"[^\"]*\"|--[^\n]*|/\*",
    re.IGNORECASE | re.DOTALL,
)
_SKIPPED_BY_MYSQL: Final = re.compile(
    r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|--(?=\s|$)[^\n]*|#[^\n]*|/\*M?!\d*|/\*.*?\*/|\*/",
    re.DOTALL,
)


def ends_read_only(statement: str, family: Family) -> bool:
    """Return whether the text of a statement, or of several, would end a read-only transaction."""
    if family.speaks_mysql:
        plain = _SKIPPED_BY_MYSQL.sub(_of_mysql, statement)
        return bool(_ENDS.search(plain) or _OF_MYSQL.search(plain))
    if family.speaks_postgresql and _SETS.search(statement):
        return True
    if family.is_sqlite and _PRAGMA.search(statement):
        return True
    return bool(_ENDS.search(_without_comments(statement)))


def _of_mysql(match: re.Match[str]) -> str:
    """Return what stands for a string, a name or a comment of MySQL, whose ``/*!`` are run."""
    found = match[0]
    if found.startswith(("/*!", "/*M!")):
        return " ; "
    if found.startswith(("/*", "*/", "--", "#")):
        return " "
    return found if "read_only" in found.lower() and ";" not in found else "''"


def _without_comments(statement: str) -> str:
    """Return SQL without comments, which are nested in PostgreSQL, and without strings."""
    parts: list[str] = []
    start = 0
    while (found := _SKIPPED.search(statement, start)) is not None:
        is_name = found[0].startswith('"') and ";" not in found[0]
        parts += statement[start : found.start()], found[0] if is_name else " "
        start = found.end()
        if found[0] == "/*":
            start = _end_of_comment(statement, start)
    return "".join([*parts, statement[start:]])


def _end_of_comment(statement: str, start: int) -> int:
    depth = 1
    for found in _COMMENT.finditer(statement, start):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return len(statement)
