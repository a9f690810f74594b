"""A database of its own for every test, cloned from one that was prepared once.

For tests that need real commits, several connections, or DDL:

    with CloningSessionFactory(server.url, Base.metadata, seed=add_users) as cloning:  # once
        with cloning.clone() as sessions:  # in every test
            Signup(sessions).register("ada@example.org")
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Generic, Self

import attrs
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.sessions.factory import SqlAlchemySessionFactory
from sessionfactory.testing.cloning._admin import Admin
from sessionfactory.testing.cloning._cloner import PATIENCE, Cloner
from sessionfactory.testing.cloning._templates import templates_for
from sessionfactory.testing.memory._image import (
    IsolationError,
    as_metadata,
    as_seed,
    expect_all_closed,
)
from sessionfactory.testing.memory._tables import create_all

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from sqlalchemy import URL, Engine, MetaData

S = TypeVar("S", bound=Session, default=Session)


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
        TypeError: ``prepare`` is neither, or ``seed`` is a coroutine function.
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
        self._seed = as_seed(seed)
        self._session_class = session_class
        self._templates = templates_for(self._settings, Admin)
        self._cloner = Cloner(self._templates, self._ready, ahead)

    @contextmanager
    def clone(self) -> Generator[SqlAlchemySessionFactory[S]]:
        """Give a session factory on a database that nobody else uses, and drop it at the end.

        Raises:
            IsolationError: there is no clone; the message has the database's words. Or, at the end,
                a session is still open; it is cut off, and the message says where it was opened.
            ClosedError: ``close()`` was called.
        """
        self._expect_template()
        sessions = self._take()
        try:
            yield sessions
        finally:
            try:
                left = sessions.close(timeout=PATIENCE)
            finally:
                self._cloner.drop(sessions.name)
        expect_all_closed(left)

    def close(self) -> None:
        """Drop every database that is left, the template too; idempotent.

        Raises:
            IsolationError: one could not be dropped; the message has the database's words.
        """
        stopped = self._cloner.stop()
        if stopped is None:
            return
        try:
            for sessions in stopped.result():
                sessions.close()
        finally:
            ended = self._cloner.end()
        ended.result()

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
        cloner = getattr(self, "_cloner", None)  # absent if the settings were refused
        if cloner is not None and cloner.leaves_databases:
            message = f"{type(self).__name__} was not closed; its databases are left on the server"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    def _expect_template(self) -> None:
        """Have one caller prepare the template, while the others wait; if he fails, the next."""
        while (attempt := self._cloner.attempt()) is not None:
            if attempt.result():
                return
        template: str | None = None
        try:
            template = self._make_template()
        finally:
            self._cloner.end_attempt(template)

    def _make_template(self) -> str:
        name = self._cloner.create().result()
        try:
            with self._factory(name) as sessions:
                self._prepare(sessions.engine)
                if self._seed is not None:
                    with sessions.begin() as session:
                        self._seed(session)
        except BaseException:
            self._cloner.drop(name)
            raise
        return name

    def _take(self) -> SqlAlchemySessionFactory[S]:
        clone = self._cloner.take()
        try:
            return clone.result()
        except KeyboardInterrupt:
            self._cloner.give_back(clone)
            raise

    def _ready(self, name: str) -> SqlAlchemySessionFactory[S]:
        with ExitStack() as stack:
            sessions = stack.enter_context(self._factory(name))
            # Connecting is a part of it: the first connection to a new database is the slowest.
            sessions.engine.connect().close()
            stack.pop_all()
        return sessions

    def _factory(self, name: str) -> SqlAlchemySessionFactory[S]:
        settings = attrs.evolve(self._settings, url=self._templates.url(name))
        return SqlAlchemySessionFactory(settings, name=name, session_class=self._session_class)


def _as_function(prepare: MetaData | Callable[[Engine], object]) -> Callable[[Engine], object]:
    if isinstance(prepare, type) or not callable(prepare):
        return partial(create_all, as_metadata(prepare))
    if iscoroutinefunction(prepare):
        raise TypeError("prepare is a coroutine function, as AsyncCloningSessionFactory has it")
    return prepare
