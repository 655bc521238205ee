"""`vtcav faithful` on a small planted run: what a class needs, what is gone with shuffled weights, and resumption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun
from tests.helpers.small_runs import without_ray
from vtcav_ray import cli, tables
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.faithful.run import faithful_run
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.watch.rerun import reopened

pytestmark = pytest.mark.slow

UP, CUP = "moving up/context", "cup/spatial"
WANTED = Wanted(classes=("lift", "put_down"), layers=("middle", "head"), concepts=(UP, CUP))
SIZES = {"clips": 3, "random_sets": 19}


@pytest.fixture(scope="module", autouse=True)
def no_ray() -> Iterator[None]:
    with without_ray():
        yield


@pytest.fixture(scope="module")
def folder(planted: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(planted.copy(tmp_path_factory.mktemp("copy") / "run"))


def opened(folder: str) -> tuple[Run, Config]:
    run, config, _ = reopened(folder)
    return run, config


@pytest.fixture(scope="module")
def checked(folder: str) -> Run:
    return faithful_run(*opened(folder), WANTED, **SIZES)


@pytest.fixture(scope="module")
def rows(checked: Run) -> list[dict[str, Any]]:
    table = checked.table("faithfulness")
    assert table.schema == tables.FAITHFULNESS
    return table.to_pylist()


def one(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    found = [row for row in rows if all(row[name.rstrip("_")] == value for name, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_a_class_needs_its_own_motion_more_than_chance_and_more_than_an_object(rows: list[dict[str, Any]]) -> None:
    for layer in ("middle", "head"):
        own, other = (
            one(rows, check="necessity", measure="change", class_="lift", layer=layer, concept=concept)
            for concept in (UP, CUP)
        )
        assert own["value"] < other["value"]
        assert own["value"] < own["random"]
        assert own["p"] <= 0.15
        assert own["ci_low"] <= own["value"] <= own["ci_high"]


def test_necessity_is_the_mean_over_videos_of_the_raw_changes(checked: Run, rows: list[dict[str, Any]]) -> None:
    raw = checked.stage("faithful").read("erasures").to_pylist()
    own = {
        row["video_id"]: row["changes"][0]
        for row in raw
        if (row["class"], row["layer"], row["what"], row["name"]) == ("lift", "head", "pattern", UP)
    }
    found = one(rows, check="necessity", measure="change", class_="lift", layer="head", concept=UP)
    assert found["n"] == len(own)
    assert found["value"] == pytest.approx(np.mean(list(own.values())), rel=1e-5)
    null = [
        np.mean([row["changes"][0] for row in raw if row["what"] == "random" and row["name"] == name
                 and (row["class"], row["layer"]) == ("lift", "head")])
        for name in {row["name"] for row in raw if row["what"] == "random" and row["name"].startswith("context#")}
    ]  # fmt: skip
    assert len(null) == SIZES["random_sets"]
    assert found["p"] == pytest.approx((1 + sum(value <= found["value"] for value in null)) / (1 + len(null)))


def test_at_the_head_first_order_changes_are_the_real_ones(rows: list[dict[str, Any]]) -> None:
    """Only a linear map follows."""
    assert one(rows, check="first order", measure="slope", layer="head")["value"] == pytest.approx(1.0, abs=1e-3)
    assert one(rows, check="first order", measure="same sign", layer="head")["value"] == 1.0


def test_first_order_changes_are_those_of_the_scores(checked: Run, rows: list[dict[str, Any]]) -> None:
    """The run's effects are the same products, at all reference clips instead of three per class: same sign."""
    scores = checked.table("scores").to_pylist()
    effect = one(scores, class_="lift", layer="head", concept=UP, against="random")["effect"]
    found = one(rows, check="first order", measure="first-order change", class_="lift", layer="head", concept=UP)
    assert np.sign(found["value"]) == np.sign(effect)


def test_with_all_weights_shuffled_nothing_is_called(rows: list[dict[str, Any]]) -> None:
    called = one(rows, check="randomised weights", measure="called", layer="whole")
    assert called["value"] == 0
    assert called["n"] == 8


def test_an_order_that_starts_with_what_matters_has_the_larger_area(rows: list[dict[str, Any]]) -> None:
    of = {"check": "deletion", "class_": "lift", "layer": "head"}
    assert (
        one(rows, measure="area in order of effect", **of)["value"]
        > one(rows, measure="area in reverse order", **of)["value"] - 1e-6
    )
    assert one(rows, measure="area beyond random directions", **of)["value"] > 0


def test_halves_agree_on_the_motions(rows: list[dict[str, Any]]) -> None:
    found = one(rows, check="stability", measure="correlation of halves", concept=UP)
    assert found["ci_low"] <= found["value"] <= found["ci_high"] <= 1


def test_the_report_has_a_section(checked: Run) -> None:
    page = checked.folder.read_bytes("report.html").decode()
    assert 'id="checks"' in page
    assert "Between halves of the videos" in page
    assert "Erasing a concept" not in page  # it does not tell true concepts from false (docs/faithful.md)


def test_a_second_call_computes_nothing_and_makes_lost_shards_again(checked: Run, folder: str, tmp_path: Path) -> None:
    before = checked.table("faithfulness")
    stage = checked.stage("faithful")
    record = next(Path(folder, "faithful", stage.key).rglob("manifest.json"))
    written = record.stat().st_mtime_ns
    faithful_run(*opened(folder), WANTED, **SIZES)
    assert record.stat().st_mtime_ns == written
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    for path in (copied / "faithful" / stage.key).rglob("*halves*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    (copied / "faithful" / stage.key / "manifest.json").unlink()
    assert faithful_run(*opened(str(copied)), WANTED, **SIZES).table("faithfulness").equals(before)


def test_too_few_random_sets_are_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="fewer than 19"):
        faithful_run(*opened(folder), WANTED, random_sets=18)


def test_the_command_prints_answers_and_json(checked: Run, folder: str) -> None:
    options = ["--class", "lift", "--class", "put_down", "--layer", "middle", "--layer", "head", "--concept", UP,
               "--concept", CUP, "--cells", "all", "--clips", "3", "--random-sets", "19"]  # fmt: skip
    result = CliRunner().invoke(cli.app, ["faithful", folder, *options, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {row["check"] for row in rows} >= {"necessity", "deletion", "randomised weights", "stability", "first order"}
    shown = CliRunner().invoke(cli.app, ["faithful", folder, *options])
    assert shown.exit_code == 0, shown.output
    assert "stability" in shown.stdout
