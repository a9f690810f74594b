"""What ``import sessionfactory`` costs, beside SQLAlchemy, which programs import anyway."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from time import perf_counter

from attrs import frozen

from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate

_SQLALCHEMY = "sqlalchemy.orm"
_BARE = "sessionfactory"
_PLUGIN = "sessionfactory, as a pytest plugin"
_FACTORY = "SqlAlchemySessionFactory"
_REGISTRY = "SessionFactoryRegistry"
_NOTHING = "nothing"
_IMPORTS = {
    _SQLALCHEMY: "import sqlalchemy.orm",
    _BARE: "import sessionfactory",
    _PLUGIN: "import sessionfactory, sessionfactory.interfaces, sessionfactory.null",
    _FACTORY: "from sessionfactory import SqlAlchemySessionFactory",
    _REGISTRY: "from sessionfactory import SessionFactoryRegistry",
    _NOTHING: "",
}
_NOTES = (
    "Each sample is a fresh interpreter, with every .pyc in place (`python -I -c …`).",
    '"the import alone" is timed inside the interpreter, around the statement.',
    '"the whole process" is timed outside, from start to end, with the interpreter\'s own start.',
)
_LIGHT = Target("<=", 0.10)
_WHOLE = Target("<=", 1.10)
"""Both of them load SQLAlchemy's ORM as well."""


@frozen(kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int


FULL = Plan(rounds=31)
QUICK = Plan(rounds=3)


@frozen
class Start:
    """One interpreter that started, imported something and ended."""

    imported: float
    whole: float


def measure(plan: Plan) -> Table:
    """Start interpreters in turn, each importing one thing."""
    candidates = {name: partial(_start, statement) for name, statement in _IMPORTS.items()}
    starts = alternate(candidates, plan.rounds)
    unit = Unit("ms", 1e3)
    targets = {_BARE: _LIGHT, _PLUGIN: _LIGHT, _FACTORY: _WHOLE, _REGISTRY: _WHOLE}
    alone = {name: [start.imported for start in starts[name]] for name in (_SQLALCHEMY, *targets)}
    whole = {name: [start.whole for start in starts[name]] for name in (_NOTHING, *alone)}
    return Table(
        name="import_time",
        title="import sessionfactory, in a fresh interpreter",
        notes=_NOTES,
        groups=(
            compare(Question(title="the import alone", unit=unit, targets=targets), alone),
            compare(Question(title="the whole process", unit=unit), whole),
        ),
    )


def _start(statement: str) -> Start:
    code = (
        "from time import perf_counter\n"
        "began = perf_counter()\n"
        f"{statement}\n"
        "print(perf_counter() - began)"
    )
    began = perf_counter()
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    return Start(float(done.stdout), perf_counter() - began)
