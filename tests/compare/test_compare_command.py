"""What `vtcav compare` prints and writes, on runs whose tables are written by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.compared_runs import LAYER, SHIFT, write_run
from vtcav_ray.cli.compare import compare_and_print, run_names
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / name, weight) for name, weight in (("before", 1.0), ("after", 2.5))]


def printed(runs: list[Run], page: str | None = None) -> list[str]:
    text = io.StringIO()
    compare_and_print(runs, as_json=False, page=page, console=Console(file=text, width=200))
    return text.getvalue().splitlines()


@pytest.mark.slow
def test_the_table_begins_with_what_moved(runs: list[Run], tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    lines = printed(runs, str(page))
    assert lines[0].startswith("1 effect moved beyond its uncertainty, of 2 comparisons")
    assert lines[1].split()[:5] == ["class", "concept", "against", "layer", "before"]
    assert lines[2].split()[:8] == ["●", "lift", "cup/spatial", "random", LAYER, "+3.00", "+7.50", "+4.50"]
    assert lines[3].split()[:5] == ["×", "drop", "cup/spatial", "random", LAYER]
    assert lines[-1] == f"Page: {page}"
    assert "before → after" in page.read_text(encoding="utf-8")


def test_with_several_steps_each_row_names_its_runs(runs: list[Run]) -> None:
    lines = printed([*runs, runs[0]])
    steps = [line.split()[5:7] for line in lines if line.split()[:2] == ["●", "lift"]]
    assert sorted(steps) == [["after", "before"], ["before", "after"]]


@pytest.mark.slow
def test_too_few_permutations_are_a_note(runs: list[Run], tmp_path: Path) -> None:
    first = write_run(tmp_path / "few", 1.0, scores={"permutations": 100})
    assert not any(line.startswith("note: ") for line in printed(runs))
    (note,) = [line for line in printed([first, runs[1], runs[0], runs[1]]) if line.startswith("note: ")]
    assert first.url in note
    assert "100 permutations can't give a p below 0.02" in note


def test_json_has_one_line_per_cell_and_no_nan(runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    text = io.StringIO()
    compare_and_print(runs, as_json=True, page=None, console=Console(file=text))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert text.getvalue() == ""
    assert [(row["class"], row["moved"]) for row in rows] == [("lift", True), ("drop", False)]
    assert rows[0]["change"] == pytest.approx(1.5 * SHIFT)
    assert rows[0]["tcav_score_change"] is None


def test_a_folder_is_no_page(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't be written to .*--html"):
        compare_and_print(runs, as_json=True, page=str(tmp_path), console=Console(file=io.StringIO()))


def test_a_run_that_is_named_twice_gets_numbers() -> None:
    assert run_names(["a/run", "a/run"]) == ["1: a/run", "2: a/run"]


def test_names_are_as_short_as_they_can_be() -> None:
    assert run_names(["s3://b/runs/a", "s3://b/runs/b"]) == ["a", "b"]
    assert run_names(["x/epoch1/run", "x/epoch2/run"]) == ["epoch1/run", "epoch2/run"]
