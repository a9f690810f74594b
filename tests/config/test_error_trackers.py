"""What error trackers and printers of tracebacks keep of a refused configuration: no secret."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any

import loguru
import pytest
import sentry_sdk
import structlog
from rich.console import Console
from rich.traceback import Traceback
from sentry_sdk.transport import Transport

from sessionfactory import (
    AsyncSessionFactoryRegistry,
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SessionFactoryRegistry,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sentry_sdk.envelope import Envelope

CANARY = "canary-4711"
URL = f"postgresql://ada:{CANARY}@db/app"
REGISTRIES: tuple[Any, ...] = (SessionFactoryRegistry, AsyncSessionFactoryRegistry)


def _environment(cls: Any) -> object:
    return cls.from_env({"DATABASE_URL": URL, "DATABASE_POOL_SIZE": "many"})


def _missing(cls: Any) -> object:
    return cls.from_env({"A_DATABASE_URL": URL}, require=["default"])


def _unknown_driver(cls: Any) -> object:
    url = URL.replace("postgresql", "postgress")
    return cls.from_env({"DATABASE_URL": url}, require=["default"])


def _overrides(cls: Any) -> object:
    return cls.from_env({"X": CANARY}, overrides={"default": {"url": URL, "echo": "maybe"}})


def _file(cls: Any) -> object:
    return cls.from_toml("/nowhere.toml", environ={"DATABASE_URL": URL})


def _mapping(cls: Any) -> object:
    return cls.from_mapping({"default": {"url": URL, "pool": {"size": "many"}}})


def _text_for_settings(cls: Any) -> object:
    return cls({"default": URL})


def _bad_class(cls: Any) -> object:
    return cls.from_env({"DATABASE_URL": URL}, session_class=dict, require=["default"])


def _keyword(_: Any) -> object:
    build: Any = DatabaseSettings
    return build(URL, passwort=CANARY)


def _settings(_: Any) -> object:
    return DatabaseSettings(URL, pool=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _factory(cls: Any) -> object:
    is_sync = cls is SessionFactoryRegistry
    build: Any = SqlAlchemySessionFactory if is_sync else AsyncSqlAlchemySessionFactory
    return build(URL)


TRIALS = [
    *(_environment, _missing, _unknown_driver, _overrides, _file, _mapping, _text_for_settings),
    *(_bad_class, _keyword, _settings, _factory),
]


class Kept(Transport):
    """Keeps what Sentry's client would send."""

    text = ""

    def capture_envelope(self, envelope: Envelope) -> None:
        self.text += envelope.serialize().decode()


@pytest.fixture(params=TRIALS, ids=lambda trial: trial.__name__.strip("_"))
def trial(request: pytest.FixtureRequest) -> Callable[[Any], object]:
    """Give one way to be refused."""
    found: Callable[[Any], object] = request.param
    return found


@pytest.fixture(params=REGISTRIES)
def error(request: pytest.FixtureRequest, trial: Callable[[Any], object]) -> BaseException:
    """Give the error, with the frames of the package alone: the caller's are the caller's."""
    with pytest.raises((ValueError, RuntimeError, TypeError)) as caught:
        trial(request.param)
    error = caught.value
    link = error.__traceback__
    while link is not None and link.tb_frame.f_code.co_filename == __file__:
        link = link.tb_next
    return error.with_traceback(link)


def test_sentry_sends_none(error: BaseException) -> None:
    """Sentry's client walks through containers in the frames, and finds none with a secret."""
    kept = Kept()
    with sentry_sdk.isolation_scope(), sentry_sdk.new_scope() as scope:
        scope.set_client(sentry_sdk.Client(dsn="http://key@127.0.0.1:9/1", transport=kept))
        sentry_sdk.capture_exception(error)

    assert "exception" in kept.text
    assert CANARY not in kept.text


def test_rich_prints_none(error: BaseException) -> None:
    """Rich shows local variables, and expands what it knows to be a container."""
    out = io.StringIO()
    shown = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    Console(file=out, width=200).print(shown)

    assert type(error).__name__ in out.getvalue()
    assert CANARY not in out.getvalue()


def test_loguru_prints_none(error: BaseException) -> None:
    """Loguru's diagnosis shows the value of each name in a line."""
    out = io.StringIO()
    logger = loguru.logger
    sink = logger.add(out, diagnose=True, backtrace=False)
    logger.opt(exception=error).error("refused")
    logger.remove(sink)

    assert type(error).__name__ in out.getvalue()
    assert CANARY not in out.getvalue()


def test_structlog_prints_none(error: BaseException) -> None:
    """Structlog's dictionaries of tracebacks hold local variables."""
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
    found = transform((type(error), error, error.__traceback__))

    assert found
    assert CANARY not in json.dumps(found, default=repr)


def test_the_standard_library_prints_none(error: BaseException) -> None:
    """Nor does a traceback that captures locals, as cgitb and `unittest --locals` print it."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)

    assert CANARY not in "".join(shown.format())


def test_pytest_prints_none(tmp_path: Path) -> None:
    """`pytest -l` prints the local variables of every frame; only the test's own has the secret."""
    (tmp_path / "secret.py").write_text(
        f"environ = {{'DATABASE_URL': {URL!r}, 'DATABASE_TLS': 'x'}}"
    )
    (tmp_path / "test_it.py").write_text(
        "import secret\nfrom sessionfactory import SessionFactoryRegistry\n"
        "def test_it():\n    SessionFactoryRegistry.from_env(secret.environ)\n"
    )
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-l",
            "--full-trace",
            "-p",
            "no:cacheprovider",
            "test_it.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "SettingsError" in process.stdout
    assert CANARY not in process.stdout + process.stderr
