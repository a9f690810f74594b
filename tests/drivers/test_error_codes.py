"""The one table of error codes: meanings that no server here shows on demand, and a full server."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory, is_transient
from sessionfactory.drivers.error_codes import classify, is_answer
from sessionfactory.testing import PostgresServer
from tests.support.available import running_or_skipped

if TYPE_CHECKING:
    from sessionfactory.drivers.driver import Meaning


@pytest.mark.parametrize(
    ("number", "said", "meaning"),
    [
        (1040, "Too many connections", "too many clients"),
        (1203, "User app already has more than 'max_user_connections'", "too many clients"),
        (1226, "User 'app' has exceeded the 'max_user_connections' resource", "too many clients"),
        (1226, "User 'app' has exceeded the 'max_questions' resource", None),
        (1290, "running with the --read-only option", "read-only server"),
        (1290, "running with the --secure-file-priv option", None),
        (1836, "Running in read-only mode", "read-only server"),
        (1053, "Server shutdown in progress", "going down"),
        (1047, "WSREP has not yet prepared node", "not ready"),
        (1045, "Access denied", "wrong login"),
        (1146, "Table 'shop.t' doesn't exist", "missing table"),
    ],
)
def test_numbers_of_mysql(number: int, said: str, meaning: Meaning | None) -> None:
    """A number means what the table has, some only together with a word of the text."""
    found = classify(mysql_error(number, said))
    assert found.codes == (number,)
    assert (meaning in found.meanings) is (meaning is not None)
    if meaning is None:
        assert found.kind is None


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("FATAL:  sorry, too many clients already", "too many clients"),
        ("FATAL:  remaining connection slots are reserved for roles", "too many clients"),
        ('FATAL:  too many connections for role "app"', "too many clients"),
        ("FATAL:  the database system is starting up", "not ready"),
        ("FATAL:  the database system is shutting down", "not ready"),
        ('FATAL:  password authentication failed for user "app"', "wrong login"),
        ('FATAL:  database "shop" does not exist', "refused"),
        ("connection refused", "unreachable"),
    ],
)
def test_texts_of_libpq(said: str, meaning: Meaning) -> None:
    """Libpq has no code for a failed connect: its text decides."""
    assert classify(psycopg.OperationalError(said)).meanings == (meaning,)


def test_a_full_server_is_an_answer_to_no_commit() -> None:
    """A limit of a user that COMMIT ran into is an answer; a lost connection is none."""
    assert is_answer(mysql_error(1226, "exceeded the 'max_questions' resource"))
    assert not is_answer(mysql_error(2013, "Lost connection"))


def full_postgres() -> PostgresServer:
    """Return a PostgreSQL with few connections."""
    return PostgresServer(
        settings={"max_connections": 4, "superuser_reserved_connections": 0, "max_wal_senders": 0}
    )


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_full_postgresql(driver: str) -> None:
    """A server without a free connection is worth another attempt, and a ping reports a refusal."""
    with running_or_skipped(full_postgres()) as server:
        url = server.url_for(driver)
        held: list[psycopg.Connection[Any]] = []
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(**login(server)))
        with SqlAlchemySessionFactory(DatabaseSettings(url)) as sessions:
            with pytest.raises(DBAPIError) as caught, sessions() as session:
                session.execute(text("SELECT 1"))
            assert is_transient(caught.value)
            assert sessions.ping().state == "refused"
        for connection in held:
            connection.close()


def mysql_error(number: int, said: str) -> Exception:
    """Return an error of PyMySQL, which has no types."""
    pymysql: Any = import_module("pymysql")
    error: Exception = pymysql.err.OperationalError(number, said)
    return error


def login(server: PostgresServer) -> dict[str, Any]:
    """Return psycopg's arguments for a server."""
    url = make_url(server.url)
    return {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
