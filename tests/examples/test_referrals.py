"""The example `examples/referrals`, as somebody who runs it or reads it sees it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import StaticPool, create_engine, event, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from examples.referrals.cli import SHIPPED, main
from examples.referrals.importing import import_sign_ups
from examples.referrals.leaderboard import Leaderboard, Standing
from examples.referrals.models import Base, User
from examples.referrals.progress import Progress
from examples.referrals.reading import HEADER, open_sign_ups
from examples.referrals.service import ReferralService
from examples.referrals.signups import Outcome, SignUp, Status
from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionfactory import SessionFactory

ROOT = Path(__file__).parents[2]
ROWS = len(SHIPPED.read_bytes().splitlines()) - 1
TITLES = ",".join(HEADER)

# What is wrong with the shipped file, by line: the beginning of the report.
MALFORMED = {
    12: "rejected: 'tomas.novak.example.org' is not an e-mail address",
    19: "rejected: expected 4 columns, found 3",
    27: "duplicate: steve_gosling@example.org has signed up already, with the code STEVFRN",
    34: "rejected: nobody with the code NOBODY7 has signed up",
    42: "rejected: rika@example.net claims to have referred themselves",
    49: "rejected: '21/03/2025' is not a date of the form YYYY-MM-DD",
    56: "rejected: expected 4 columns, found 5",
    62: "rejected: not valid UTF-8: 'jos\\udce9.carrasco@example.com,",
    69: "rejected: not valid CSV: ",
    75: "duplicate: says the same as line 71",
    82: "rejected: '' is not a referral code",
    88: "rejected: the code PETE9Q7 belongs to somebody else",
    93: "rejected: '2025-02-30' is not a date",
    100: "rejected: nobody with the code CARL8NB has signed up",
    107: "duplicate: martin.rossi@example.org has signed up already, with the code MARTMXK",
    115: "rejected: '' is not an e-mail address",
    122: "rejected: 'sam wells@example.org' is not an e-mail address",
    128: "rejected: expected 4 columns, found 1",
}


@frozen
class Run:
    """One run of the program in a process of its own."""

    status: int
    out: list[str]
    err: list[str]

    @property
    def leaderboard(self) -> list[str]:
        return self.out[self.out.index("Leaderboard") + 1 :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for the runs of this module."""
    return tmp_path_factory.mktemp("referrals")


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[Run, Run]:
    """Run the program twice in an empty folder, with no database configured."""
    environ = {key: value for key, value in os.environ.items() if "DATABASE" not in key}
    environ["PYTHONPATH"] = str(ROOT)

    def run() -> Run:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "examples.referrals"],
            check=False,
            cwd=folder,
            env=environ,
            capture_output=True,
            encoding="utf-8",
        )
        return Run(done.returncode, done.stdout.splitlines(), done.stderr.splitlines())

    return run(), run()


def test_every_malformed_line_is_reported(runs: tuple[Run, Run]) -> None:
    """Each run reports each malformed line with its number and reason, in order, and no other."""
    for run in runs:
        assert run.status == 0
        *reports, progress = run.err
        assert progress == f"{ROWS} rows read"
        for report, (line, reason) in zip(reports, MALFORMED.items(), strict=True):
            assert report.startswith(f"line {line}: {reason}")


def test_no_row_is_lost(runs: tuple[Run, Run]) -> None:
    """Accepted, rejected and duplicate rows add up to the rows of the file, in both runs."""
    for run in runs:
        rows, *parts = map(int, re.findall(r"\d+", run.out[2].partition("(")[0]))
        assert rows == sum(parts) == ROWS
    assert runs[0].out[2] == "Of 132 rows: 114 accepted, 15 rejected, 3 duplicates"
    assert runs[1].out[2] == (
        "Of 132 rows: 0 accepted, 15 rejected, 117 duplicates (114 of them written by another run)"
    )


def test_leaderboard_is_the_same_after_each_run(runs: tuple[Run, Run]) -> None:
    """The second run changes no standing, and equal counts share a place, oldest first."""
    first, second = runs
    assert first.leaderboard == second.leaderboard
    assert [line.split() for line in first.leaderboard[:7]] == [
        ["1.", "8", "kritchie@post.example.com"],
        ["2.", "6", "mpike@example.org"],
        ["3.", "5", "rob+signup@example.org"],
        ["3.", "5", "steve_gosling@example.org"],
        ["3.", "5", "rasmus.cerf@example.org"],
        ["6.", "4", "alan.lerdorf@example.org"],
        ["6.", "4", "peter.conway@example.com"],
    ]


def test_without_a_database_url_it_says_what_it_uses(runs: tuple[Run, Run], folder: Path) -> None:
    """With no DATABASE_URL it writes to referrals.db in the current folder, and says so."""
    assert runs[0].out[0] == (
        "DATABASE_URL is not set: using the embedded SQLite file referrals.db in this directory."
    )
    assert runs[0].out[1] == "Database: sqlite:///referrals.db"
    assert (folder / "referrals.db").is_file()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment that configures no database."""
    monkeypatch.chdir(tmp_path)
    for key in [key for key in os.environ if "DATABASE" in key]:
        monkeypatch.delenv(key)
    return tmp_path


def test_an_empty_database_url_counts_as_unset(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty DATABASE_URL means the embedded file, as it means "unset" to the registry."""
    monkeypatch.setenv("DATABASE_URL", "")
    assert main([]) == 0
    assert "DATABASE_URL is not set" in capsys.readouterr().out
    assert (here / "referrals.db").is_file()


@pytest.mark.parametrize("from_file", [False, True])
def test_a_database_url_is_used(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    from_file: bool,
) -> None:
    """With DATABASE_URL or DATABASE_URL_FILE set, nothing is written to referrals.db."""
    if from_file:
        (here / "secret").write_text("sqlite:///mine.db\n")
        monkeypatch.setenv("DATABASE_URL_FILE", "secret")
    else:
        monkeypatch.setenv("DATABASE_URL", "sqlite:///mine.db")
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("Database: sqlite:///mine.db\n")
    assert (here / "mine.db").is_file()
    assert not (here / "referrals.db").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read x.csv: No such file or directory"),
        (b"", "x.csv is empty, but the first line should be the header email,code,"),
        (b"\xef\xbb\xbf", "x.csv is empty"),
        (b"ada@example.org,ADA1815,,2025-03-01\n", "x.csv starts with 'ada@example.org,ADA1815,,"),
        (b"email;code;referred_by;signed_up_on\n", "x.csv starts with 'email;code;"),
        (b"\xff\xfe\x00\x1b[31m", "x.csv starts with '\\udcff\\udcfe\\x00\\x1b[31m', but"),
        (b'"email' + b"x" * 200_000, "x.csv starts with '\"emailxxx"),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_unusable_file_is_one_clear_line(
    content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing, empty or headless file ends in one line, status 2, and no database."""
    if content is not None:
        Path("x.csv").write_bytes(content)
    assert main(["x.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"referrals: {message}")
    assert err.count("\n") == 1
    assert len(err) < 300
    assert not Path("referrals.db").exists()


@pytest.mark.usefixtures("here")
def test_a_directory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A directory in the place of the file ends in one line and status 2."""
    Path("x.csv").mkdir()
    assert main(["x.csv"]) == 2
    assert capsys.readouterr().err.startswith("referrals: cannot read x.csv: ")


@pytest.mark.parametrize(
    "url", ["nonsense", "nosuch://ada:hunter2@db/x", "sqlite:///no/such/directory/x.db"]
)
@pytest.mark.usefixtures("here")
def test_a_bad_database_url_is_one_clear_line(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration that cannot work ends in one line and status 2, and shows no password."""
    monkeypatch.setenv("DATABASE_URL", url)
    assert main([]) == 2
    err = capsys.readouterr().err
    assert err.startswith("referrals: ")
    assert err.count("\n") == 1
    assert "hunter2" not in err


@pytest.mark.usefixtures("here")
def test_a_failing_database_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database that fails ends in the driver's message on one line, and status 1."""
    Path("broken.db").write_bytes(b"This was never a database. " * 100)
    monkeypatch.setenv("DATABASE_URL", "sqlite:///broken.db")
    assert main([]) == 1
    assert capsys.readouterr().err == "referrals: file is not a database\n"


def test_help_documents_the_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names the environment variable and each exit status."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert "DATABASE_URL" in out
    assert out.index("exit status:") < out.index("\n  0  ") < out.index("\n  1  ")
    assert "\n  2  " in out


@pytest.fixture
def plain() -> Iterator[sessionmaker[Session]]:
    """SQLAlchemy's own factory: the service must not need more."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    engine.dispose()


@pytest.fixture
def ours() -> Iterator[SqlAlchemySessionFactory]:
    """This library's factory, on an in-memory database."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory:
        Base.metadata.create_all(factory.engine)
        yield factory


@pytest.fixture(params=["plain", "ours"])
def sessions(request: pytest.FixtureRequest) -> SessionFactory:
    """Either factory: the service cannot tell them apart."""
    factory: SessionFactory = request.getfixturevalue(request.param)
    return factory


def sign_up(line: int, name: str, referred_by: str | None = None, day: int = 1) -> SignUp:
    """A sign-up whose e-mail address and code are made of one name."""
    return SignUp(
        line=line,
        email=f"{name}@example.org",
        code=name.upper(),
        referred_by=referred_by,
        signed_up_on=date(2025, 3, day),
    )


def count(sessions: SessionFactory) -> int | None:
    """How many users the database holds."""
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(User))


def test_a_referrer_may_stand_in_the_same_batch(sessions: SessionFactory) -> None:
    """Somebody may be referred by a user further up in the batch, or in an earlier one."""
    service = ReferralService(sessions)
    assert service.register([sign_up(2, "grace"), sign_up(3, "alan", "GRACE")]) == [
        Outcome(2, Status.ACCEPTED),
        Outcome(3, Status.ACCEPTED),
    ]
    assert service.register([sign_up(4, "edsger", "ALAN")]) == [Outcome(4, Status.ACCEPTED)]
    with sessions() as session:
        edsger = session.scalars(select(User).where(User.code == "EDSGER")).one()
        assert edsger.referrer is not None
        assert edsger.referrer.referrer is not None
        assert edsger.referrer.referrer.email == "grace@example.org"


def test_registering_again_changes_nothing(sessions: SessionFactory) -> None:
    """A batch that was registered before is known, and adds no user."""
    service = ReferralService(sessions)
    batch = [sign_up(2, "grace"), sign_up(3, "alan", "GRACE")]
    service.register(batch)
    assert [outcome.status for outcome in service.register(batch)] == [Status.KNOWN] * 2
    assert count(sessions) == 2


def test_a_user_who_says_something_new_is_reported(sessions: SessionFactory) -> None:
    """A known address with another referrer, code or date is a duplicate, never silently known."""
    grace = sign_up(2, "grace")
    service = ReferralService(sessions)
    service.register([sign_up(1, "alan"), grace])
    for changed in (
        evolve(grace, referred_by="ALAN"),
        evolve(grace, code="OTHER"),
        evolve(grace, signed_up_on=date(2025, 3, 2)),
    ):
        (outcome,) = service.register([changed])
        assert outcome.status is Status.DUPLICATE
        assert outcome.reason == "grace@example.org has signed up already, with the code GRACE"


def test_a_batch_is_one_transaction(sessions: SessionFactory) -> None:
    """If the database refuses one row of a batch, nothing of that batch is written."""
    dateless: Any = None
    with pytest.raises(IntegrityError):
        ReferralService(sessions).register(
            [sign_up(2, "grace"), evolve(sign_up(3, "alan"), signed_up_on=dateless)]
        )
    assert count(sessions) == 0


def test_somebody_else_may_be_faster(tmp_path: Path) -> None:
    """A user whom another program signs up between look and write is known, not a crash."""
    engine = create_engine(f"sqlite:///{tmp_path / 'shared.db'}")
    Base.metadata.create_all(engine)
    sessions, others = sessionmaker(engine), sessionmaker(engine)

    def interfere(*_args: object) -> None:
        if count(others) == 0:
            ReferralService(others).register([sign_up(7, "grace")])

    event.listen(sessions, "before_flush", interfere)
    assert ReferralService(sessions).register([sign_up(2, "grace"), sign_up(3, "alan")]) == [
        Outcome(2, Status.KNOWN),
        Outcome(3, Status.ACCEPTED),
    ]
    assert count(sessions) == 2
    engine.dispose()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_outcomes_do_not_depend_on_the_batches(sessions: SessionFactory, batch_size: int) -> None:
    """The shipped file has the same outcome, row by row, whatever the size of a batch."""
    with open_sign_ups(SHIPPED) as rows:
        outcomes = list(
            import_sign_ups(rows, ReferralService(sessions), batch_size=batch_size),
        )
    assert [outcome.line for outcome in outcomes] == list(range(2, ROWS + 2))
    assert {
        outcome.line for outcome in outcomes if outcome.status is not Status.ACCEPTED
    } == MALFORMED.keys()
    assert count(sessions) == 114


def test_ties_go_to_the_earlier_sign_up(sessions: SessionFactory) -> None:
    """Equal counts share a place and stand by date, then code; who referred nobody is left out."""
    ReferralService(sessions).register(
        [
            sign_up(2, "zuse", day=2),
            sign_up(3, "ada1", day=3),
            sign_up(4, "bob1", day=2),
            sign_up(5, "carl"),
            *(sign_up(line, f"user{line}", "ADA1") for line in range(10, 12)),
            *(sign_up(line, f"user{line}", "BOB1") for line in range(20, 22)),
            *(sign_up(line, f"user{line}", "ZUSE") for line in range(30, 32)),
            sign_up(40, "user40", "USER10"),
        ]
    )
    assert Leaderboard(sessions).top() == [
        Standing(1, "bob1@example.org", 2),
        Standing(1, "zuse@example.org", 2),
        Standing(1, "ada1@example.org", 2),
        Standing(4, "user10@example.org", 1),
    ]
    assert len(Leaderboard(sessions).top(2)) == 2


def read(path: Path, content: bytes) -> list[SignUp | Outcome]:
    """What becomes of a file with the right header and this below it."""
    path.write_bytes(TITLES.encode() + b"\n" + content)
    with open_sign_ups(path) as rows:
        return list(rows)


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF, quotes, blank lines, upper case and spaces do no harm."""
    path = tmp_path / "x.csv"
    path.write_bytes(
        b"\xef\xbb\xbfEmail, Code,referred_by,signed_up_on\r\n"
        b'\r\n"Grace@Example.org", grace ,"",2025-03-01\r\n  \r\n'
    )
    with open_sign_ups(path) as rows:
        assert [(row.line, row) for row in rows] == [(3, sign_up(3, "grace"))]


def test_an_open_quote_costs_its_own_row(tmp_path: Path) -> None:
    """A quote that is never closed does not swallow the rows below it."""
    first, second = read(
        tmp_path / "x.csv",
        b'"ada@example.org,ADA1815,,2025-03-01\ngrace@example.org,GRACE,,2025-03-01\n',
    )
    assert first == Outcome(2, Status.REJECTED, "not valid CSV: unexpected end of data")
    assert second == sign_up(3, "grace")


@pytest.mark.parametrize("text", ["20250301", "2025-W09-6", "2025-3-1", "yesterday", ""])
def test_only_full_dates_are_read(tmp_path: Path, text: str) -> None:
    """A date that is not written YYYY-MM-DD is refused, even where Python could read it."""
    (row,) = read(tmp_path / "x.csv", f"ada@example.org,ADA1815,,{text}\n".encode())
    assert row == Outcome(2, Status.REJECTED, f"{text!r} is not a date of the form YYYY-MM-DD")


@given(content=st.binary() | st.text('a@.,"\n\r\x00é1-').map(str.encode))
@settings(
    max_examples=60,
    deadline=None,
    # Each example writes the file anew, so that sharing the folder does no harm.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_row_becomes_one_item(tmp_path: Path, content: bytes) -> None:
    """Whatever bytes a file holds, each line that is not blank yields one item with its number."""
    rows = read(tmp_path / "x.csv", content)
    text = content.decode(errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line, row in enumerate(text.split("\n"), start=2) if row.strip()]
    assert [row.line for row in rows] == lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_moves_on_a_terminal_only() -> None:
    """On a terminal the count is overwritten, also before a message; elsewhere it is not shown."""
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        with Progress(stream) as progress:
            progress.show("1 row")
            progress.message("line 2: rejected")
            progress.show("2 rows")
    assert terminal.getvalue() == "\r1 row\r     \rline 2: rejected\n\r2 rows\r      \r"
    assert log.getvalue() == "line 2: rejected\n"
