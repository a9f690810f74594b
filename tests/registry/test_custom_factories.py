"""Other kinds of factories: named in the configuration by an entry point or a dotted path."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from sessionfactory import (
    NullSessionFactory,
    SessionFactoryRegistry,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODULE = """
    from sessionfactory import Fault, NullSessionFactory, SettingsError, SqlAlchemySessionFactory

    asked = []
    not_callable = "a text"

    def null(settings, *, name):
        asked.append((settings, name))
        return NullSessionFactory(f"{name} at {settings.url}")

    class Own(SqlAlchemySessionFactory):
        class Inner(SqlAlchemySessionFactory):
            pass

    def fails_once(settings, *, name):
        asked.append((settings, name))
        if len(asked) == 1:
            raise LookupError("the vault is sealed")
        return null(settings, name=name)

    def refuses(settings, *, name):
        raise SettingsError([Fault("pool.size", "expected 1 or less for this kind")])
"""
ENTRY_POINTS = """
    [sessionfactory.factories]
    guard = {module}:null
    own = {module}:Own
    gone = {module}:nothing_of_this_name

    [another.group]
    stranger = {module}:null
"""
METADATA = """
    Metadata-Version: 2.1
    Name: {module}
    Version: 1.0
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of kinds, in an installed distribution with entry points."""
    name = f"kinds_{tmp_path.parent.name}_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(dedent(MODULE))
    metadata = tmp_path / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(dedent(METADATA.format(module=name)).lstrip())
    (metadata / "entry_points.txt").write_text(dedent(ENTRY_POINTS.format(module=name)))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def registry_of(kind: object, url: str = "sqlite://") -> SessionFactoryRegistry:
    """Return a registry whose one database is of another kind."""
    return SessionFactoryRegistry.from_mapping({"default": {"url": url, "factory": kind}})


SPELLINGS: dict[str, Callable[[str], str]] = {
    "entry point": lambda _module: "guard",
    "colon": lambda module: f"{module}:null",
    "dots": lambda module: f"{module}.null",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_kind_makes_the_factory(module: str, spelling: str) -> None:
    """An entry point and both spellings of a dotted path lead to the same kind."""
    with registry_of(SPELLINGS[spelling](module)) as registry:
        factory = registry.get()

        assert isinstance(factory, NullSessionFactory)
        assert factory.reason == "default at sqlite://"
        assert registry.get() is factory


def test_an_attribute_of_a_class_needs_the_colon(module: str) -> None:
    """What stands after the colon may be a path of its own."""
    with registry_of(f"{module}:Own.Inner") as registry:
        assert registry.get().__class__.__qualname__ == "BorrowedSessionFactory"
        assert repr(registry.get()).startswith("Own.Inner(")


def test_a_subclass_of_ours_is_a_kind(module: str) -> None:
    """A class is called as a function is; its reader and its engine are found, and it is closed."""
    with registry_of("own") as registry:
        factory: Any = registry.get()
        assert repr(factory).startswith("Own(")
        assert registry.engine() is factory.engine
        registry.reader()
    assert registry._catalogue._built == {}
    assert not factory._managed.built


def test_a_kind_gets_the_settings_and_the_name(module: str) -> None:
    """A kind sees the checked settings of its database, and what the database is called."""
    with SessionFactoryRegistry.from_mapping(
        {"analytics": {"url": "sqlite://", "pool": {"size": "3"}, "factory": f"{module}:null"}}
    ) as registry:
        registry.get("analytics")

    ((settings, name),) = __import__(module).asked
    assert (settings.pool.size, name) == (3, "analytics")


def test_a_toml_file_may_name_a_kind(module: str, tmp_path: Path) -> None:
    """`factory` is a key of a database's table."""
    file = tmp_path / "databases.toml"
    file.write_text(f'[databases.default]\nurl = "sqlite://"\nfactory = "{module}:null"\n')

    with SessionFactoryRegistry.from_toml(file) as registry:
        assert isinstance(registry.get(), NullSessionFactory)


@pytest.mark.parametrize("variable", ["DATABASE_FACTORY", "DEFAULT_DATABASE_FACTORY"])
def test_the_environment_never_names_a_kind(module: str, variable: str) -> None:
    """A variable chooses no code to run: it is left alone, as any other that is not ours."""
    environ = {"DATABASE_URL": "sqlite://", variable: f"{module}:null"}

    with SessionFactoryRegistry.from_env(environ) as registry:
        assert registry.engine().dialect.name == "sqlite"


def test_the_environment_does_not_replace_the_kind_of_a_file(module: str, tmp_path: Path) -> None:
    """The environment on top of a file changes the URL, and not the code that gets it."""
    file = tmp_path / "databases.toml"
    file.write_text(f'[databases.default]\nurl = "sqlite://"\nfactory = "{module}:null"\n')
    environ = {"DATABASE_URL": "sqlite:///other.db", "DATABASE_FACTORY": f"{module}:Own"}

    with SessionFactoryRegistry.from_toml(file, environ=environ) as registry:
        factory = registry.get()

    assert isinstance(factory, NullSessionFactory)
    assert factory.reason == "default at sqlite:///other.db"


UNLOADABLE = {
    "nowhere": "no entry point of the group 'sessionfactory.factories' has this name",
    "stranger": "no entry point of the group 'sessionfactory.factories' has this name",
    "gone": "has no attribute 'nothing_of_this_name'",
    "{module}:nothing": "has no attribute 'nothing'",
    "{module}.nothing": "has no attribute 'nothing'",
    "no_such_module_anywhere:make": "No module named 'no_such_module_anywhere'",
    "no_such_module_anywhere.make": "No module named 'no_such_module_anywhere'",
    "{module}:not_callable": r"cannot be called with \(settings, name=…\)",
    "{module}:": "cannot be loaded",
    ":null": "cannot be loaded",
    ".": "cannot be loaded",
    "..relative:null": "cannot be loaded",
    "": "no entry point",
}


@pytest.mark.parametrize("kind", UNLOADABLE)
def test_a_kind_that_cannot_be_loaded_is_a_fault(module: str, kind: str) -> None:
    """What no kind is gives one `SettingsError` that names the key and the reason."""
    with (
        registry_of(kind.format(module=module)) as registry,
        pytest.raises(SettingsError, match=UNLOADABLE[kind]) as caught,
    ):
        registry.get()

    (fault,) = caught.value.faults
    assert fault.path == "default.factory"


def test_a_missing_entry_point_names_those_that_are_installed(module: str) -> None:
    """The error of a misspelt entry point lists those that exist."""
    with registry_of("gaurd") as registry, pytest.raises(SettingsError, match="gone, guard, own"):
        registry.get()


def test_a_bare_name_never_imports_a_module(module: str) -> None:
    """A word without a dot is an entry point's name, and no module is imported for it."""
    with registry_of(module) as registry, pytest.raises(SettingsError, match="no entry point"):
        registry.get()


@pytest.mark.parametrize("kind", [5, True, ["a:b"], NullSessionFactory])
def test_a_kind_is_named_by_text(kind: object) -> None:
    """Anything but text is a fault of the configuration, found before anything is built."""
    with pytest.raises(SettingsError, match=r"default\.factory") as caught:
        registry_of(kind)

    assert "expected an entry point or a dotted path" in str(caught.value)


def test_a_kind_that_raises_leaves_nothing_half_built(module: str) -> None:
    """A kind's own error passes through, and the next look-up asks the kind again."""
    with registry_of(f"{module}:fails_once") as registry:
        with pytest.raises(LookupError, match="the vault is sealed"):
            registry.get()
        assert registry.status() == {}

        assert isinstance(registry.get(), NullSessionFactory)


def test_a_kind_s_settings_error_tells_which_database(module: str) -> None:
    """A kind that refuses its settings need not know their path in the configuration."""
    with registry_of(f"{module}:refuses") as registry, pytest.raises(SettingsError) as caught:
        registry.get()

    assert str(caught.value) == (
        "Invalid database settings: default.pool.size: expected 1 or less for this kind"
    )


def test_a_kind_s_settings_are_checked_all_the_same() -> None:
    """Another kind gets sound settings or none."""
    with pytest.raises(SettingsError, match=r"default\.url .*is missing"):
        SessionFactoryRegistry.from_mapping({"default": {"factory": "guard"}})


def test_a_kind_that_makes_no_factory_is_a_fault() -> None:
    """What a kind makes has to be a session factory."""
    mapping = {"default": {"url": "sqlite://", "factory": f"{__name__}:make_nothing"}}
    registry = SessionFactoryRegistry.from_mapping(mapping)
    with pytest.raises(SettingsError, match=r"default\.factory.* made no session factory"):
        registry.get()


def make_nothing(settings: object, *, name: str) -> None:
    """Forget to return the factory."""
