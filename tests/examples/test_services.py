"""The examples of services and workers, started for real by the commands of their README files."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.support.programs import ROOT, run, running

if TYPE_CHECKING:
    from pathlib import Path


def commands_of(example: str) -> list[list[str]]:
    """Return the two commands that a README gives, as words."""
    readme = (ROOT / "examples" / example / "README.md").read_text()
    block = readme.split("two commands")[1].split("```console\n")[1].split("```")[0]
    lines = block.replace("\\\n", "").splitlines()
    return [
        re.sub(r"[\"']", "", line.removeprefix("$ ")).split()
        for line in lines
        if line.startswith("$ ")
    ]


def test_the_fastapi_service_runs(tmp_path: Path) -> None:
    """Alembic makes the tables, uvicorn serves, and SIGTERM ends it without an error."""
    migrate, serve = commands_of("fastapi_service")
    url = f"sqlite:///{tmp_path}/notes.db"
    run(*migrate, DATABASE_URL=url)
    with running(*serve, "--port", "0", DATABASE_URL=url) as program:
        address = program.wait_for(r"running on (http://[\d.:]+)")
        with httpx2.Client(base_url=address) as client:
            assert client.get("/health/ready").json() == {"status": "ok"}
            written = client.post("/notes", json={"text": "buy milk"})
            assert (written.status_code, written.json()["text"]) == (201, "buy milk")
            assert client.get("/notes").text == f"{written.json()['id']}\tbuy milk\n"
            assert client.get("/openapi.json").json()["info"]["title"] == "Notes"
    assert "Application shutdown complete" in program.output
    assert "Traceback" not in program.output
    assert json.dumps(program.output).count("ERROR") == 0


def test_the_flask_service_runs(tmp_path: Path) -> None:
    """Workers that gunicorn forks from a loaded application serve, and end without an error."""
    pytest.importorskip("gunicorn")
    make, serve = commands_of("flask_service")
    url = f"sqlite:///{tmp_path}/guests.db"
    run(*make, DATABASE_URL=url)
    with running(*serve, "--bind", "127.0.0.1:0", DATABASE_URL=url) as program:
        address = program.wait_for(r"Listening at: (http://[\d.:]+)")
        guests = [f"guest {number}" for number in range(20)]
        for guest in guests:  # a connection each, so that all workers have some
            answer = httpx2.post(f"{address}/guests", data={"name": guest})
            assert answer.status_code == 201
        assert httpx2.get(f"{address}/guests").json() == guests[::-1]
        assert httpx2.get(f"{address}/health/ready").json() == {"status": "ok"}
    assert program.process.returncode == 0
    assert program.output.count("Booting worker") == 4
    assert "Traceback" not in program.output


def test_the_flask_service_is_checked(tmp_path: Path) -> None:
    """The command of the README says that the database is well."""
    make, _ = commands_of("flask_service")
    url = f"sqlite:///{tmp_path}/guests.db"
    run(*make, DATABASE_URL=url)
    told = run(*make[:3], "sessionfactory", "check", "--ping", DATABASE_URL=url)
    assert "default: ok in " in told


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_the_celery_worker_runs(pool: str, tmp_path: Path) -> None:
    """Workers confirm every order that another process takes, and end without an error."""
    pytest.importorskip("celery")
    pytest.importorskip(pool.replace("prefork", "billiard"))
    work, order = commands_of("celery_worker")
    variables = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/orders.db",
        "BROKER_FOLDER": str(tmp_path / "broker"),
    }
    with running(*work, "--pool", pool, **variables) as worker:
        worker.wait_for(r"celery@\S+ ready")
        assert "20 of 20 orders confirmed" in run(*order, **variables)
    assert worker.process.returncode == 0
    assert worker.output.count("succeeded in") == 20
    assert "Traceback" not in worker.output
