"""A password shows in no text: not of a secret, of settings, of an error or of a log record."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from sqlalchemy import URL, make_url, text

from sessionfactory import (
    DatabaseSettings,
    Secret,
    SessionFactoryRegistry,
    SettingsError,
    SqlAlchemySessionFactory,
)
from sessionfactory.config.masking import is_secret_key

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-4711"

# Each of these is one that people write; every part of the password says the canary.
MALFORMED = [
    CANARY,
    f"ada:{CANARY}@db.example.org/app",
    f"//ada:{CANARY}@db.example.org/app",
    f"postgresql:ada:{CANARY}@db.example.org/app",
    f"postgresql:/ada:{CANARY}@db.example.org/app",
    f"'postgresql://ada:{CANARY}@db.example.org/app'",
    f'"postgresql://ada:{CANARY}@db.example.org/app"',
    f"DATABASE_URL=postgresql://ada:{CANARY}@db.example.org/app",
    f"jdbc:postgresql://db.example.org/app?user=ada&password={CANARY}",
    f"postgresql://ada:{CANARY}@db.example.org:port/app",
    f"postgresql://ada:{CANARY}@db.example.org:54x32/app",
    f"postgresql://ada:{CANARY}@{CANARY}@db.example.org/app",
    f"postgresql://ada:x@{CANARY}@db.example.org/app",
    f"postgresql://ada:x@{CANARY}/{CANARY}@db.example.org/app",
    f"postgresql://ada:x@{CANARY}:{CANARY}@db.example.org/app",
    f"postgresql://ada:x@/{CANARY}@db.example.org/app",
    f"postgresql://ada:x@{CANARY}?{CANARY}@db.example.org/app",
    f"postgresql://ada:x@{CANARY}#{CANARY}@db.example.org/app",
    f"sqlite://ada:{CANARY}@file.db",
    f"host=db.example.org user=ada password={CANARY}",
    f"Server=db.example.org;Uid=ada;Pwd={CANARY};",
]


def _everything(error: BaseException) -> str:
    """Return all that can be read from an error and from every error behind it."""
    seen: dict[int, BaseException] = {}
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen[id(link)] = link
            pending += [link.__cause__, link.__context__]
    return "\n".join(f"{link} {link!r} {link.args!r} {vars(link)!r}" for link in seen.values())


def test_a_secret_shows_its_mask_in_every_text() -> None:
    """All ways to make a text of a secret give the mask, and ``reveal`` gives the text."""
    secret = Secret(CANARY)
    texts = [repr(secret), str(secret), format(secret), f"{secret}", f"{secret!r}", f"{[secret]}"]
    texts.append("%s %r" % (secret, secret))  # noqa: UP031 - as logging does it
    texts.append(json.dumps({"password": secret}, default=str))
    assert not [shown for shown in texts if CANARY in shown]
    assert all("***" in shown for shown in texts)
    assert secret.reveal() == CANARY


def test_a_secret_has_no_dictionary_of_attributes() -> None:
    """Tools that print ``vars`` of an object find nothing to print."""
    assert not hasattr(Secret(CANARY), "__dict__")


def test_secrets_compare_by_their_text() -> None:
    """Two secrets of one text are equal and hash alike; a text is no secret."""
    assert Secret(CANARY) == Secret(CANARY)
    assert hash(Secret(CANARY)) == hash(Secret(CANARY))
    assert Secret(CANARY) != Secret("other")
    assert Secret(CANARY) != CANARY
    assert (bool(Secret(CANARY)), bool(Secret(""))) == (True, False)


def test_a_copy_of_a_secret_is_the_secret() -> None:
    """Copies, deep ones included, keep the text and the mask."""
    secret = Secret(CANARY)
    for made in (copy.copy(secret), copy.deepcopy(secret), copy.deepcopy([secret])[0]):
        assert made == secret
        assert CANARY not in repr(made)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol: int) -> None:
    """A pickle of a secret, or of settings that hold one, is refused without showing it."""
    for given in (Secret(CANARY), DatabaseSettings("postgresql://ada@db/app", password=CANARY)):
        with pytest.raises(TypeError, match="a Secret is not pickled") as caught:
            pickle.dumps(given, protocol)
        assert CANARY not in _everything(caught.value)


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True),
        ("sslpassword", True),
        ("passwd", True),
        ("PWD", True),
        ("passphrase", True),
        ("aws_secret_access_key", True),
        ("auth_token", True),
        ("user", False),
        ("sslmode", False),
        ("application_name", False),
        ("passfile", False),
    ],
)
def test_names_that_speak_of_secrets(key: str, secret: object) -> None:
    """A key is taken for a secret's by its name."""
    assert is_secret_key(key) is secret


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("postgresql://ada@db/app", {"password": CANARY}),
        ("postgresql://ada@db/app", {"password": Secret(CANARY)}),
        (f"postgresql://ada:{CANARY}@db/app", {}),
        (make_url(f"postgresql://ada:{CANARY}@db/app"), {}),
        (f"postgresql://ada@db/app?password={CANARY}1&password={CANARY}2", {}),
        (f"postgresql://ada@db/app?sslpassword={CANARY}", {}),
        (f"mssql+pyodbc:///?odbc_connect=DRIVER=x;PWD={CANARY}", {}),
    ],
)
def test_settings_show_no_secret(url: str | URL, given: dict[str, Any]) -> None:
    """No text made of settings holds a secret, wherever it was given."""
    settings = DatabaseSettings(url, **given)
    evolved = attrs.evolve(settings, echo=True)
    texts = [repr(settings), str(settings), f"{settings}", repr(evolved)]
    texts += [repr(attrs.asdict(settings)), repr(attrs.astuple(settings))]
    texts += [json.dumps(attrs.asdict(settings), default=str)]
    texts += [settings.url.render_as_string(hide_password=False)]
    assert not [shown for shown in texts if CANARY in shown]


def test_engine_options_are_shown_by_name_only() -> None:
    """The ``repr`` of settings names the engine options without their values."""
    settings = DatabaseSettings("sqlite://", engine_options={"connect_args": {"key": CANARY}})
    assert "engine_options={'connect_args': …}" in repr(settings)
    assert CANARY not in repr(settings)


def test_settings_show_no_secret_of_replicas() -> None:
    """The URLs of replicas are kept without their secrets."""
    url = f"postgresql://ada:{CANARY}@db/app"
    settings = DatabaseSettings(url, replicas=[url, f"postgresql://two/app?password={CANARY}"])
    texts = [url.render_as_string(hide_password=False) for url in settings.replicas]
    assert texts == ["postgresql://ada@db/app", "postgresql://two/app"]
    assert CANARY not in repr(settings) + repr(attrs.astuple(settings))


@pytest.mark.parametrize("url", MALFORMED)
def test_the_error_about_a_malformed_url_does_not_quote_it(url: str) -> None:
    """A URL that cannot be read is refused, and no error in the chain holds a part of it."""
    with pytest.raises(SettingsError, match="url") as caught:
        DatabaseSettings(url)
    assert CANARY not in _everything(caught.value)
    with pytest.raises(SettingsError, match="url") as caught:
        SessionFactoryRegistry.from_mapping({"default": {"url": url, "replicas": [url]}})
    assert CANARY not in _everything(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"password": [CANARY]},
        {"password": {CANARY: CANARY}},
        {"password": CANARY.encode()},
        {"password": "other"},
        {"replicas": [f"mysql://ada:{CANARY}@db/app"]},
        {"replicas": [f"postgresql://ada:{CANARY}2@db/app"]},
        {"replicas": {CANARY: 5}},
        {"tls": CANARY},
        {"echo": CANARY},
        {"connect_timeout": CANARY},
        {"pool": CANARY},
        {"pool": {"size": CANARY, "kind": CANARY}},
        {"engine_options": CANARY},
        {"engine_options": {"connect_args": {"password": CANARY}}},
        {"engine_options": {"connect_args": CANARY}},
        {"url_secrets": CANARY},
        {"url_secrets": {"sslpassword": [CANARY]}},
    ],
)
def test_no_fault_quotes_what_was_given(given: dict[str, Any]) -> None:
    """A fault of any setting says what was expected, and never the value that stood there."""
    url = f"postgresql://ada:{CANARY}@db.example.org/app"
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        DatabaseSettings(url, **given)
    assert CANARY not in _everything(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"nonsense://ada:{CANARY}@db/app",
        f"postgresql+nonsense://ada:{CANARY}@db/app",
        f"postgresql+asyncpg://ada:{CANARY}@db/app",
        f"oracle+oracledb://ada:{CANARY}@db/app",
    ],
)
def test_the_error_about_a_driver_does_not_show_the_password(url: str) -> None:
    """A driver that is unknown, missing or asynchronous is refused without the password."""
    with pytest.raises(SettingsError, match="driver") as caught:
        SqlAlchemySessionFactory(DatabaseSettings(url))
    assert CANARY not in _everything(caught.value)


def test_a_sqlite_file_with_a_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    """SQLite files have no password: giving one is a fault of the settings, and is not shown."""
    url = f"sqlite:///{tmp_path / 'file.db'}"

    def use() -> None:
        settings = DatabaseSettings(url, password=CANARY)
        with SqlAlchemySessionFactory(settings) as sessions, sessions.begin() as session:
            session.connection()

    with pytest.raises(SettingsError, match="password") as caught:
        use()
    assert CANARY not in _everything(caught.value)


@pytest.fixture
def records(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Catch all that SQLAlchemy logs; its own handler for ``echo`` stays away from stdout."""
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "sessionfactory"):
        caplog.set_level(logging.DEBUG, logger=name)
    for name in ("sqlalchemy.engine.Engine", "sqlalchemy.pool.impl.QueuePool"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [caplog.handler])
    return caplog


def test_echo_logs_no_password(records: pytest.LogCaptureFixture) -> None:
    """With ``echo`` and every logger at DEBUG, neither success nor failure logs the password."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://", echo=True)) as sessions:
        with sessions.begin() as session:
            session.execute(text("SELECT 'a statement that is logged'"))
        assert "a statement that is logged" in records.text
    for driver in ("psycopg", "psycopg2"):
        url = f"postgresql+{driver}://ada:{CANARY}@127.0.0.1:1/app"
        with SqlAlchemySessionFactory(DatabaseSettings(url, echo=True)) as sessions:
            assert sessions.ping().state == "unreachable"
    assert CANARY not in records.text
    assert CANARY not in repr([record.__dict__ for record in records.records])


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("postgresql://app:pw@db/shop?application_name=worker@host1", "worker@host1"),
        ("postgresql://app@db:5432/shop?application_name=worker@host1", "worker@host1"),
        ("postgresql://app:pw@db/shop?sslmode=require&application_name=a@b", "a@b"),
    ],
)
def test_an_at_sign_in_the_query(url: str, value: str) -> None:
    """An ``@`` behind a path and a ``?`` belongs to the query."""
    settings = DatabaseSettings(url)
    assert settings.url.host == "db"
    assert settings.url.query["application_name"] == value


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:{CANARY}@s?x=1@db/shop",
        f"postgresql://app:{CANARY}@s/q?x=1@db/shop",
        f"postgresql://app:{CANARY}@s?s@db/shop",
        f"postgresql://app:{CANARY}@s?x=1@db",
    ],
)
def test_an_at_sign_that_may_be_the_passwords(url: str) -> None:
    """Where what looks like a query may be a part of the password, the URL is refused."""
    with pytest.raises(SettingsError, match="unescaped '@'") as caught:
        DatabaseSettings(url)
    assert CANARY not in str(caught.value)


def test_several_hosts() -> None:
    """Hosts of libpq's URLs become SQLAlchemy's, ports included; the password stays masked."""
    settings = DatabaseSettings(f"postgresql://app:{CANARY}@db1:5432,db2/shop?sslmode=require")
    assert settings.url.query["host"] == ("db1:5432", "db2")
    assert settings.url.query["sslmode"] == "require"
    assert settings.url.database == "shop"
    assert CANARY not in repr(settings)
