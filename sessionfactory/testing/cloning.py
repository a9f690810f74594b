"""A database of its own for every test, cloned from one that was prepared once.

For tests that need real commits, several connections, or DDL:

    with CloningSessionFactory(server.url, Base.metadata, seed=add_users) as cloning:  # once
        with cloning.clone() as sessions:  # in every test
            Signup(sessions).register("ada@example.org")
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, Self

import attrs
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from sessionfactory._sync import SqlAlchemySessionFactory
from sessionfactory.errors import ClosedError
from sessionfactory.settings import DatabaseSettings
from sessionfactory.testing._image import IsolationError, as_metadata, expect_all_closed
from sessionfactory.testing._templates import new_name, templates_for

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from sqlalchemy import URL, Engine, MetaData

S = TypeVar("S", bound=Session, default=Session)

_PATIENCE: Final = 1.0
"""Seconds that other threads have to give their connections back when a test is over."""


class CloningSessionFactory(Generic[S]):
    """Gives each test a database of its own: PostgreSQL from a template, SQLite from an image.

    The template is prepared with the first ``clone()``. One thread clones ahead and drops behind.
    Names of databases are unique to the process, so that several may use one server. Close it, or
    use it as a context manager: it leaves no database behind. Thread-safe.

    Args:
        settings: the server, by a database on it whose user may create others: it is not changed.
            For SQLite ``sqlite://`` will do: each test gets a file in a temporary directory.
        prepare: makes the tables: a metadata, or a function of the template's engine.
        seed: puts rows into them.
        session_class: the class of the sessions.
        ahead: how many clones are made before they are asked for; 0 makes each on demand.

    Raises:
        SettingsError: these settings cannot be used, or this database cannot be copied.
        TypeError: ``prepare`` is neither.
    """

    def __init__(
        self,
        settings: DatabaseSettings | URL | str,
        prepare: MetaData | Callable[[Engine], object],
        *,
        seed: Callable[[S], object] | None = None,
        # As in SqlAlchemySessionFactory, which says why.
        session_class: type[S] = Session,  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        ahead: int = 2,
    ) -> None:
        self._settings = (
            settings if isinstance(settings, DatabaseSettings) else DatabaseSettings(settings)
        )
        self._prepare = _as_function(prepare)
        self._seed = seed
        self._session_class = session_class
        self._ahead = ahead
        self._templates = templates_for(self._settings)
        self._start = new_name()
        self._numbers = count(1)
        self._template: str | None = None
        self._pending: deque[Future[SqlAlchemySessionFactory[S]]] = deque()
        self._databases: dict[str, None] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessionfactory-cloning")

    @contextmanager
    def clone(self) -> Generator[SqlAlchemySessionFactory[S]]:
        """Give a session factory on a database that nobody else uses, and drop it at the end.

        Raises:
            IsolationError: there is no clone; the message has the database's words. Or, at the end,
                a session is still open; it is cut off, and the message says where it was opened.
            ClosedError: ``close()`` was called.
        """
        sessions = self._take()
        try:
            yield sessions
        finally:
            left = sessions.close(timeout=_PATIENCE)
            with self._lock:
                if not self._closed:
                    self._thread.submit(self._drop, sessions.name)
        expect_all_closed(left)

    def close(self) -> None:
        """Drop every database that is left, the template too; idempotent.

        Raises:
            IsolationError: one could not be dropped; the message has the database's words.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._thread.shutdown(cancel_futures=True)
        for future in self._pending:
            if not future.cancelled() and future.exception() is None:
                future.result().close()
        kept: list[str] = []
        for name in list(self._databases):
            try:
                self._drop(name)
            except Exception as error:  # noqa: BLE001 - the others must go all the same
                kept.append(f"{name}: {_words(error)}")
        self._templates.close()
        if kept:
            raise IsolationError("\n  - ".join(["These databases could not be dropped:", *kept]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except IsolationError as kept:
            if error is None:
                raise
            error.add_note(str(kept))  # it may be the reason, and must not hide behind this one

    def __del__(self) -> None:
        closed = getattr(self, "_closed", True)  # absent if the settings were refused
        if not closed and self._databases:
            message = "A CloningSessionFactory was not closed; its databases are left on the server"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    def _take(self) -> SqlAlchemySessionFactory[S]:
        with self._lock:
            if self._closed:
                raise ClosedError("This CloningSessionFactory is closed; it makes no clones")
            if self._template is None:
                self._template = self._make_template()
            while len(self._pending) <= self._ahead:
                name = f"{self._start}_{next(self._numbers)}"
                self._pending.append(self._thread.submit(self._clone, name, self._template))
            first = self._pending.popleft()
        try:
            return first.result()
        except CancelledError:
            message = "This CloningSessionFactory was closed before the clone was made"
            raise ClosedError(message) from None
        except Exception as error:
            message = f"No database could be cloned for this test: {_words(error)}"
            raise IsolationError(message) from error

    def _make_template(self) -> str:
        name = f"{self._start}_template"
        try:
            self._create(name)
        except Exception as error:
            message = f"No template could be made to clone databases from: {_words(error)}"
            raise IsolationError(message) from error
        try:
            with self._factory(name) as sessions:
                self._prepare(sessions.engine)
                if self._seed is not None:
                    with sessions.begin() as session:
                        self._seed(session)
        except BaseException:
            self._drop(name)
            raise
        return name

    def _clone(self, name: str, template: str) -> SqlAlchemySessionFactory[S]:
        self._create(name, template)
        with ExitStack() as stack:
            sessions = stack.enter_context(self._factory(name))
            # Connecting is a part of it: the first connection to a new database is the slowest.
            sessions.engine.connect().close()
            stack.pop_all()
        return sessions

    def _factory(self, name: str) -> SqlAlchemySessionFactory[S]:
        settings = attrs.evolve(self._settings, url=self._templates.url(name))
        return SqlAlchemySessionFactory(settings, name=name, session_class=self._session_class)

    def _create(self, name: str, template: str | None = None) -> None:
        self._databases[name] = None  # before it is there: whatever fails now, it will be dropped
        self._templates.create(name, template)

    def _drop(self, name: str) -> None:
        self._templates.drop(name)
        del self._databases[name]


def _as_function(prepare: MetaData | Callable[[Engine], object]) -> Callable[[Engine], object]:
    if isinstance(prepare, type) or not callable(prepare):
        return as_metadata(prepare).create_all
    return prepare


def _words(error: Exception) -> str:
    """Return what the database said, without SQLAlchemy's wrapping."""
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
