"""One session in several threads: who is let in, who is refused, and what becomes of the work."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    SessionTransaction,
    mapped_column,
)

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    SharedSessionError,
    SqlAlchemySessionFactory,
)
from sessionfactory.sessions.guarded_session import CALLS, GuardedTransaction, guarded
from tests.support.sqlite_pools import until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sessionfactory.testing import PostgresServer

ONE: Final = text("SELECT 1")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "shared_item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


ALL: Final = select(Item.id)


class OwnSession(Session):
    """A user's."""

    def add_and_flush(self, item: object) -> None:
        """Do two things in one."""
        super().add(item)
        self.flush()


@pytest.fixture
def items(factory: SqlAlchemySessionFactory) -> SqlAlchemySessionFactory:
    """A factory whose database has the items' table."""
    Base.metadata.create_all(factory.engine)
    return factory


def run_in_thread(work: Callable[[], object], name: str = "other") -> None:
    """Do something in a thread, and wait for it."""
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(_named, name, work).result()


def _named(name: str, work: Callable[[], object]) -> None:
    threading.current_thread().name = name
    work()


@contextmanager
def inside(
    session: Session, work: Callable[[], object], *, on: str = "do_orm_execute", name: str = "first"
) -> Generator[None]:
    """Have a thread be inside a call of the session for as long as the block runs."""
    entered, leave = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        entered.set()
        assert leave.wait(30)

    event.listen(session, on, wait)
    with futures.ThreadPoolExecutor(1) as pool:
        visit = pool.submit(_named, name, work)
        assert entered.wait(30)
        try:
            yield
        finally:
            leave.set()
            futures.wait([visit])
            event.remove(session, on, wait)
            visit.result()


ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("add", "delete", "merge", "expire", "expunge", "refresh"), (Item(id=0),)),
    **dict.fromkeys(("add_all", "bulk_save_objects", "delete_all", "merge_all"), ([Item(id=0)],)),
    **dict.fromkeys(("bulk_insert_mappings", "bulk_update_mappings"), (Item, [{"id": 0}])),
    **dict.fromkeys(("execute", "scalar", "scalars"), (ONE,)),
    **dict.fromkeys(("get", "get_one"), (Item, 0)),
    "enable_relationship_loading": (Item(id=0),),
}
PRESENT: Final = sorted(call for call in CALLS if hasattr(Session, call))


@pytest.mark.parametrize("call", [*PRESENT, "begin", "begin_nested"])
def test_a_call_while_another_thread_is_inside_is_refused(
    items: SqlAlchemySessionFactory, call: str
) -> None:
    """Both threads are named, the cure is told, and what the first one does is not disturbed."""
    arguments = ARGUMENTS.get(call, ())
    told = {"begin_nested": "begin"}.get(call, call)
    with items() as session:
        session.add(Item(id=1))
        session.flush()
        with (
            inside(session, lambda: session.execute(insert(Item).values(id=2))),
            pytest.raises(SharedSessionError) as caught,
        ):
            getattr(session, call)(*arguments)
        session.commit()

    assert str(caught.value) == (
        f"The thread 'MainThread' calls {told}() of a session while the thread 'first' is inside"
        " its execute(). A session is for one thread at a time: inject the factory, open one"
        " session per thread."
    )
    with items() as session:
        assert set(session.scalars(ALL)) == {1, 2}


@pytest.mark.parametrize("arguments", [None, (None, None, None)])
def test_a_close_while_another_thread_is_inside_is_made_up_for(
    items: SqlAlchemySessionFactory, arguments: tuple[None, None, None] | None
) -> None:
    """The close is refused, and the connection is returned when the other call leaves."""
    session = items()
    session.add(Item(id=1))
    session.flush()
    with (
        inside(session, lambda: session.execute(insert(Item).values(id=2))),
        pytest.raises(SharedSessionError, match=r"calls close\(\) of a session while the thread"),
    ):
        if arguments is None:
            session.close()
        else:
            session.__exit__(*arguments)
    assert items.status().in_use == 0
    with pytest.raises(ClosedError, match=r"commit\(\) of a session after its scope"):
        session.commit()
    with items() as session:
        assert set(session.scalars(ALL)) == set()


def test_the_error_of_a_scope_is_not_replaced(items: SqlAlchemySessionFactory) -> None:
    """A scope that fails while another thread is inside raises its own error, and is closed."""
    for scope in (items.begin(), items()):
        with (
            pytest.raises(ValueError, match="mine"),
            contextlib.ExitStack() as other,
            scope as session,
        ):
            session.execute(ONE)
            other.enter_context(inside(session, lambda session=session: session.execute(ONE)))  # type: ignore[misc]  # a default
            raise ValueError("mine")
        assert items.status().in_use == 0


def test_a_transaction_whose_rollback_was_refused_is_rolled_back(
    items: SqlAlchemySessionFactory,
) -> None:
    """The session goes on after ``with session.begin():`` failed beside another call."""
    with items() as session:
        with (
            pytest.raises(ValueError, match="mine"),
            contextlib.ExitStack() as other,
            session.begin(),
        ):
            session.add(Item(id=1))
            session.flush()
            other.enter_context(inside(session, lambda: session.execute(ONE)))
            raise ValueError("mine")
        assert not session.in_transaction()
        assert list(session.scalars(ALL)) == []


def test_every_call_has_been_judged() -> None:
    """Each method of ``Session`` is listed as guarded or as free; a new one fails this test."""
    reading = {"get_bind", "get_nested_transaction", "get_transaction", "identity_key"}
    reading |= {"in_nested_transaction", "in_transaction", "is_modified", "object_session", "query"}
    setting_up = {"bind_mapper", "bind_table"}
    elsewhere = {"begin", "begin_nested", "close", "close_all", "expunge_all"}
    calls = {name for name in dir(Session) if not name.startswith("_")}
    calls = {name for name in calls if callable(getattr(Session, name))}

    assert calls - reading - setting_up - elsewhere == set(PRESENT)


@pytest.mark.parametrize(
    ("on", "call", "error"),
    [("before_commit", "commit", None), ("after_rollback", "rollback", KeyError)],
)
def test_the_end_of_a_scope_is_a_call(
    items: SqlAlchemySessionFactory, on: str, call: str, error: type[Exception] | None
) -> None:
    """Who ends a transaction is inside, be it the factory's scope that does so."""
    session = items()
    other = items()

    def scope() -> None:
        with session, session.begin():
            session.execute(insert(Item).values(id=1))
            if error is not None:
                raise error

    try:
        with inside(session, scope, on=on), pytest.raises(SharedSessionError, match=f"its {call}"):
            session.execute(ONE)
    except KeyError:
        assert error is KeyError

    with other:
        assert other.scalars(ALL).all() == ([1] if error is None else [])


def test_a_savepoint_ends_by_a_call(items: SqlAlchemySessionFactory) -> None:
    """A savepoint is guarded as a transaction is."""
    with items.begin() as session:
        savepoint = session.begin_nested()
        session.execute(insert(Item).values(id=1))
        with (
            inside(session, savepoint.commit, on="before_commit"),
            pytest.raises(SharedSessionError),
        ):
            session.rollback()
    with items() as session:
        assert session.scalars(ALL).all() == [1]


def test_nested_calls_are_one_visit(items: SqlAlchemySessionFactory) -> None:
    """What listeners do inside a call is the same thread's, and the visit ends with the first."""
    with items() as session:

        @event.listens_for(session, "before_flush")
        def add_another(*_: object) -> None:
            session.add(Item(id=2))
            with session.no_autoflush:
                session.execute(ONE)

        @event.listens_for(session, "before_commit")
        def look(_: Session) -> None:
            session.flush()
            assert set(session.scalars(ALL)) == {1, 2}

        session.add(Item(id=1))
        session.commit()
        event.remove(session, "before_flush", add_another)
        run_in_thread(lambda: session.execute(ONE))


def test_a_session_goes_from_one_to_another(items: SqlAlchemySessionFactory) -> None:
    """Between two calls it may: one begins, another works, a third ends the transaction."""
    scope = items.begin()
    opened: list[Session] = []
    run_in_thread(lambda: opened.append(scope.__enter__()))
    run_in_thread(lambda: opened[0].execute(insert(Item).values(id=1)))
    opened[0].add(Item(id=2))
    run_in_thread(lambda: scope.__exit__(None, None, None))

    with items() as session:
        assert set(session.scalars(ALL)) == {1, 2}


def test_a_call_that_fails_ends_the_visit(items: SqlAlchemySessionFactory) -> None:
    """An error lets the next one in."""
    with items() as session:
        with pytest.raises(InvalidRequestError):
            session.refresh(Item(id=0))
        with pytest.raises(ZeroDivisionError), session.begin():
            raise ZeroDivisionError
        run_in_thread(lambda: session.execute(ONE))


def test_begin_is_sqlalchemys(items: SqlAlchemySessionFactory) -> None:
    """What ``begin`` returns is what it would have been, and a second one is SQLAlchemy's error."""
    plain = Session(items.engine)
    with items() as session:
        mine, theirs = session.begin(), plain.begin()
        for transaction, of in ((mine, session), (theirs, plain)):
            assert transaction is of.get_transaction()
            assert isinstance(transaction, SessionTransaction)
        kept = {"_connections", "session", "_new", "_deleted", "_dirty", "_key_switches"}
        assert {k: v for k, v in vars(mine).items() if k not in kept} == {
            k: v for k, v in vars(theirs).items() if k not in kept
        }
        with pytest.raises(InvalidRequestError, match="already begun"):
            session.begin()
        assert type(session.begin_nested()) is GuardedTransaction
    plain.close()


def test_a_transaction_keeps_the_class_that_a_listener_gave_it(
    items: SqlAlchemySessionFactory,
) -> None:
    """The fakes of this package do so, and others may."""

    class Theirs(SessionTransaction):
        pass

    with items() as session:

        @event.listens_for(session, "after_transaction_create")
        def change(_: Session, transaction: SessionTransaction) -> None:
            transaction.__class__ = Theirs

        assert type(session.begin()) is Theirs
        assert type(session.begin_nested()) is Theirs


def test_of_many_threads_one_is_inside(items: SqlAlchemySessionFactory) -> None:
    """Threads that race to enter do not get in together, and nothing else goes wrong."""
    within: list[int] = []
    refused: list[SharedSessionError] = []

    def visit(*_: object) -> None:
        within.append(1)
        until(lambda: bool(refused))  # none leaves before another one has come
        assert len(within) == 1
        within.pop()

    def race() -> None:
        for _ in range(300):
            try:
                session.execute(ONE)
            except SharedSessionError as error:
                refused.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with items() as session, futures.ThreadPoolExecutor(4) as pool:
            event.listen(session, "do_orm_execute", visit)
            for done in [pool.submit(race) for _ in range(4)]:
                done.result()
    finally:
        sys.setswitchinterval(switch)


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Generator[str]:
    """The URL of a PostgreSQL with an empty items' table."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as factory:
        Base.metadata.create_all(factory.engine)
        yield postgres_server.url
        Base.metadata.drop_all(factory.engine)


def in_four_threads(work: Callable[[int], object]) -> tuple[set[int], set[int]]:
    """Have four threads do their work for one number after the other; say which did and did not."""
    done: set[int] = set()
    refused: set[int] = set()
    start = threading.Barrier(4)

    def run(first: int) -> None:
        start.wait()
        for number in range(first, 200, 4):
            try:
                work(number)
            except SharedSessionError:
                refused.add(number)
            else:
                done.add(number)

    with futures.ThreadPoolExecutor(4) as pool:
        for running in [pool.submit(run, first) for first in range(4)]:
            running.result()
    return done, refused


def rows(url: str) -> set[int]:
    """Return what is committed."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory, factory() as session:
        return set(session.scalars(ALL))


def test_four_threads_write_what_they_are_told_they_wrote(postgres: str) -> None:
    """A call that returns did its work, whole, and one that was refused did nothing."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres)) as factory, factory() as session:
        done, refused = in_four_threads(lambda n: session.execute(insert(Item).values(id=n)))
        session.commit()

    assert done
    assert refused
    assert rows(postgres) == done


def test_four_threads_lose_nothing_that_they_committed(postgres: str) -> None:
    """Where the work is many calls, others come in between, but nothing else goes wrong."""

    def work(number: int) -> None:
        session.add(Item(id=number))
        session.flush()
        assert session.scalar(select(Item.id + 1).where(Item.id == number)) == number + 1
        session.commit()

    with SqlAlchemySessionFactory(DatabaseSettings(postgres)) as factory, factory() as session:
        done, _ = in_four_threads(work)

    assert done <= rows(postgres)


def test_a_thread_of_nobody_is_named_by_its_number(items: SqlAlchemySessionFactory) -> None:
    """What is not ``threading``'s has no name."""
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()
    with items() as session:

        @event.listens_for(session, "do_orm_execute", once=True)
        def wait(_: object) -> None:
            entered.set()
            leave.wait(30)

        def visit() -> None:
            session.execute(ONE)
            ended.set()

        number = _thread.start_new_thread(visit, ())
        assert entered.wait(30)
        with pytest.raises(SharedSessionError, match=f"while the thread {number} is inside"):
            session.execute(ONE)
        leave.set()
        assert ended.wait(30)


def test_a_task_goes_before_its_thread(items: SqlAlchemySessionFactory) -> None:
    """A thread that runs an event loop is named by what it runs."""

    async def execute(session: Session) -> None:
        asyncio.current_task().set_name("job")  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        session.execute(ONE)

    with (
        items() as session,
        inside(session, lambda: asyncio.run(execute(session))),
        pytest.raises(SharedSessionError, match="while the task 'job' is inside"),
    ):
        session.execute(ONE)


def test_a_callback_of_a_loop_is_its_threads(items: SqlAlchemySessionFactory) -> None:
    """Where a loop runs and no task does, it is the thread that calls."""

    async def call_soon(session: Session) -> None:
        called = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: called.set_result(session.scalar(ONE)))
        assert await called == 1

    with (
        items() as session,
        inside(session, lambda: asyncio.run(call_soon(session))),
        pytest.raises(SharedSessionError, match="while the thread 'first' is inside"),
    ):
        session.execute(ONE)


def test_the_class_looks_like_the_users(items: SqlAlchemySessionFactory) -> None:
    """It is a subclass of the same name, place and description, made once."""
    made = guarded(OwnSession)

    assert issubclass(made, OwnSession)
    assert made is guarded(OwnSession)
    for cls in (OwnSession, Session):
        looks = guarded(cls)
        assert (looks.__name__, looks.__qualname__) == (cls.__name__, cls.__qualname__)
        assert (looks.__module__, looks.__doc__) == (cls.__module__, cls.__doc__)
        assert repr(looks) == repr(cls)
    assert items.session_class is Session
    assert Session.execute.__doc__ == guarded(Session).execute.__doc__


def test_classes_go_with_their_last_user() -> None:
    """Neither the user's class nor ours is kept."""

    class Short(Session):
        pass

    gone = weakref.ref(guarded(Short)), weakref.ref(Short)
    del Short
    gc.collect()
    gc.collect()  # the user's class is let go when ours is gone

    assert [reference() for reference in gone] == [None, None]


def test_what_the_user_wrote_is_kept(items: SqlAlchemySessionFactory) -> None:
    """``__init__``, ``__slots__``, overrides and methods of a user pass through the guard."""

    class Mine(OwnSession):
        __slots__ = ("seen",)
        seen: list[str]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.seen = []

        def execute(self, *args: Any, **kwargs: Any) -> Any:
            self.seen.append("execute")
            return super().execute(*args, **kwargs)

        def close(self) -> None:
            self.seen.append("close")
            super().close()

        def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002
            self.seen.append("begin")
            return super().begin(nested)

    with guarded(Mine)(items.engine) as session:
        with session.begin():
            session.add_and_flush(Item(id=1))
            session.execute(ONE)
        with (
            inside(session, lambda: session.execute(ONE)),
            pytest.raises(SharedSessionError, match=r"calls add\(\)"),
        ):
            session.add_and_flush(Item(id=2))

    assert session.seen == ["begin", "execute", "execute", "close"]


def test_listeners_to_the_users_class_hear(items: SqlAlchemySessionFactory) -> None:
    """Whether they came before the guard or after it."""
    heard: list[str] = []

    class Mine(Session):
        pass

    @event.listens_for(Mine, "before_flush")
    def before(*_: object) -> None:
        heard.append("before")

    made = guarded(Mine)

    @event.listens_for(Mine, "before_flush")
    def after(*_: object) -> None:
        heard.append("after")

    with made(items.engine) as session:
        session.add(Item(id=1))
        session.flush()

    assert heard == ["before", "after"]


@pytest.mark.parametrize("call", ["execute", "close", "begin"])
def test_patches_of_session_are_seen(
    factory: SqlAlchemySessionFactory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A patch of ``Session`` in a test is a patch of our sessions, too."""
    seen: list[str] = []

    def patched(*_: object) -> None:
        seen.append(call)

    with factory() as session:
        with monkeypatch.context() as patch:
            session.execute(ONE)
            patch.setattr(Session, call, patched)
            getattr(session, call)(*ARGUMENTS.get(call, ()))
        session.close()

    assert seen == [call]


def test_close_of_a_session_that_holds_something(items: SqlAlchemySessionFactory) -> None:
    """Whatever a session holds, it has let go of when it is closed."""
    with items() as session:
        session.add(item := Item(id=1))
    assert item not in session
    with items.begin() as session:
        session.add(item)
        session.close()
    assert item not in session
    with items.begin() as session:
        session.add(item)
    with items() as session:
        loaded = session.get_one(Item, 1)
        session.rollback()
        session.delete(loaded)
        assert list(session.deleted) == [loaded]
    assert (loaded in session, list(session.deleted)) == (False, [])


def test_close_of_a_session_that_cannot_be_used_again(url: str) -> None:
    """A session that holds nothing is closed for good, too."""
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        session = factory()
        session.close()
        with pytest.raises(ClosedError, match=r"execute.* after its scope: it is closed"):
            session.execute(ONE)


@pytest.mark.parametrize("resets", [True, False])
def test_close_of_a_session_without_work_is_sqlalchemys(*, resets: bool) -> None:
    """A session in which nothing happened is after its close as SQLAlchemy's would be."""
    plain = Session(close_resets_only=resets)
    ours = guarded(Session)(close_resets_only=resets)
    plain.close()
    ours.close()
    expected: dict[str, object] = {name: type(value) for name, value in vars(plain).items()}
    found: dict[str, object] = {name: type(value) for name, value in vars(ours).items()}
    own = {name for name in found if name.startswith("sessionfactory_")}
    caches = {"dispatch"}  # made on first access
    assert found.keys() - own - caches == expected.keys() - caches
    assert all(found[name] is expected[name] for name in expected.keys() - caches)
    assert vars(ours)["_close_state"] is vars(plain)["_close_state"]


def test_close_calls_what_a_class_overrides(url: str) -> None:
    """A class that wants to hear of every ``expunge_all()`` does."""
    heard: list[Session] = []

    class Hearing(Session):
        def expunge_all(self) -> None:
            heard.append(self)
            super().expunge_all()

    with SqlAlchemySessionFactory(DatabaseSettings(url), session_class=Hearing) as factory:
        session = factory()
        session.close()
        assert heard == [session]


def test_threads_of_another_class_are_named(
    items: SqlAlchemySessionFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gevent replaces ``threading.Thread``, and not the threads that are there already."""
    monkeypatch.setattr(threading, "Thread", type("Thread", (threading.Thread,), {}))
    with (
        items() as session,
        inside(session, lambda: session.execute(ONE)),
        pytest.raises(SharedSessionError, match="The thread 'MainThread' calls execute"),
    ):
        session.execute(ONE)
