"""Settings of a database: what its URL may be, its secrets, replicas and engine options."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from sqlalchemy import URL, make_url

from sessionfactory import DatabaseSettings, PoolSettings, Secret, SettingsError

BARE = "postgresql://ada@db.example.org/app"
EXAMPLE = "expected a database URL such as postgresql://user@host/name or sqlite:///file.db"
UNESCAPED = "the user name or password holds an unescaped '@', '/' or ':'; write %40, %2F or %3A"


def _faults(url: Any = BARE, **given: Any) -> dict[str, str]:
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        DatabaseSettings(url, **given)
    return {fault.path: fault.problem for fault in caught.value.faults}


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


@pytest.mark.parametrize(
    ("given", "url", "password"),
    [
        (BARE, BARE, None),
        (f"  {BARE}\n", BARE, None),
        ("postgresql://ada:pw@db.example.org/app", BARE, "pw"),
        ("postgres://ada:pw@db.example.org/app", BARE, "pw"),
        ("postgresql://ada@db.example.org/app?password=pw", BARE, "pw"),
        ("postgresql://ada:pw@db.example.org/app?password=pw", BARE, "pw"),
        ("postgresql://ada:p%40w%2F@db.example.org/app", BARE, "p@w/"),
        ("postgresql://ada:p/w@db.example.org/app", BARE, "p/w"),
        ("sqlite:///file.db", "sqlite:///file.db", None),
        ("sqlite://", "sqlite://", None),
    ],
)
def test_the_password_is_moved_out_of_the_url(given: str, url: str, password: str | None) -> None:
    """The URL is kept without its password, which becomes the setting of that name."""
    for form in (given, make_url(given.strip().replace("postgres://", "postgresql://"))):
        settings = DatabaseSettings(form)
        assert settings.url.render_as_string(hide_password=False) == url
        assert _revealed(settings.password) == password


def test_other_secrets_of_the_query_are_moved_out_too() -> None:
    """A secret of the query that is no password is kept by its key, and leaves the URL."""
    settings = DatabaseSettings(f"{BARE}?sslpassword=pw&application_name=shop")
    assert dict(settings.url.query) == {"application_name": "shop"}
    assert settings.url_secrets == {"sslpassword": Secret("pw")}
    assert settings.password is None


@pytest.mark.parametrize("password", ["pw", Secret("pw")])
def test_the_password_may_be_a_setting(password: str | Secret) -> None:
    """The password may be given beside the URL, also when the URL says the same."""
    assert _revealed(DatabaseSettings(BARE, password=password).password) == "pw"
    twice = DatabaseSettings("postgresql://ada:pw@db.example.org/app", password=password)
    assert twice == DatabaseSettings(BARE, password="pw")


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://ada:one@db.example.org/app", "two"),
        ("postgresql://ada@db.example.org/app?password=one", "two"),
        ("postgresql://ada:one@db.example.org/app?password=two", None),
    ],
)
def test_two_different_passwords_are_a_fault(url: str, password: str | None) -> None:
    """Two passwords that differ are a fault, as neither has precedence."""
    expected = "is not the one in the URL; give it in one of the two places"
    assert _faults(url, password=password) == {"password": expected}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", EXAMPLE),
        ("nonsense", EXAMPLE),
        ("db.example.org/app", EXAMPLE),
        ("postgresql:/db.example.org", EXAMPLE),
        (5, EXAMPLE),
        (None, EXAMPLE),
        (b"sqlite://", EXAMPLE),
        (f"'{BARE}'", f"{EXAMPLE} (it begins with a quotation mark)"),
        (f'"{BARE}"', f"{EXAMPLE} (it begins with a quotation mark)"),
        ("postgresql://ada@db.example.org:abc/app", "the port of the URL is not a number"),
        ("sqlite://file.db", "write sqlite:///file.db for a relative path"),
        ("postgresql://ada:p@w@db.example.org/app", UNESCAPED),
        ("postgresql://ada:p@w/x@db.example.org/app", UNESCAPED),
        ("postgresql://ada:p@/w@db.example.org/app", UNESCAPED),
        ("postgresql://ada:p@w?x@db.example.org/app", UNESCAPED),
    ],
)
def test_a_url_that_cannot_be_used_is_a_fault(url: object, problem: str) -> None:
    """A URL that cannot be used is a fault that says how to write it."""
    faults = _faults(url)
    assert list(faults) == ["url"]
    assert faults["url"].startswith(problem)


def test_replicas_may_be_texts_and_urls() -> None:
    """Replicas are given as texts or URLs, and kept as URLs without the password."""
    settings = DatabaseSettings(
        "postgresql://ada:pw@db/app",
        replicas=["postgres://ada@one/app", make_url("postgresql+psycopg://ada:pw@two/app")],
    )
    assert [url.render_as_string(hide_password=False) for url in settings.replicas] == [
        "postgresql://ada@one/app",
        "postgresql+psycopg://ada@two/app",
    ]
    assert all(isinstance(url, URL) for url in settings.replicas)


def test_a_replica_of_another_kind_or_with_a_password_of_its_own_is_a_fault() -> None:
    """Each replica that does not fit its primary is a fault of its own."""
    replicas = ["mysql://ada@one/app", BARE, "postgresql://ada:other@two/app"]
    assert _faults("postgresql://ada:pw@db/app", replicas=replicas) == {
        "replicas[0]": "expected a postgresql URL, as the primary's",
        "replicas[2]": "has a secret of its own; a replica has its primary's password",
    }


def test_every_malformed_replica_is_told_by_its_number() -> None:
    """Malformed replicas are all told at once, each with its number in the list."""
    assert _faults(replicas=["nonsense", BARE, 5]) == {
        "replicas[0]": EXAMPLE,
        "replicas[2]": EXAMPLE,
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool_size": 5}, "pool_size (use pool.size)"),
        ({"max_overflow": 5}, "max_overflow (use pool.max_overflow)"),
        ({"pool_timeout": 5}, "pool_timeout (use pool.timeout)"),
        ({"pool_recycle": 5}, "pool_recycle (use pool.recycle)"),
        ({"pool_pre_ping": True}, "pool_pre_ping (use pool.pre_ping)"),
        ({"poolclass": object}, "poolclass (use pool.kind)"),
        ({"echo": True}, "echo (use echo)"),
        ({"url": "sqlite://"}, "url (use url)"),
        ({"connect_args": {"connect_timeout": 5}}, "connect_args.connect_timeout (use connect_"),
        ({"connect_args": {"host": "x"}}, "connect_args.host (use url)"),
        ({"connect_args": {"password": "x"}}, "connect_args.password (a secret belongs into"),
        ({"connect_args": {"sslpassword": "x"}}, "connect_args.sslpassword (a secret belongs"),
    ],
)
def test_engine_options_may_not_name_what_a_setting_covers(
    options: dict[str, object], said: str
) -> None:
    """An engine option that a setting covers is a fault that names the setting."""
    problem = _faults(engine_options=options)["engine_options"]
    assert problem.startswith(f"may not name what a setting covers: {said}")


def test_all_covered_engine_options_are_named_at_once() -> None:
    """One fault names every engine option that a setting covers."""
    options = {"pool_size": 5, "echo": True, "connect_args": {"user": "x"}, "hide_parameters": True}
    assert _faults(engine_options=options)["engine_options"] == (
        "may not name what a setting covers:"
        " pool_size (use pool.size), echo (use echo), connect_args.user (use url)"
    )


def test_connect_args_must_be_a_table() -> None:
    """Connect arguments that are no table are a fault."""
    problem = _faults(engine_options={"connect_args": 5})["engine_options"]
    assert problem == "connect_args: expected a table of the driver's arguments"


def test_engine_options_are_not_shared_with_the_caller() -> None:
    """What the caller does with the dictionaries later does not reach the settings, and back."""
    inner: dict[str, object] = {"application_name": "shop"}
    given: dict[str, object] = {"connect_args": inner, "hide_parameters": True}
    settings = DatabaseSettings(BARE, engine_options=given)
    assert given == {"connect_args": {"application_name": "shop"}, "hide_parameters": True}
    given.clear()
    inner["application_name"] = "other"
    assert settings.engine_options == {
        "connect_args": {"application_name": "shop"},
        "hide_parameters": True,
    }


def test_sections_may_be_tables_or_settings() -> None:
    """A section is given as settings or as a table of them."""
    untyped: Any = {"pool": {"size": "3"}}
    assert DatabaseSettings(BARE, **untyped) == DatabaseSettings(BARE, pool=PoolSettings(size=3))


def test_evolve_keeps_the_secrets() -> None:
    """``attrs.evolve`` changes what it is told to change, and keeps password and other secrets."""
    settings = DatabaseSettings("postgresql://ada:pw@db/app?sslpassword=key")
    other = attrs.evolve(settings, echo=True)
    assert other.echo
    assert _revealed(other.password) == "pw"
    assert other.url_secrets == {"sslpassword": Secret("key")}
    assert attrs.evolve(other, echo=False) == settings


def test_settings_are_equal_if_all_they_say_is_equal() -> None:
    """Settings compare by value, the password included."""
    settings = DatabaseSettings("postgresql://ada:pw@db/app")
    assert settings == DatabaseSettings("postgresql://ada@db/app", password="pw")
    assert settings != DatabaseSettings("postgresql://ada@db/app", password="other")
    assert settings != DatabaseSettings("postgresql://ada:pw@db/app", echo=True)


def test_a_url_object_with_an_unescaped_password() -> None:
    """A ``URL`` whose host or database holds an '@' was parsed from an unescaped password."""
    for url in (
        URL.create("postgresql", "ada", "x", "REST@db", None, "app"),
        URL.create("postgresql", "ada", "x", "db", None, "REST@db"),
    ):
        with pytest.raises(SettingsError, match="holds an unescaped '@'"):
            DatabaseSettings(url)


def test_a_url_object_called_postgres() -> None:
    """``postgres`` means ``postgresql`` in a URL object, too."""
    url = DatabaseSettings(URL.create("postgres", host="h")).url
    assert url.drivername == "postgresql"


def test_options_nested_without_end() -> None:
    """Options that hold themselves are a fault, and no endless recursion."""
    options: dict[str, Any] = {}
    options["again"] = options
    with pytest.raises(SettingsError, match="engine_options: is nested too deeply"):
        DatabaseSettings("sqlite://", engine_options=options)
