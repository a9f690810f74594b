"""Time limits: arguments of the driver's ``connect``, and what the server is sent then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import event

from sessionfactory.config.values import as_table, milliseconds, whole_seconds
from sessionfactory.drivers import families, known, libpq
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings


def connect_arguments(
    settings: DatabaseSettings, url: URL, given: Mapping[str, object]
) -> dict[str, object]:
    """Return the arguments of the driver's ``connect`` that limit times.

    The limits travel beside what the user gives in other places, and these win: the URL,
    ``connect_args``, and with libpq a service file and the variables of its environment.

    Args:
        settings: the database.
        url: with its driver.
        given: the user's ``connect_args``.

    Returns:
        arguments that are to replace those of the same name in ``given``.

    Raises:
        SettingsError: this database does not know one of the limits.
    """
    family, driver = families.of_url(url), known.named(url.get_driver_name())
    limits = _time_limits(settings)
    unknown = [name for name in limits if name not in family.time_limits]
    if unknown:
        backend = url.get_backend_name()
        hint = "; use sqlite.busy_timeout" if family.is_sqlite else ""
        raise SettingsError([Fault(name, f"{backend} has no such limit{hint}") for name in unknown])
    elsewhere = libpq.elsewhere(url, given) if driver.has_libpq_defaults else {}
    arguments: dict[str, object] = {}
    timeout = driver.connect_timeout
    if settings.connect_timeout is not None and timeout is not None:
        names = {timeout.argument, "connect_timeout"}
        if not names & {*url.query, *given, *elsewhere}:
            arguments |= timeout.arguments(settings.connect_timeout)
    if limits and family.speaks_postgresql:
        if driver.startup_options is None:
            problem = f"the driver {driver.name or url.get_driver_name()!r} cannot send it"
            raise SettingsError([Fault(name, problem) for name in limits])
        of_url = url.query.get("options") or elsewhere.get("options") or ()
        theirs = [of_url] if isinstance(of_url, str) else [*of_url]
        options = " ".join([*_postgresql_options(limits), *theirs])
        ours = driver.startup_options(options)
        _refuse_both({*_postgresql_settings(limits)}, {name: given.get(name) for name in ours})
        arguments |= _merged(ours, given)
    return arguments


def _refuse_both(limits: set[str], given: Mapping[str, object]) -> None:
    """Refuse ``connect_args`` that set a limit of the settings, for one of the two would lose."""
    for name, value in given.items():
        both = [limit for limit in sorted(limits) if limit in str(value)]
        if both:
            problem = (
                f"connect_args and url may not name what a setting covers: {name} sets"
                f" {', '.join(both)}; give it in one of the two places"
            )
            raise SettingsError([Fault("engine_options", problem)])


def _merged(ours: dict[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return start-up options of ours with those of ``connect_args`` behind them, which win."""
    merged: dict[str, object] = {}
    for name, value in ours.items():
        theirs = given.get(name)
        table = as_table(theirs)
        if isinstance(value, str):
            merged[name] = f"{value} {theirs}" if theirs else value
        elif table is not None:
            of_ours = {str(key): part for key, part in (as_table(value) or {}).items()}
            of_theirs = {str(key): part for key, part in table.items()}
            merged[name] = {**of_theirs, **_merged(of_ours, of_theirs)}
        else:
            merged[name] = value
    return merged


_ALL_LIMITS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_timeout")


def _time_limits(settings: DatabaseSettings) -> dict[str, float]:
    limits = ((name, getattr(settings, name)) for name in _ALL_LIMITS)
    return {name: limit for name, limit in limits if limit is not None}


def postgresql_settings(settings: DatabaseSettings) -> dict[str, str]:
    """Return the settings of PostgreSQL for the time limits, in milliseconds, by name."""
    return _postgresql_settings(_time_limits(settings))


def _postgresql_settings(limits: dict[str, float]) -> dict[str, str]:
    names = {"idle_in_transaction_timeout": "idle_in_transaction_session_timeout"}
    return {names.get(name, name): str(milliseconds(limit)) for name, limit in limits.items()}


def _postgresql_options(limits: dict[str, float]) -> list[str]:
    # Start-up options, so that no round trip sets them and RESET does not unset them. What comes
    # later on the same line wins.
    return [f"-c {name}={value}" for name, value in _postgresql_settings(limits).items()]


def limit_mysql(engine: Engine, settings: DatabaseSettings) -> None:
    """Have every new connection of a MySQL or MariaDB engine obey the time limits."""
    limits = _time_limits(settings)
    if not limits or not families.of_dialect(engine.dialect).speaks_mysql:
        return

    @event.listens_for(engine, "connect")
    def set_limits(connection: DBAPIConnection, _record: object) -> None:
        # Which of the two it is shows only once connected.
        is_mariadb = getattr(engine.dialect, "is_mariadb", False)
        variables = mysql_variables(limits, mariadb=is_mariadb)
        statement = ", ".join(f"SESSION {name} = {value}" for name, value in variables.items())
        cursor = connection.cursor()
        cursor.execute(f"SET {statement}")
        cursor.close()


def mysql_variables(limits: dict[str, float], *, mariadb: bool) -> dict[str, float]:
    """Return the variables of MySQL, or of MariaDB, that stand for time limits.

    Args:
        limits: seconds, by the name of the setting.
        mariadb: which of the two it is.

    Raises:
        SettingsError: MySQL does not know one of the limits.
    """
    variables: dict[str, float] = {}
    if "statement_timeout" in limits:
        seconds = limits["statement_timeout"]
        variables |= (
            {"max_statement_time": seconds}
            if mariadb
            else {"max_execution_time": milliseconds(seconds)}
        )
    if "lock_timeout" in limits:
        seconds = whole_seconds(limits["lock_timeout"])
        variables |= {"innodb_lock_wait_timeout": seconds, "lock_wait_timeout": seconds}
    if "idle_in_transaction_timeout" in limits:
        if not mariadb:
            fault = Fault("idle_in_transaction_timeout", "MySQL has no such limit")
            raise SettingsError([fault])
        variables["idle_transaction_timeout"] = whole_seconds(limits["idle_in_transaction_timeout"])
    return variables
