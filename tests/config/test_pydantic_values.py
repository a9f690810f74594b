"""URLs and secrets of pydantic, as settings classes of applications hold them."""

from __future__ import annotations

from pydantic import AnyUrl, BaseModel, MySQLDsn, PostgresDsn, SecretStr

from sessionfactory import DatabaseSettings, SessionFactoryRegistry


class Model(BaseModel):
    """What an application reads its settings into."""

    url: PostgresDsn
    password: SecretStr


def test_a_dsn_and_a_secret_are_taken() -> None:
    """Both are read as the text that they hold, and the secret stays one."""
    model = Model.model_validate({"url": "postgres://ada@db:5433/app", "password": "canary"})

    settings = DatabaseSettings(model.url, password=model.password)

    assert settings == DatabaseSettings("postgresql://ada@db:5433/app", password="canary")
    assert "canary" not in repr(settings)


def test_a_password_in_a_dsn_is_moved() -> None:
    """A password inside of the URL is taken out of it, as from a text."""
    settings = DatabaseSettings(PostgresDsn("postgresql+psycopg://ada:canary@db/app"))

    assert settings.password is not None
    assert settings.password.reveal() == "canary"
    assert "canary" not in f"{settings!r} {settings.url}"


def test_a_whole_url_may_be_a_secret() -> None:
    """`SecretStr` around a URL is taken, too."""
    assert DatabaseSettings(SecretStr("sqlite:///a.db")) == DatabaseSettings("sqlite:///a.db")


def test_other_urls_and_replicas() -> None:
    """Any URL of pydantic, in a mapping and among replicas."""
    registry = SessionFactoryRegistry.from_mapping(
        {
            "default": {
                "url": MySQLDsn("mysql://db:3306/app"),
                "replicas": [AnyUrl("mysql://two:3306/app")],
            },
        }
    )

    assert registry.settings() == DatabaseSettings(
        "mysql://db:3306/app", replicas=("mysql://two:3306/app",)
    )
