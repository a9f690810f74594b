"""pyodbc, for SQL Server and whatever else has an ODBC driver."""

from __future__ import annotations

import re
from typing import Final

from sessionfactory.drivers.driver import Code, ConnectTimeout, Driver


def codes(error: BaseException) -> list[Code]:
    """Return the SQLSTATE of an error, and the database's own number in brackets at its end."""
    sqlstates = [code for code in error.args[:1] if isinstance(code, str)]
    return [*sqlstates, *map(int, re.findall(r"\((\d+)\)", " ".join(map(str, error.args[1:]))))]


DRIVER: Final = Driver(
    name="pyodbc",
    install="pyodbc",
    code_table="odbc",
    codes=codes,
    connect_timeout=ConnectTimeout("timeout", least=1),
)
