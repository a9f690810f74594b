"""Names of a package that are loaded on first use (PEP 562)."""

from __future__ import annotations

from importlib import import_module


def load(package: str, homes: dict[str, str], name: str) -> object:
    """Return a public name of a package from the module that has it.

    Args:
        package: the package's full name.
        homes: for each name, the module of the package where it is at home.
        name: the name that was asked for.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(f"{package}.{homes[name]}"), name)
