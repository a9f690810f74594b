"""Options that people know from ``create_engine`` are taken, or refused with the word to use."""

from __future__ import annotations

import pytest

from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)

URL = "sqlite://"


def test_echo_with_rows() -> None:
    """``echo="debug"`` logs rows, too, as with ``create_engine``."""
    with SqlAlchemySessionFactory(DatabaseSettings(URL, echo="debug")) as sessions:
        assert sessions.engine.echo == "debug"


@pytest.mark.parametrize("value", ["rollback", "commit", None, True, False])
def test_what_the_pool_does_at_return(value: object) -> None:
    """``pool_reset_on_return`` is refused, whatever its value: the setting is ``pool.reset``."""
    with pytest.raises(SettingsError, match=r"pool_reset_on_return \(use pool\.reset\)"):
        DatabaseSettings(URL, engine_options={"pool_reset_on_return": value})


def test_no_recycling() -> None:
    """SQLAlchemy's -1 is refused, and the message has what means no limit here: ``None``."""
    with pytest.raises(SettingsError, match="for no limit use None"):
        PoolSettings(recycle=-1)
    with pytest.raises(SettingsError, match=r"pool_recycle \(use pool\.recycle\)"):
        DatabaseSettings(URL, engine_options={"pool_recycle": -1})
