"""Names of a package that are loaded on first use (PEP 562), and where they come from."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import get_type_hints


def load(package: str, homes: dict[str, str], name: str) -> object:
    """Return a public name of a package from the module that defines it.

    Args:
        package: the package's full name.
        homes: for each name, the module of the package that defines it.
        name: the name that is loaded.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    # Modules make no garbage while they load, and the collector would look through all of
    # SQLAlchemy again and again: a tenth of the time that the import takes.
    collects = gc.isenabled()
    gc.disable()
    try:
        module = import_module(f"{package}.{homes[name]}")
    finally:
        if collects:
            gc.enable()
    return getattr(module, name)


def publish(*classes: type[object], package: str = "sessionfactory") -> None:
    """Make classes show the package that exports them, in tracebacks, pickles and documentation.

    Their annotations are resolved before, because ``typing.get_type_hints`` looks for names in the
    module that a class shows.
    """
    for cls in classes:
        own = vars(cls).get("__annotations__", {})
        try:
            hints = get_type_hints(cls, include_extras=True) if own else {}
        except NameError:  # a name that only type checkers import
            pass
        else:
            cls.__annotations__ = {name: hints[name] for name in own}
        cls.__module__ = package
