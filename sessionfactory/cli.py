"""The command ``sessionfactory``: look at a configuration before a service does.

Exit status: 0, all is well; 1, a database did not answer a ping, or lacks migrations; 2, the
configuration or the command line cannot be used.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

try:
    import typer

    from sessionfactory.cli_output import (
        ping_of,
        plain,
        print_json,
        print_table,
        sentence_of,
        text_of,
    )
except ImportError as _error:
    sys.stderr.write(
        f'sessionfactory: {_error.name} is missing; pip install "sessionfactory[cli]"\n'
    )
    raise SystemExit(2) from None

from pathlib import Path

import sqlalchemy

from sessionfactory.config.masking import Masked
from sessionfactory.config.sources import read_environ, read_toml
from sessionfactory.config.validation import leaves, value_at
from sessionfactory.drivers import families
from sessionfactory.drivers.dialects import is_asynchronous
from sessionfactory.drivers.server_limit import server_limit, shortage
from sessionfactory.drivers.tls import risk_of
from sessionfactory.engine.managed import ManagedEngine
from sessionfactory.errors import Fault, NotConfiguredError, SettingsError, SettingsWarning
from sessionfactory.registry.custom_factories import load_kind
from sessionfactory.registry.registry import SessionFactoryRegistry
from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessionfactory.config.configuration import Configuration
    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.ext.alembic import MigrationState
    from sessionfactory.status import Health

UNREACHABLE: Final = 1
UNUSABLE: Final = 2

app: typer.Typer = typer.Typer(
    help="Look at the configuration of databases: the environment, or a TOML file below it.",
    epilog="Exit status: 0 all is well; 1 a database did not answer, or lacks migrations; 2 the"
    " configuration or the command line cannot be used.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_Toml = Annotated[
    Path | None, typer.Option("--toml", help="Read this file, with the environment on top.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        versions = (
            f"sessionfactory {metadata.version('sessionfactory')}",
            f"SQLAlchemy {sqlalchemy.__version__}",
            f"Python {platform.python_version()}",
        )
        sys.stdout.write("\n".join(versions) + "\n")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of this package and of what it runs on.",
        ),
    ] = False,
) -> None:
    """Look at the configuration of databases: the environment, or a TOML file below it."""


@app.command()
def check(  # noqa: PLR0913 - one for each option
    *,
    toml: _Toml = None,
    ping: Annotated[bool, typer.Option("--ping", help="Ping each database, too.")] = False,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a ping may take.")] = 2.0,
    migrations: Annotated[
        bool, typer.Option("--migrations", help="Compare with the scripts of alembic.ini, too.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings.")] = False,
    as_json: _Json = False,
) -> None:
    """Check the configuration and print what it means; no connection is made without --ping."""
    configuration = _configuration(toml, as_json=as_json)
    health, limits = _ping(configuration, timeout) if ping else ({}, {})
    states = _migrations(as_json=as_json) if migrations else {}
    if as_json:
        print_json(
            {
                name: {
                    "settings": _shown(configuration, name, settings),
                    "warnings": _warnings(settings, limits.get(name)),
                    **ping_of(health.get(name)),
                    **({"migrations": str(states[name])} if name in states else {}),
                }
                for name, settings in configuration.databases.items()
            }
        )
    else:
        for name, settings in configuration.databases.items():
            shown = _shown(configuration, name, settings)
            rows = [(path, text_of(value)) for path, value in shown.items()]
            print_table(name, ("setting", "value"), rows)
            for warning in _warnings(settings, limits.get(name)):
                sys.stdout.write(f"warning: {warning}\n")
            if name in health:
                sys.stdout.write(f"ping: {sentence_of(health[name])}\n\n")
            if name in states:
                sys.stdout.write(f"migrations: {states[name]}\n\n")
    if strict and _all_warnings(configuration, limits):
        raise typer.Exit(UNUSABLE)
    is_current = all(state.is_current for state in states.values())
    if not is_current or not all(answer.ok for answer in health.values()):
        raise typer.Exit(UNREACHABLE)


@app.command()
def show(*, toml: _Toml = None, as_json: _Json = False) -> None:
    """Print where each value came from: a variable, a file and its table, or the default."""
    configuration = _configuration(toml, as_json=as_json)
    origins = {
        name: {
            path: (value, _origin(configuration, name, path, value))
            for path, value in _shown(configuration, name, settings).items()
        }
        for name, settings in configuration.databases.items()
    }
    if as_json:
        print_json(
            {
                name: {path: {"value": v, "origin": o} for path, (v, o) in table.items()}
                for name, table in origins.items()
            }
        )
        return
    for name, table in origins.items():
        rows = [(path, text_of(value), origin) for path, (value, origin) in table.items()]
        print_table(name, ("setting", "value", "from"), rows)


def main() -> None:
    """Run the command line."""
    app(prog_name="sessionfactory")


def _configuration(toml: Path | None, *, as_json: bool) -> Configuration:
    environ = Masked[object](os.environ)
    try:
        configuration = read_environ(environ) if toml is None else read_toml(toml, environ)
        for warning in configuration.warnings:
            sys.stderr.write(f"warning: {warning}\n")
        if not configuration.databases:
            raise NotConfiguredError(configuration.missing("default"))  # noqa: TRY301
        _check_engines(configuration)
    except (SettingsError, NotConfiguredError) as error:
        _fail(error, as_json=as_json)
    return configuration


def _check_engines(configuration: Configuration) -> None:
    """Check what can be known without a connection: drivers, and limits that they know."""
    faults: list[Fault] = []
    for name, settings in configuration.databases.items():
        kind = configuration.factories.get(name)
        try:
            if kind is None:
                ManagedEngine(settings, name, is_async=is_asynchronous(settings.url))
            else:
                load_kind(kind)
        except SettingsError as error:
            faults += configuration.traced(name, error).faults
    if faults:
        raise SettingsError(faults)


def _fail(error: SettingsError | NotConfiguredError, *, as_json: bool) -> NoReturn:
    if as_json:
        faults = error.faults if isinstance(error, SettingsError) else ()
        print_json(
            {
                "error": str(error),
                "faults": [
                    {"path": fault.path, "problem": fault.problem, "origin": fault.origin}
                    for fault in faults
                ],
            }
        )
    else:
        sys.stderr.write(f"{error}\n")
    raise typer.Exit(UNUSABLE)


def _warnings(settings: DatabaseSettings, limit: int | None) -> list[str]:
    return [risk for risk in (risk_of(settings), shortage(settings, limit)) if risk is not None]


def _all_warnings(configuration: Configuration, limits: Mapping[str, int | None]) -> list[str]:
    found = [*configuration.warnings]
    for name, settings in configuration.databases.items():
        found += _warnings(settings, limits.get(name))
    return found


def _ping(
    configuration: Configuration, timeout: float
) -> tuple[dict[str, Health], dict[str, int | None]]:
    """Ping all databases, and read the connection limit of those that answer."""
    databases = configuration.databases
    waiting = [name for name, each in databases.items() if is_asynchronous(each.url)]
    others = [name for name in databases if name not in waiting]
    limits: dict[str, int | None] = {}
    with warnings.catch_warnings(action="ignore", category=SettingsWarning):  # ``check`` prints it
        with SessionFactoryRegistry._of(configuration) as registry:  # noqa: SLF001
            answers = registry.ping(names=others, timeout=timeout)
            for name in (name for name in others if _has_limit(configuration, name, answers)):
                with registry.engine(name).connect() as connection:
                    limits[name] = server_limit(connection)
        if waiting:
            asyncio.run(_ping_async(configuration, waiting, timeout, answers, limits))
    return {name: answers[name] for name in databases}, limits


async def _ping_async(
    configuration: Configuration,
    names: list[str],
    timeout: float,
    answers: dict[str, Health],
    limits: dict[str, int | None],
) -> None:
    async with AsyncSessionFactoryRegistry._of(configuration) as registry:  # noqa: SLF001
        answers |= await registry.ping(names=names, timeout=timeout)
        for name in (name for name in names if _has_limit(configuration, name, answers)):
            async with registry.engine(name).connect() as connection:
                limits[name] = await connection.run_sync(server_limit)


def _has_limit(configuration: Configuration, name: str, answers: Mapping[str, Health]) -> bool:
    is_ours = name not in configuration.factories
    is_server = families.of_url(configuration.databases[name].url).has_server
    return is_ours and is_server and answers[name].ok


def _shown(
    configuration: Configuration, name: str, settings: DatabaseSettings
) -> dict[str, object]:
    """Return every setting as JSON knows it; secrets stay masked."""
    kind = configuration.factories.get(name)
    shown = {path: plain(value_at(settings, path)) for path in leaves(type(settings))}
    return shown if kind is None else {"factory": kind, **shown}


def _origin(configuration: Configuration, name: str, path: str, value: object) -> str:
    said = configuration.origins.get((name, path))
    if said is None and path in {"password", "url_secrets"} and value:
        return configuration.origins[name, "url"]
    return said or "default"


def _migrations(*, as_json: bool) -> dict[str, MigrationState]:
    try:
        from sessionfactory.ext.alembic import states  # noqa: PLC0415 - an extra

        return {state.name: state for state in states()}
    except ImportError as error:
        problem = f'{error.name} is missing; pip install "sessionfactory[alembic]"'
        _fail(SettingsError([Fault("--migrations", problem)]), as_json=as_json)
    except SettingsError as error:
        _fail(error, as_json=as_json)
