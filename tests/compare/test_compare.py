"""Comparing runs finds the effects that were planted to move, and no others; this needs the pairing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.run_factory import make_run
from vtcav_ray import cli
from vtcav_ray.compare import compare_runs
from vtcav_ray.compare.page import build_page, sentences
from vtcav_ray.compare.runs import comparison_warning
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run

pytestmark = pytest.mark.slow  # makes three small runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "before": make_run(folder / "before", weight=1.0),
        # More weight on `cup` for `lift`; activations of three times the size and another gain must not matter.
        "after": make_run(folder / "after", weight=1.4, seed=1, scale=3.0, gain=16.0),
        "elsewhere": make_run(folder / "elsewhere", weight=1.4, seed=1, videos="w"),
    }


def rows_of(runs: dict[str, Run], *names: str) -> dict[tuple[str, str], dict]:
    found = compare_runs([runs[name] for name in names]).to_pylist()
    return {(r["class"], r["concept"]): r for r in found if r["against"] == "random"}


def test_the_planted_change_is_found_and_nothing_else(runs: dict[str, Run]) -> None:
    found = rows_of(runs, "before", "after")
    assert all(row["paired"] for row in found.values())
    moved = found["lift", "cup/spatial"]
    assert moved["moved"]
    assert moved["change"] == pytest.approx(moved["effect_b"] - moved["effect_a"], abs=1e-5)
    assert moved["change"] == pytest.approx(0.4, abs=0.1)  # 1.4 - 1.0 along an axis on which the concept is at 1
    assert moved["ci_low"] < 0.4 < moved["ci_high"]
    assert [key for key, row in found.items() if row["moved"]] == [("lift", "cup/spatial")]
    for key in (("lift", "ball/spatial"), ("drop", "ball/spatial"), ("drop", "cup/spatial")):
        assert found[key]["ci_low"] < 0.1 < 0.2, key
        assert abs(found[key]["change"]) < 0.1, key


def test_pairs_are_far_more_certain_than_two_separate_estimates(runs: dict[str, Run]) -> None:
    pairs = rows_of(runs, "before", "after")["lift", "ball/spatial"]
    apart = rows_of(runs, "before", "elsewhere")["lift", "ball/spatial"]
    assert not apart["paired"]
    assert (pairs["ci_high"] - pairs["ci_low"]) < 0.5 * (apart["ci_high"] - apart["ci_low"])


def test_a_run_has_not_moved_from_itself(runs: dict[str, Run]) -> None:
    table = compare_runs([runs["before"], runs["before"]])
    assert not any(table["moved"].to_pylist())
    np.testing.assert_allclose(table["change"].to_numpy(), 0, atol=1e-6)


def test_three_runs_are_two_steps(runs: dict[str, Run]) -> None:
    table = compare_runs([runs["before"], runs["after"], runs["before"]])
    change = {(r["run_a"] == runs["before"].url): r["change"] for r in table.to_pylist()
              if (r["class"], r["concept"], r["against"]) == ("lift", "cup/spatial", "random")}  # fmt: skip
    assert change[True] == pytest.approx(-change[False], abs=1e-5)


def test_too_few_permutations_for_the_correction_are_said(runs: dict[str, Run]) -> None:
    pair = [runs["before"], runs["after"]]  # 2000 permutations: no p is below 0.001
    table = compare_runs(pair)
    paired = table.filter(table["paired"])
    assert comparison_warning(pair, paired.slice(0, 40)) is None
    assert (
        comparison_warning([runs["before"], runs["elsewhere"]], compare_runs([runs["before"], runs["elsewhere"]]))
        is None
    )
    many = pa.concat_tables([paired.slice(0, 1)] * 100)
    warning = comparison_warning(pair, many)
    assert warning is not None
    assert "strictest of 100 comparisons asks for 0.0005: set scores.permutations to 4000 or more" in warning
    assert runs["before"].url in warning
    assert warning.split(": ")[-1] in build_page(many, ["a", "b"], warning)


def test_what_cannot_be_compared_is_said(runs: dict[str, Run]) -> None:
    with pytest.raises(ConfigError, match="two runs"):
        compare_runs([runs["before"]])


def test_the_command_prints_json_for_machines_and_writes_a_page(runs: dict[str, Run], tmp_path: Path) -> None:
    urls = [runs["before"].url, runs["after"].url]
    page = tmp_path / "pages" / "compare.html"
    result = CliRunner().invoke(cli.app, ["compare", *urls, "--json", "--html", str(page)])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [(r["class"], r["concept"]) for r in rows if r["moved"] and r["against"] == "random"] == [
        ("lift", "cup/spatial")
    ]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    # A folder can't be written as a file.
    wrong = CliRunner().invoke(cli.app, ["compare", *urls, "--html", str(tmp_path)])
    assert isinstance(wrong.exception, ConfigError)
    assert f"{tmp_path}" in str(wrong.exception)
    shown = CliRunner().invoke(cli.app, ["compare", *urls])
    assert "1 effect moved" in shown.output or "effects moved" in shown.output


def test_the_page_escapes_and_says_what_moved(runs: dict[str, Run]) -> None:
    table = compare_runs([runs["before"], runs["after"]])
    page = build_page(table, ["<b>", "after"])
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.partition("</title>")[0]
    assert any("lift: cup/spatial against random at late went from" in line for line in sentences(table))
