"""Every private name of SQLAlchemy and of drivers that the package uses stands in one table.

A name counts as used where an attribute is read or set, looked up by ``getattr`` and the like, or
imported, and the package itself defines no such name.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

from psycopg import BaseConnection
from sqlalchemy import Connection, Engine
from sqlalchemy.pool import Pool

from sessionfactory.drivers.psycopg_pipeline import connection_base

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(__file__).parents[1] / "sessionfactory"
REASONS: Final = {
    "pool/fair.py is a Pool: what a subclass calls, overrides or spells out": (
        "_ConnDialect _ConnectionRecord _CreatorFnType _CreatorWRecFnType _DispatchCommon"
        " _EchoFlagType _ListenerFnType _ResetStyleArgType _close_connection _creator"
        " _orig_logging_name _pre_ping _recycle _reset_on_return _return_conn"
    ),
    "drivers/sqlalchemy_private.py, where each has a function with the reason": (
        "_ConnectionFairy _ConnectionRecord__pool _SessionCloseState _checkin_failed _close_state"
        " _connection_record _create_rule _ddl_if _deleted _dict _exec_once_mutex _invoke_creator"
        " _is_autocommit_isolation _new _on_connect_isolation_level _proxied"
        " _trans_context_manager"
    ),
    "drivers/psycopg_pipeline: psycopg has no public place for it, see RELIED_ON": (
        "_check_connection_ok _check_results _cursor_base _execute_send _get_prepared"
        " _get_tx_start_command _num_transactions _pipeline _pipeline_base _send_prepare"
        " _send_query_prepared _tpc"
    ),
    "drivers/known: a socket, a process number or a C object that the driver does not show": (
        "_backend_key_data _pgconn _read_timeout _sock _usock"
    ),
    "drivers/transport: the transport of a loop that is gone, and the TLS below it": (
        "_call_connection_lost _ssl_protocol _transport _writer"
    ),
    "the standard library's, documented or the only way": (
        "_context _current_frames _exit _get_running_loop _is_protocol"
    ),
}
"""Private names of others, by the reason. A new one needs a reason, and a test that notices."""
OVERRIDDEN: Final[dict[type, str]] = {
    Pool: "_do_get _do_return_conn",
    Connection: "_autobegin",
    Engine: "_connection_cls _option_cls",
    BaseConnection: "_start_query _commit_gen _rollback_gen _tpc_begin_gen _check_intrans_gen",
}
"""Names of others that the package defines as well, which the search for uses cannot see."""
_LOOK_UPS: Final = frozenset({"getattr", "hasattr", "setattr", "attrgetter", "delattr"})


def is_private(name: str) -> bool:
    """Return whether a name is private: one underscore in front, or a class's own."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def names_defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module defines, attributes of ``self`` and slots included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
                yield node.attr
        elif isinstance(node, ast.Assign):
            targets = [one.id for one in node.targets if isinstance(one, ast.Name)]
            if targets == ["__slots__"]:
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def names_used(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module uses, of its own and of others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            foreign = not (node.module or "").startswith("sessionfactory")
            yield from (part for part in (node.module or "").split(".") if foreign)
            yield from (alias.name for alias in node.names if foreign)
        elif isinstance(node, ast.Call):
            function = node.func.id if isinstance(node.func, ast.Name) else ""
            if function in _LOOK_UPS:
                for part in node.args:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield from part.value.split(".")


def trees() -> dict[str, ast.AST]:
    """Return the package's modules, by path."""
    return {
        file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def foreign_names() -> dict[str, set[str]]:
    """Return where each private name of others is used."""
    parsed = trees()
    ours = {name for tree in parsed.values() for name in names_defined(tree)}
    found: dict[str, set[str]] = {}
    for path, tree in parsed.items():
        for name in names_used(tree):
            if is_private(name) and name not in ours:
                found.setdefault(name, set()).add(path)
    return found


def test_the_table_is_complete() -> None:
    """Each private name of others has its reason here, and no reason outlives its name."""
    found = foreign_names()
    listed = [name for names in REASONS.values() for name in names.split()]
    assert len(listed) == len({*listed})
    assert {*found} - {*listed} == set()
    assert {*listed} - {*found} == set()


def test_names_that_are_overridden() -> None:
    """A private method of others that the package defines as its own is still one of theirs."""
    defined = {name for tree in trees().values() for name in names_defined(tree)}
    for owner, names in OVERRIDDEN.items():
        for name in names.split():
            assert name in defined
            assert hasattr(owner, name), f"{owner.__name__}.{name}"


def test_psycopg_s_names_are_looked_up_before_use() -> None:
    """What the pipeline uses of psycopg's classes is in ``RELIED_ON``."""
    used = {
        name
        for name, paths in foreign_names().items()
        if any(path.startswith("drivers/psycopg_pipeline/") for path in paths)
    }
    relied_on = {name for names in connection_base.RELIED_ON.values() for name in names}
    modules = {"_cursor_base", "_pipeline_base", "_preparing"}
    of_instances = {"_pipeline", "_tpc", "_num_transactions"}  # set by psycopg's ``__init__``
    assert used - relied_on - modules - of_instances == set()
