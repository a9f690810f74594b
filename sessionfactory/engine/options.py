"""What may be asked of the transactions of a view, checked, and free of contradictions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import attrs

from sessionfactory.config.validation import as_table
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
_SHORTEST: Final = 0.001  # milliseconds are what servers count
_LONGEST: Final = 2_147_483  # in 32 bits
_LEVELS: Final = get_args(IsolationLevel)
_MAPPINGS: Final = ("schema_translate_map", "local")


def _items(given: object) -> object:
    """Return a mapping as something that can be hashed; anything else as it is."""
    table = as_table(given)
    return given if table is None else frozenset(table.items())


def _copied(given: Any) -> Any:
    """Return a mapping of our own; anything else as it is, to be found fault with."""
    table = as_table(given)
    return given if table is None else dict(table)


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
    statement_timeout: float | None = None
    lock_timeout: float | None = None
    schema_translate_map: Mapping[str | None, str | None] | None = attrs.field(
        default=None, converter=_copied, eq=_items
    )
    local: Mapping[str, str] | None = attrs.field(
        default=None, converter=_copied, eq=_items, repr=False
    )

    def __attrs_post_init__(self) -> None:
        faults = [*self._unusable()]
        if faults:
            raise SettingsError(faults)

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

    def _unusable(self) -> Iterable[Fault]:
        if self.isolation_level not in (None, *_LEVELS):
            yield Fault("isolation_level", f"expected one of {', '.join(_LEVELS)}")
        for name in ("read_only", "deferrable"):
            if not isinstance(getattr(self, name), bool | None):
                yield Fault(name, "expected True, False or None")
        for name in ("statement_timeout", "lock_timeout"):
            yield from _unusable_limit(name, getattr(self, name))
        for name in _MAPPINGS:
            if getattr(self, name) is not None and as_table(getattr(self, name)) is None:
                yield Fault(name, "expected a mapping")
        schemas = as_table(self.schema_translate_map) or {}
        if not all(isinstance(name, str | None) for item in schemas.items() for name in item):
            yield Fault("schema_translate_map", "expected names of schemas, or None")
        for key, value in (as_table(self.local) or {}).items():
            yield from _unusable_local(key, value)

    def _contradictions(self) -> Iterable[Fault]:
        if self.isolation_level == "AUTOCOMMIT":
            for name in ("deferrable", "statement_timeout", "lock_timeout", "local"):
                if getattr(self, name):
                    yield Fault(name, "belongs to a transaction, and AUTOCOMMIT has none")
        elif self.deferrable and not (self.read_only and self.isolation_level == "SERIALIZABLE"):
            yield Fault("deferrable", 'needs isolation_level="SERIALIZABLE" and read_only=True')


_CLASH: Final = "the sessions that were given say something else already"


def _unusable_limit(name: str, value: object) -> Iterable[Fault]:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield Fault(name, "expected a number of seconds")
    elif value is not None and not _SHORTEST <= value <= _LONGEST:
        yield Fault(name, f"expected {_SHORTEST} to {_LONGEST} seconds, got {value:g}")


def _unusable_local(key: object, value: object) -> Iterable[Fault]:
    if not isinstance(key, str) or _NAME.fullmatch(key) is None:
        problem = "expected names of settings, such as app.tenant"
        yield Fault("local", problem)
    elif key.lower() in _COVERED:
        yield Fault(f"local.{key}", f"say {_COVERED[key.lower()]}")
    elif not isinstance(value, str):
        yield Fault(f"local.{key}", "expected text")
    elif "\0" in value:
        yield Fault(f"local.{key}", "expected text without the character NUL")
