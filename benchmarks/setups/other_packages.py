"""Other packages that hand out sessions, each used as its documentation says.

They are imported where they are used, because an ordinary development environment has none of them:
`make bench` makes one that has. What they hand out is a SQLAlchemy ``Session``.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from attrs import frozen

from benchmarks.setups.databases import disposing
from benchmarks.setups.scopes import begun_by_registry, opened_by_registry, scope

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session, scoped_session

    from benchmarks.setups.scopes import Operation, Work

_OPTIONS: Final = {"autoflush": True, "expire_on_commit": False}


@frozen(kw_only=True)
class Usage:
    """How a package is used.

    Args:
        opened: makes of some work what opens a session, works with it, and closes it.
        begun: makes of some work what does so in one transaction, which it commits.
    """

    opened: Callable[[Work], Operation]
    begun: Callable[[Work], Operation]

    @classmethod
    def by_blocks(
        cls,
        opened: Callable[[], AbstractContextManager[Session]],
        begun: Callable[[], AbstractContextManager[Session]],
    ) -> Usage:
        """Use what gives a session for the length of a ``with`` block."""
        return cls(opened=lambda work: scope(opened, work), begun=lambda work: scope(begun, work))

    @classmethod
    def by_registry(cls, sessions: scoped_session[Session]) -> Usage:
        """Use a session that stays where it is until it is removed."""
        return cls(
            opened=lambda work: opened_by_registry(sessions, work),
            begun=lambda work: begun_by_registry(sessions, work),
        )


Peer = Callable[[ExitStack, str], Usage]
"""Makes a package ready for the database at a URL; what has to be undone goes to the stack."""


def _advanced_alchemy(stack: ExitStack, url: str) -> Usage:
    config = import_module("advanced_alchemy.config")
    options = config.SyncSessionConfig(**_OPTIONS)
    sync = config.SQLAlchemySyncConfig(connection_string=url, session_config=options)
    stack.enter_context(disposing(sync.get_engine()))

    @contextmanager
    def begin() -> Generator[Session]:
        with sync.get_session() as session, session.begin():
            yield session

    return Usage.by_blocks(sync.get_session, begin)


def _sqlservice(stack: ExitStack, url: str) -> Usage:
    database = import_module("sqlservice").Database(url, **_OPTIONS)
    stack.callback(database.close)
    return Usage.by_blocks(database.session, database.begin)


def _oslo_db(stack: ExitStack, url: str) -> Usage:
    facade = import_module("oslo_db.sqlalchemy.enginefacade")
    manager = facade.transaction_context()
    manager.configure(connection=url)
    stack.enter_context(disposing(manager.writer.get_engine()))
    request: object = facade.transaction_context_provider(type("Request", (), {}))()
    return Usage.by_blocks(
        lambda: manager.reader.using(request), lambda: manager.writer.using(request)
    )


def _flask_sqlalchemy(stack: ExitStack, url: str) -> Usage:
    app = import_module("flask").Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    database = import_module("flask_sqlalchemy").SQLAlchemy(app, session_options=dict(_OPTIONS))
    stack.enter_context(app.app_context())  # the session is its: one for each, until removed
    stack.enter_context(disposing(database.engine))
    return Usage.by_registry(database.session)


def _flask_sqlalchemy_lite(stack: ExitStack, url: str) -> Usage:
    app = import_module("flask").Flask(__name__)
    app.config["SQLALCHEMY_ENGINES"] = {"default": url}
    lite = import_module("flask_sqlalchemy_lite")
    database = lite.SQLAlchemy(app, session_options=dict(_OPTIONS))
    with app.app_context():
        stack.enter_context(disposing(database.engine))

    @contextmanager
    def opened() -> Generator[Session]:
        with app.app_context():  # whose end is what closes a session
            yield database.session

    @contextmanager
    def begun() -> Generator[Session]:
        with app.app_context(), database.session.begin():
            yield database.session

    return Usage.by_blocks(opened, begun)


def _fastapi_sqla(stack: ExitStack, url: str) -> Usage:
    package = import_module("fastapi_sqla")
    with patch.dict(os.environ, {"sqlalchemy_url": url}), redirect_stdout(StringIO()):
        asyncio.run(package.startup())  # which prints a line of log
    with package.open_session() as session:
        stack.enter_context(disposing(session.get_bind()))
    # A session always ends in a commit: both ways of use are one.
    return Usage.by_blocks(package.open_session, package.open_session)


_PEERS: Final[dict[str, tuple[str, Peer]]] = {
    "advanced-alchemy": ("advanced_alchemy", _advanced_alchemy),
    "sqlservice": ("sqlservice", _sqlservice),
    "fastapi-sqla": ("fastapi_sqla", _fastapi_sqla),
    "Flask-SQLAlchemy": ("flask_sqlalchemy", _flask_sqlalchemy),
    "flask-sqlalchemy-lite": ("flask_sqlalchemy_lite", _flask_sqlalchemy_lite),
    "oslo.db enginefacade": ("oslo_db", _oslo_db),
}
"""By the name that is shown: the package, and how to make it ready."""


NAMES: Final = tuple(_PEERS)


def installed() -> list[str]:
    """Return the names of those that are installed."""
    return [name for name, (package, _) in _PEERS.items() if find_spec(package)]


def missing() -> list[str]:
    """Return the names of those that are not."""
    return [name for name in _PEERS if name not in installed()]


def make_ready(name: str, stack: ExitStack, url: str) -> Usage:
    """Make one of them ready.

    Args:
        name: of the package.
        stack: gets what has to be undone in the end.
        url: the database.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what SQLAlchemy 2.1 says of their code is not ours
        return _PEERS[name][1](stack, url)
