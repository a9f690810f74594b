"""What a new user meets after `pip install` of the bare wheel: run by `make wheel-check`.

It is run with the Python of an environment that has the wheel and its dependencies only. Each
check is a process of its own in an empty directory, so that nothing of this tree is seen.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Final, NamedTuple


class Check(NamedTuple):
    """Something that a new user does, and what should come of it."""

    what: str
    arguments: tuple[str, ...]
    status: int
    says: str


def code(text: str) -> tuple[str, ...]:
    """Return the arguments that run a program's text with every warning an error."""
    return ("-W", "error", "-c", text)


ORIGIN: Final = """
import sessionfactory
assert "site-packages" in sessionfactory.__file__, sessionfactory.__file__
print(sessionfactory.__version__)
"""
LIGHT: Final = """
import sys, sessionfactory
assert not {"attr", "attrs", "sqlalchemy"} & set(sys.modules)
from sessionfactory import SessionFactory, NullSessionFactory, NotConfiguredError
assert not {"attr", "attrs", "sqlalchemy"} & set(sys.modules)
"""
STAR: Final = """
from sessionfactory import *
from sessionfactory import __all__
assert set(__all__) <= set(globals())
print(len(__all__), "names")
"""
EVERY_MODULE: Final = """
import importlib, pkgutil, sessionfactory
extras = {  # what the extras bring
    "alembic", "click", "dishka", "fastapi", "flask", "greenlet", "litestar", "psycopg", "pytest",
    "rich", "starlette", "svcs", "typer"}
names = [m.name for m in pkgutil.walk_packages(sessionfactory.__path__, "sessionfactory.")]
loaded = 0
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        assert missing.name.partition(".")[0] in extras, f"{name} wants {missing.name}"
    except SystemExit:
        assert name in {"sessionfactory.cli", "sessionfactory.__main__"}, name
    else:
        loaded += 1
assert loaded > len(names) / 2
print(loaded, "modules")
"""
EXAMPLE: Final = """
from attrs import define
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sessionfactory import SessionFactory, SessionFactoryRegistry

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]

@define
class Signup:
    sessions: SessionFactory

    def register(self, email: str) -> int:
        with self.sessions.begin() as session:
            user = User(email=email)
            session.add(user)
            session.flush()
            return user.id

with SessionFactoryRegistry.from_env({"DATABASE_URL": "sqlite://"}) as registry:
    Base.metadata.create_all(registry.engine())
    signup = Signup(registry.get())
    print("user", signup.register("ada@example.org"))
    assert signup.register("grace@example.org") == 2
    with registry.reader()() as session:
        assert session.get_one(User, 1).email == "ada@example.org"
"""
MISSING: Final = """
from sessionfactory import SessionFactoryRegistry
SessionFactoryRegistry.from_env({}).get()()
"""
DRIVER: Final = """
from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
SqlAlchemySessionFactory(DatabaseSettings("{url}"))
"""

CHECKS: Final = (
    Check("the wheel is what is imported", code(ORIGIN), 0, "."),
    Check("importing loads neither SQLAlchemy nor attrs", code(LIGHT), 0, ""),
    Check("from sessionfactory import *", code(STAR), 0, "names"),
    Check("every module can be imported", code(EVERY_MODULE), 0, "modules"),
    Check("the first example, on SQLite in memory", code(EXAMPLE), 0, "user 1"),
    Check("without a database", code(MISSING), 1, "set DATABASE_URL (environment)"),
    Check(
        "PostgreSQL without a driver",
        code(DRIVER.format(url="postgresql://host/app")),
        1,
        'pip install "sessionfactory[postgres]"',
    ),
    Check(
        "MySQL without a driver",
        code(DRIVER.format(url="mysql://host/app")),
        1,
        'pip install "sessionfactory[mysql]"',
    ),
    Check(
        "the command without its extra",
        ("-m", "sessionfactory"),
        2,
        'pip install "sessionfactory[cli]"',
    ),
)


def main() -> int:
    """Run every check, print what came of it, and return the exit status."""
    failures = 0
    for check in CHECKS:
        with tempfile.TemporaryDirectory() as empty:
            process = subprocess.run(
                [sys.executable, *check.arguments],
                cwd=empty,
                capture_output=True,
                text=True,
                check=False,
            )
        output = process.stdout + process.stderr
        good = process.returncode == check.status and check.says in output
        failures += not good
        last = (output.strip().splitlines() or [""])[-1]
        sys.stdout.write(f"{'ok  ' if good else 'FAIL'} {check.what}: {last}\n")
        if not good:
            sys.stdout.write(f"status {process.returncode}, expected {check.status}:\n{output}\n")
    sys.stdout.write(f"{len(CHECKS) - failures} of {len(CHECKS)} checks passed\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
