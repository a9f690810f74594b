"""python-oracledb, for both halves."""

from __future__ import annotations

from typing import Final

from sessionfactory.drivers.driver import Code, ConnectTimeout, Driver


def codes(error: BaseException) -> list[Code]:
    """Return the full code of an error, such as ORA-00060 or DPY-4011."""
    message: object = error.args[0] if error.args else None
    code: object = getattr(message, "full_code", None)
    return [code] if isinstance(code, str) and code else []


DRIVER: Final = Driver(
    name="oracledb",
    install="oracledb",
    code_table="oracle",
    codes=codes,
    connect_timeout=ConnectTimeout("tcp_connect_timeout", is_whole=False),
)
