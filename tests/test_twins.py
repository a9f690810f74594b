"""The async files hold only what differs by ``await``: without it, both halves read the same."""

from __future__ import annotations

import ast
import re
from difflib import ndiff
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(__file__).parents[1] / "sessionfactory"

# What the async half calls otherwise: regular expressions over its source without docstrings.
RENAMES: Final = {
    r"\ban Async(?=[A-Z])": "a ",  # prose: "an AsyncSession"
    r"Async(?=[A-Z])": "",  # AsyncSession, AbstractAsyncContextManager
    r"async_(?=session_factory|work)": "",  # check_async_session_factory
    r"\b(run_in_transaction|retry|lend|side_by_side)_async\b": r"\1",  # functions
    r"asynccontextmanager": "contextmanager",
    r"\baclose\b": "close",
    r"__a(?=enter__|exit__)": "__",
    r"\bA(?=_co\b|\b(?! [a-z]))": "S",  # the type variables; not the article
    r"\bAwaitable\[T\]": "T",
    r"another([_ ])task": r"another\1thread",
    r"\b(asyncio\.)?CancelledError\b": "KeyboardInterrupt",  # what strikes a block from outside
}

_IN_ONE_GREENLET: Final = "the async half does all of it in one greenlet"
_KEPT: Final = "an AsyncEngine is made from the engine, once, and kept"
_BOTH: Final = "it serves both halves"
_CANCELLED: Final = "tasks are cancelled, and threads are not: `lasting`"
_OWN_BIND: Final = "an AsyncSession has a bind of its own, an AsyncConnection"
_NO_AWAIT: Final = "__init__ cannot await, so that the sync twin prepares the content for both"


@frozen
class Twins:
    """Two files, or the halves of one; what in them may differ, each with its reason."""

    sync_file: str
    async_file: str
    exempt: dict[str, str] = field(factory=dict[str, str])

    def __str__(self) -> str:
        return self.async_file


PAIRS: Final = (
    Twins(
        "interfaces.py",
        "interfaces.py",
        dict.fromkeys(("Half", "_ProtocolMeta", "_Interface", "makes_sessions", "half_of"), _BOTH),
    ),
    Twins("null.py", "null.py"),
    Twins(
        "sessions/scope.py",
        "sessions/scope_async.py",
        {
            "TransactionScope.__enter__": _IN_ONE_GREENLET,
            "TransactionScope._begin": _IN_ONE_GREENLET,
            "T": "of TransactionScope.run_sync",
            "TransactionScope.run_sync": "run_sync_in_transaction is of the async half",
            "TransactionScope.__exit__": f"{_IN_ONE_GREENLET}, to the end, even if cancelled",
            "TransactionScope._end": _IN_ONE_GREENLET,
        },
    ),
    Twins(
        "sessions/factory.py",
        "sessions/factory_async.py",
        {
            "SqlAlchemySessionFactory.__attrs_post_init__": "says which half it is",
            "SqlAlchemySessionFactory._engine": _KEPT,
            "SqlAlchemySessionFactory.engine": _KEPT,
            "SqlAlchemySessionFactory.start_close": f"{_KEPT} until then",
            "SqlAlchemySessionFactory.sessionmaker": "each names SQLAlchemy's class of its half",
            "SqlAlchemySessionFactory._opener": "its sessions are of the lasting class",
        },
    ),
    Twins(
        "sessions/session_maker.py",
        "sessions/session_maker_async.py",
        {
            "keywords_of": _BOTH,
            "FactorySessionmaker": "each derives from SQLAlchemy's class of its half",
            "FactorySessionmaker.__init__": _KEPT,
            "FactorySessionmaker._open_to_write": _KEPT,
        },
    ),
    Twins(
        "registry/registry.py",
        "registry/registry_async.py",
        {
            "SessionFactoryRegistry._set_up": "names its half",
            "SessionFactoryRegistry.sessionmaker": "each names SQLAlchemy's class of its half",
        },
    ),
    Twins(
        "transactions/retry.py",
        "transactions/retry_async.py",
        {
            "_attempt": "what the work returns is awaited, if it can be",
            **dict.fromkeys(
                (
                    *("run_sync_in_transaction", "_attempt_sync", "_scope", "_to_the_end"),
                    *("_Scope", "_Scope.run_sync"),
                ),
                "a plain function as the work is of the async half",
            ),
        },
    ),
    Twins(
        "testing/conformance/conformance.py",
        "testing/conformance/conformance_async.py",
        {"_another_thread_can_use_it": "it starts a thread there, and a task here"},
    ),
    Twins(
        "testing/recording/recording.py",
        "testing/recording/recording_async.py",
        {"Recording": "both halves share it"},
    ),
    Twins(
        "testing/rollback/rollback.py",
        "testing/rollback/rollback_async.py",
        {
            "R": "of _to_the_end",
            "_to_the_end": _CANCELLED,
            "RollbackSessionFactory.savepoint": f"{_CANCELLED}, but its end runs to the end",
            "RollbackSessionFactory._connection": _OWN_BIND,
            "RollbackSessionFactory.__call__": _OWN_BIND,
            "RollbackSessionFactory.__enter__": _OWN_BIND,
            "RollbackSessionFactory.__exit__": "a task that is cancelled here finishes it",
        },
    ),
    Twins(
        "testing/memory/memory.py",
        "testing/memory/memory_async.py",
        {
            "InMemorySessionFactory.__init__": _NO_AWAIT,
            "InMemorySessionFactory._prepare": _NO_AWAIT,
        },
    ),
    Twins(
        "testing/cloning/cloning.py",
        "testing/cloning/cloning_async.py",
        {
            "CloningSessionFactory.__init__": "the halves reach the server in different ways,"
            " and a clone's connections belong to the loop of the test, so none is opened ahead",
            "CloningSessionFactory._ready": "opens the first connection ahead",
            "_as_function": "create_all is no coroutine function",
        },
    ),
)
ALONE: Final = {
    "testing/cloning/_admin_async.py": "is used like its twin, and runs an event loop of its own",
    "testing/pytest_support/_databases_async.py": "reads the registry of the sync half",
}


class Synchronous(ast.NodeTransformer):
    """Drops ``async`` and ``await``, and what leads from the async half of SQLAlchemy to the sync.

    Docstrings go, too. Run over the sync half, it changes the shape of what is the same in both.
    """

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(ast.FunctionDef(**vars(node)))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        return self.visit_With(ast.With(**vars(node)))

    def visit_With(self, node: ast.With) -> ast.AST:
        # One at a time: ``with a, b:`` is two statements where only one of them is awaited.
        if len(node.items) > 1:
            node.body = [ast.With(node.items[1:], node.body)]
            node.items = node.items[:1]
        return self.generic_visit(node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)  # type: ignore[no-any-return]  # a node for a node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if node.attr in {"sync_session", "sync_engine"}:
            return self.visit(node.value)  # type: ignore[no-any-return]  # a node for a node
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # What runs in a greenlet is written as in the sync half.
        match node:
            case ast.Call(ast.Name("greenlet_spawn"), [function, *arguments]):
                node = ast.Call(function, arguments, node.keywords)
            case ast.Call(ast.Attribute(session, "run_sync"), [function, *arguments]):
                node = ast.Call(function, [session, *arguments], node.keywords)
            case ast.Call(
                ast.Attribute(_, "shield"), [ast.Call(ast.Attribute(_, "wrap_future"), [future])]
            ):
                node = ast.Call(ast.Attribute(future, "result"), [], [])
            case _:
                pass
        return self.generic_visit(node)


def definitions(file: str) -> dict[str, str]:
    """Return what a file defines, by name, without what makes it async; in its order."""
    tree = Synchronous().visit(ast.parse((PACKAGE / file).read_text()))
    found: dict[str, str] = {}
    for name, node in named(tree.body):  # a name may be defined twice: a property and its setter
        text = ast.unparse(ast.fix_missing_locations(node))
        found[name] = f"{found[name]}\n{text}" if name in found else text
    return found


def as_sync(text: str) -> str:
    """Return the sync half's names for what is named in a text."""
    for pattern, replacement in RENAMES.items():
        text = re.sub(pattern, replacement, text)
    return text


def named(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield definitions, the members of classes apart; imports follow from what is used."""
    for node in body:
        match node:
            case ast.If(ast.Name("TYPE_CHECKING")):
                yield from named(node.body)
            case ast.ClassDef():
                yield (
                    node.name,
                    ast.ClassDef(
                        node.name, node.bases, node.keywords, [ast.Pass()], node.decorator_list
                    ),
                )
                yield from ((f"{node.name}.{name}", member) for name, member in named(node.body))
            case ast.FunctionDef():
                yield node.name, node
            case ast.AnnAssign(target) | ast.Assign([target]):
                yield ast.unparse(target), node
            case ast.Import() | ast.ImportFrom() | ast.Expr():
                pass
            case _:
                raise AssertionError(ast.unparse(node))


def halves(twins: Twins) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the sync and the async half of a pair define, under the sync half's names."""
    mine, theirs = definitions(twins.sync_file), definitions(twins.async_file)
    if twins.sync_file == twins.async_file:
        mine = {name: text for name, text in mine.items() if as_sync(name) == name}
        theirs = {name: text for name, text in theirs.items() if as_sync(name) != name}
    return mine, {as_sync(name): as_sync(text) for name, text in theirs.items()}


def differences(twins: Twins) -> dict[str, str]:
    """Return what differs between two halves, by name, each as people read it."""
    mine, theirs = halves(twins)
    return {
        name: "\n".join(ndiff(mine.get(name, "").split("\n"), theirs.get(name, "").split("\n")))
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    }


def covers(exemption: str, name: str) -> bool:
    """Say whether an exemption is for a definition: itself, or a member of it."""
    return f"{name}.".startswith(f"{exemption}.")


@pytest.mark.parametrize("twins", PAIRS, ids=str)
def test_twins_are_equal(twins: Twins) -> None:
    """Whatever is not exempt is the same in both halves: a change of one is made to the other."""
    found = "\n\n".join(
        f"{name}:\n{text}"
        for name, text in differences(twins).items()
        if not any(covers(exemption, name) for exemption in twins.exempt)
    )

    assert not found, found


@pytest.mark.parametrize("twins", PAIRS, ids=str)
def test_twins_have_one_order(twins: Twins) -> None:
    """Both halves define their parts in the same order, so that they are read side by side."""
    mine, theirs = halves(twins)

    assert [name for name in mine if name in theirs] == [name for name in theirs if name in mine]


@pytest.mark.parametrize(
    ("twins", "exemption"),
    [(twins, exemption) for twins in PAIRS for exemption in twins.exempt],
    ids=str,
)
def test_every_exemption_is_used(twins: Twins, exemption: str) -> None:
    """An exemption for what does not differ, or is not there any more, fails."""
    assert any(covers(exemption, name) for name in differences(twins))


@pytest.mark.parametrize("pattern", RENAMES)
def test_every_rename_is_used(pattern: str) -> None:
    """A rename that no async file needs any more fails."""
    found = [item for twins in PAIRS for item in definitions(twins.async_file).items()]

    assert any(re.search(pattern, text) for item in found for text in item)


def test_every_async_file_has_its_twin() -> None:
    """A new async file needs a line in the table, where a reviewer sees it."""
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*_async.py")}

    assert found - ALONE.keys() == {
        twins.async_file for twins in PAIRS if twins.async_file != twins.sync_file
    }
    assert ALONE.keys() <= found


@pytest.mark.parametrize("twins", PAIRS, ids=str)
def test_an_async_twin_says_whose_it_is(twins: Twins) -> None:
    """The docstring of a public twin begins with the name of the one that explains the rest."""
    mine, _ = halves(twins)
    public = {
        node.name: ast.get_docstring(node) or ""
        for node in ast.parse((PACKAGE / twins.async_file).read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and as_sync(node.name) != node.name
    }

    assert public
    for name, documentation in public.items():
        assert as_sync(name) in mine
        assert documentation.startswith(f"Async twin of ``{as_sync(name)}``"), name


@pytest.mark.parametrize(
    ("in_sync", "in_async"),
    [
        ("return f(x)", "return await f(x)"),
        ("return f(x, k=1)", "return await greenlet_spawn(f, x, k=1)"),
        ("return f(session, x)", "return await session.run_sync(f, x)"),
        ("with a, b as c:\n  d()", "with a:\n  async with b as c:\n   await d()"),
        ("return f.result()", "return await asyncio.shield(asyncio.wrap_future(f))"),
        ("return session.in_transaction()", "return session.sync_session.in_transaction()"),
        ("return cast('S', Session)", "return cast('A', AsyncSession)"),
        ("self.close()", "await self.aclose()"),
    ],
)
def test_what_differs_by_await_is_no_difference(
    tmp_path: Path, in_sync: str, in_async: str
) -> None:
    """Await and what goes with it are no difference, and anything else is."""
    mine, theirs, other = (tmp_path / name for name in ("sync.py", "async.py", "other.py"))
    mine.write_text(f"def f():\n {in_sync}")
    theirs.write_text(f"async def f():\n 'Async twin.'\n {in_async}")
    other.write_text(f"async def f():\n {in_async}\n return 0")

    assert differences(Twins(str(mine), str(theirs))) == {}
    assert [*differences(Twins(str(mine), str(other)))] == ["f"]
