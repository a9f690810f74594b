"""What may be asked of the transactions of a view, checked, and free of contradictions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping  # noqa: TC003 - attrs resolves the annotations
from typing import Any, Final, Literal, TypeAlias

import attrs

from sessionfactory.config.validation import settle
from sessionfactory.config.values import SHORTEST, as_table, at_least, checked
from sessionfactory.errors import Fault, SettingsError

IsolationLevel: TypeAlias = Literal[
    "SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"
]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")
_COVERED: Final = {
    **{name: name for name in ("statement_timeout", "lock_timeout")},
    **{f"{prefix}transaction_isolation": "isolation_level" for prefix in ("", "default_")},
    **{f"{prefix}transaction_read_only": "read_only" for prefix in ("", "default_")},
    **{f"{prefix}transaction_deferrable": "deferrable" for prefix in ("", "default_")},
}
"""Settings of PostgreSQL that an option of ours decides."""
_MAPPINGS: Final = ("schema_translate_map", "local")


def _items(given: object) -> object:
    """Return a mapping as something that can be hashed; anything else as it is."""
    table = as_table(given)
    return given if table is None else frozenset(table.items())


def _check_schemas(schemas: Mapping[object, object]) -> str | None:
    is_sound = all(isinstance(name, str | None) for item in schemas.items() for name in item)
    return None if is_sound else "expected names of schemas, or None"


def _check_local(settings: Mapping[object, object]) -> None:
    faults = [
        Fault("" if path is None else path, problem)
        for key, value in settings.items()
        for path, problem in _problems_with_local(key, value)
    ]
    if faults:
        raise SettingsError(faults)


def _problems_with_local(key: object, value: object) -> Iterable[tuple[str | None, str]]:
    if not isinstance(key, str) or _NAME.fullmatch(key) is None:
        yield None, "expected names of settings, such as app.tenant"
    elif key.lower() in _COVERED:
        yield key, f"use {_COVERED[key.lower()]}"
    elif not isinstance(value, str):
        yield key, "expected text"
    elif "\0" in value:
        yield key, "expected text without the character NUL"


@attrs.frozen(kw_only=True)
class TransactionOptions:
    """What ``with_options`` takes; see there.

    Raises:
        SettingsError: a value cannot be used. Whether two contradict each other shows in
            ``and_also``.
    """

    isolation_level: IsolationLevel | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    statement_timeout: float | None = attrs.field(default=None, metadata=at_least(SHORTEST))
    lock_timeout: float | None = attrs.field(default=None, metadata=at_least(SHORTEST))
    schema_translate_map: Mapping[str | None, str | None] | None = attrs.field(
        default=None, eq=_items, metadata=checked(_check_schemas)
    )
    local: Mapping[str, str] | None = attrs.field(
        default=None, eq=_items, repr=False, metadata=checked(_check_local)
    )

    def __attrs_post_init__(self) -> None:
        settle(self)

    def and_also(self, more: TransactionOptions) -> TransactionOptions:
        """Return these options and others.

        Raises:
            SettingsError: they contradict each other.
        """
        faults: list[Fault] = []
        both: dict[str, Any] = {}
        for field in attrs.fields(TransactionOptions):
            mine, theirs = getattr(self, field.name), getattr(more, field.name)
            if field.name in _MAPPINGS and mine is not None and theirs is not None:
                clash = [
                    f"{field.name}.{key}" for key in mine if theirs.get(key, mine[key]) != mine[key]
                ]
                both[field.name] = {**mine, **theirs}
            else:
                clash = [field.name] * (mine is not None and theirs is not None and mine != theirs)
                both[field.name] = mine if theirs is None else theirs
            faults += [Fault(name, _CLASH) for name in clash]
        made = TransactionOptions(**both)
        faults += made._contradictions()
        if faults:
            raise SettingsError(faults)
        return made

    @property
    def are_local(self) -> bool:
        """Whether something has to be said in each transaction, on PostgreSQL."""
        return bool(self.local or self.statement_timeout or self.lock_timeout)

    @property
    def of_the_view(self) -> TransactionOptions:
        """What an engine can be asked for, where each transaction is told the rest."""
        return attrs.evolve(self, statement_timeout=None, lock_timeout=None, local=None)

    def _contradictions(self) -> Iterable[Fault]:
        if self.isolation_level == "AUTOCOMMIT":
            for name in ("deferrable", "statement_timeout", "lock_timeout", "local"):
                if getattr(self, name):
                    yield Fault(name, "belongs to a transaction, and AUTOCOMMIT has none")
        elif self.deferrable and not (self.read_only and self.isolation_level == "SERIALIZABLE"):
            yield Fault("deferrable", 'needs isolation_level="SERIALIZABLE" and read_only=True')


_CLASH: Final = "the sessions that were given say something else already"
