"""Views of an engine, on the same pool, whose transactions have options."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import ref

from sqlalchemy import Engine

from sessionfactory.drivers import families, known, sqlalchemy_private
from sessionfactory.engine import sqlite_begin, timeouts
from sessionfactory.engine.views import read_only
from sessionfactory.engine.views.options import TransactionOptions
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.pool import connection_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.orm import Session

    from sessionfactory.pool.connection_settings import Standing

READ_ONLY: Final = TransactionOptions(read_only=True)
_VIEWS: Final = "sessionfactory_views"
_OF: Final = "sessionfactory_view_of"
_MOST: Final = 64
"""Views that are kept for an engine; options that vary without end must not fill the memory."""
_OPTIONS: Final = ("read_only", "statement_timeout", "lock_timeout", "deferrable", "local")
"""What some family of databases can enforce, beside isolation levels and translated schemas."""


def view_of(engine: Engine, options: TransactionOptions) -> Engine:
    """Return a view of an engine whose transactions have options; the same one if asked again.

    What PostgreSQL has to be told in each transaction is left to the caller. Thread-safe.

    Raises:
        SettingsError: this database cannot honour one of the options, or they contradict those of
            a view that was given.
    """
    make = _build
    if _OF in vars(engine):
        engine, theirs = vars(engine)[_OF]
        options = theirs.and_also(options)
    elif any(_OF in vars(proxied) for proxied in sqlalchemy_private.derived_from(engine)):
        make = _derived
    if make is _build:
        _refuse_unknown(engine, options)
        if families.of_dialect(engine.dialect).speaks_postgresql:
            options = options.of_the_view
    # Kept, because SQLAlchemy's cache of compiled statements knows engines by their dialect; and
    # with the engine, so that it goes with it.
    views: dict[TransactionOptions, Engine] = vars(engine).setdefault(_VIEWS, {})
    view = views.get(options)
    if view is None:
        made = make(engine, options)
        for oldest in [*views][: max(0, len(views) + 1 - _MOST)]:
            views.pop(oldest, None)
        view = views.setdefault(options, made)
    return view


def keep_to(session: Session, options: TransactionOptions) -> None:
    """Make all engines that a session uses, also those that it chooses itself, have options."""
    asked = ref(session)  # and not the session, which would then be garbage that only cycles free

    def get_bind(*arguments: Any, **keywords: Any) -> Engine | Connection:
        using = cast("Session", asked())
        bind = type(using).get_bind(using, *arguments, **keywords)
        return view_of(bind, options) if isinstance(bind, Engine) else bind

    vars(session)["get_bind"] = get_bind


def without_options(engine: Engine) -> Engine:
    """Return the engine that a view is of, for queries of our own; another engine as it is."""
    for one in (engine, *sqlalchemy_private.derived_from(engine)):
        if _OF in vars(one):
            viewed: Engine = vars(one)[_OF][0]
            return viewed
    return engine


def _derived(engine: Engine, options: TransactionOptions) -> Engine:
    """Return a view of an engine that was derived from a view by ``execution_options``."""
    proxied = next(one for one in sqlalchemy_private.derived_from(engine) if _OF in vars(one))
    before = proxied.get_execution_options()
    own = {
        name: value
        for name, value in engine.get_execution_options().items()
        if name not in before or before[name] is not value
    }
    return view_of(proxied, options).execution_options(**own)


def _refuse_unknown(engine: Engine, options: TransactionOptions) -> None:
    name, family = engine.dialect.name, families.of_dialect(engine.dialect)
    faults = [
        Fault(option, f"{name} cannot do this for one transaction")
        for option in _OPTIONS
        if getattr(options, option) and option not in family.transaction_options
    ]
    if family.is_sqlite and options.isolation_level in {"REPEATABLE READ", "READ COMMITTED"}:
        faults.append(Fault("isolation_level", "sqlite has SERIALIZABLE, and AUTOCOMMIT"))
    if options.isolation_level is None and _autocommits(engine):
        faults += [
            Fault(option, "belongs to a transaction, and this engine's AUTOCOMMIT has none")
            for option in ("deferrable", "statement_timeout", "lock_timeout", "local")
            if getattr(options, option)
        ]
    if faults:
        raise SettingsError(faults)


def _autocommits(engine: Engine) -> bool:
    return sqlalchemy_private.isolation_level_of(engine) == "AUTOCOMMIT"


def _build(engine: Engine, options: TransactionOptions) -> Engine:
    level = options.isolation_level
    autocommits = _autocommits(engine) if level is None else level == "AUTOCOMMIT"
    view = engine.execution_options(**_native(engine, options, autocommits=autocommits))
    vars(view)[_OF] = engine, options
    family = families.of_dialect(engine.dialect)
    if family.speaks_mysql:
        values = partial(_variables, options)
        if values(mariadb=True):
            connection_settings.stand(view, engine, lambda dialect: _of_mysql(dialect, values))
    if not options.read_only:
        return view
    read_only.translate_refusals(engine)
    driver = known.named(engine.dialect.driver)
    if family.is_sqlite:
        sqlite_begin.read_only(view)
    if family.speaks_postgresql and autocommits:
        connection_settings.stand(view, engine, connection_settings.reads_only)
        if driver.read_only_autocommit == "attribute":  # after AUTOCOMMIT, or it has no effect
            view.update_execution_options(postgresql_readonly=True)
    elif driver.has_read_only_switch:
        connection_settings.stand(view, engine, connection_settings.transactions_read_only)
    read_only.hold(
        view,
        autocommits=autocommits,
        in_transactions=family.speaks_postgresql,
        ends_in_commit=driver.prepared_end_with_rollback,
    )
    return view


def _native(engine: Engine, options: TransactionOptions, *, autocommits: bool) -> dict[str, Any]:
    """Return the execution options by which SQLAlchemy does it."""
    family = families.of_dialect(engine.dialect)
    native: dict[str, Any] = {}
    if options.read_only:
        native[read_only.READ_ONLY] = True
        has_switch = known.named(engine.dialect.driver).has_read_only_switch
        if family.speaks_postgresql and not autocommits and not has_switch:
            native["postgresql_readonly"] = True
    if options.deferrable:
        native["postgresql_deferrable"] = True
    if options.schema_translate_map is not None:
        theirs = engine.get_execution_options().get("schema_translate_map", {})
        native["schema_translate_map"] = {**theirs, **options.schema_translate_map}
    # Once more where it is the engine's: what makes AUTOCOMMIT read-only has to come after it.
    level = "AUTOCOMMIT" if autocommits else options.isolation_level
    # A level of SQLite is always SERIALIZABLE; MySQL's is set together with the rest.
    if level is not None and (
        level == "AUTOCOMMIT" or not (family.speaks_mysql or family.is_sqlite)
    ):
        native["isolation_level"] = level
    return native


def _of_mysql(dialect: Dialect, values: Callable[..., dict[str, object]]) -> Standing:
    return connection_settings.variables(values(mariadb=getattr(dialect, "is_mariadb", False)))


def _variables(options: TransactionOptions, *, mariadb: bool) -> dict[str, object]:
    """Return the variables of MySQL or MariaDB that stand for options."""
    prefix = "tx" if mariadb else "transaction"
    asked = {"statement_timeout": options.statement_timeout, "lock_timeout": options.lock_timeout}
    given = {name: limit for name, limit in asked.items() if limit is not None}
    values: dict[str, object] = {**timeouts.mysql_variables(given, mariadb=mariadb)}
    if options.read_only:
        # And not START TRANSACTION READ ONLY, whose end CREATE and DROP bring about by themselves,
        # and then write.
        values[f"{prefix}_read_only"] = 1
    if options.isolation_level not in {None, "AUTOCOMMIT"}:
        values[f"{prefix}_isolation"] = str(options.isolation_level).replace(" ", "-")
    return values
