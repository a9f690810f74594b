"""The command that runs benchmarks, with made-up ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from benchmarks.__main__ import BENCHMARKS, Benchmark, main
from sessionfactory.testing import ServerUnavailableError
from tests.support.generated_tables import LOW, row, table

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import (
        Table,
    )


class TestCommand:
    @pytest.fixture
    def benchmarks(self) -> dict[str, Benchmark]:
        return {
            name: Benchmark(
                full=partial(table, row(1, 1, 1, LOW)), quick=partial(table, row(2, 2, 2))
            )
            for name in ("one", "two")
        }

    def test_every_table(self) -> None:
        """The command knows every table of this package."""
        assert list(BENCHMARKS) == [
            "open_close",
            "async_open_close",
            "peers",
            "checkout",
            "contention",
            "round_trips",
            "one_statement",
            "reading",
            "transactions",
            "pipelining",
            "sqlite_concurrency",
            "isolation",
            "import_time",
            "pytest_plugin",
        ]

    def test_all(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Without arguments every table is measured and printed, and nothing is written."""
        main([], benchmarks=benchmarks, results=tmp_path / "results")
        out = capsys.readouterr().out
        assert out.count("# made_up: made up") == 2
        assert "Targets: 0 met, 2 missed." in out
        assert list(tmp_path.iterdir()) == []

    def test_write(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """``--write`` writes what was printed and a chart of it, for each table asked for."""
        main(["two", "--write"], benchmarks=benchmarks, results=tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"made_up.md", "made_up.svg"}
        printed, image = (tmp_path / "made_up.md").read_text(encoding="utf-8").split("\n![")
        assert printed in capsys.readouterr().out
        assert image == "made up](made_up.svg)\n"
        assert (tmp_path / "made_up.svg").read_text(encoding="utf-8").startswith("<svg ")

    def test_write_highlight(self, tmp_path: Path) -> None:
        """The group that a table is known for has a chart of its own."""
        shown = evolve(table(row(1, 1, 1)), highlight="speed")
        benchmark = Benchmark(full=lambda: shown, quick=lambda: shown)
        main(["one", "--write"], benchmarks={"one": benchmark}, results=tmp_path)
        assert (tmp_path / "made_up_highlight.svg").exists()

    def test_no_server(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A table whose server cannot be had is left out, and says why; others are measured."""

        def fail() -> Table:
            raise ServerUnavailableError("there are no binaries")

        main([], benchmarks={"none": Benchmark(fail, fail)} | benchmarks)
        out = capsys.readouterr().out
        assert "none is left out: there are no binaries" in out
        assert out.count("# made_up: made up") == 2

    def test_quick(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """``--quick`` measures the small plan."""
        main(["one", "--quick"], benchmarks=benchmarks)
        assert "2.000" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["three"], "no table three; there are one, two"),
            (["--quick", "--write"], "--quick measures too little to be written down"),
        ],
    )
    def test_refused(
        self,
        benchmarks: dict[str, Benchmark],
        arguments: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """An unknown table, and quick figures to be kept, are refused with a sentence."""
        with pytest.raises(SystemExit, match="2"):
            main(arguments, benchmarks=benchmarks)
        assert message in capsys.readouterr().err
