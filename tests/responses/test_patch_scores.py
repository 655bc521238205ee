"""`scores.effect: patch`: the stage `responses` before `scores`, on a small planted run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import vtcav_ray
from tests.helpers.planted_run import PlantedRun
from vtcav_ray import cli, tables
from vtcav_ray.compare import compare_runs
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.patch.run import patch_run
from vtcav_ray.patch.stage import accepted
from vtcav_ray.planning.counts import reference_clips
from vtcav_ray.responses import worker as workers
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.status import run_status
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.scores.sides import comparisons
from vtcav_ray.stages import ANSWER
from vtcav_ray.tcav import class_margin, response_effect

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("no_ray")]

UP = "moving up/context"
CLASSES = ["lift", "push_left", "push_right", "put_down"]
SETTINGS = ("activations.layers=[late, head]", "scores.permutations=20000")


@pytest.fixture(scope="module")
def folder(planted: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.copy(tmp_path_factory.mktemp("copy") / "run")


@pytest.fixture(scope="module")
def first_order(planted: PlantedRun, folder: Path) -> list[dict[str, Any]]:
    return vtcav_ray.run(planted.config(folder, *SETTINGS)).table("scores").to_pylist()


def patch_config(planted: PlantedRun, folder: Path, *more: str) -> Config:
    return planted.config(folder, *SETTINGS, "scores.effect=patch", *more)


@pytest.fixture(scope="module")
def result(planted: PlantedRun, folder: Path, first_order: list[dict[str, Any]]) -> Run:
    return vtcav_ray.run(patch_config(planted, folder))


@pytest.fixture(scope="module")
def copied(result: Run, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, whose stages have the same keys."""
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("copied") / "run"))


def by_cell(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(row[name] for name in tables.CELL_KEY): row for row in rows}


def sides_of(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the clips of `moving up`, and of its random clips."""
    one = comparisons(accepted(run.stage("activations"), run.stage("cavs")), "late", run.config)[UP, "random"]
    return one.concept.clips, one.other.clips


def test_there_is_a_response_of_every_pool_clip_layer_and_class(result: Run, planted: PlantedRun) -> None:
    table = result.table("responses")
    assert table.schema == tables.RESPONSES
    clips = result.table("clips", columns=["clip_id", "set"]).to_pylist()
    pool = {row["clip_id"] for row in clips if row["set"] != "class"}
    for layer in ("late", "head"):
        rows = [row for row in table.to_pylist() if row["layer"] == layer]
        assert {(row["clip_id"], row["class"]) for row in rows} == {(clip, name) for clip in pool for name in CLASSES}
        assert {len(row["responses"]) for row in rows} == {8}
    passes = 2 * len(pool) * 8
    assert result.manifest("responses")["metrics"]["passes"] == passes
    assert reference_clips(planted.config(Path("x")), dict.fromkeys(CLASSES, 20)) == 8


def test_after_the_head_it_is_the_concept_effect_with_its_test_and_its_interval(
    result: Run, first_order: list[dict[str, Any]]
) -> None:
    """Only a linear map follows, so nothing but rounding and a class's saturation-free margin may differ."""
    expected, found = by_cell(first_order), by_cell(result.table("scores").to_pylist())
    assert found.keys() == expected.keys()
    at_head = [key for key in found if key[1] == "head"]
    assert len(at_head) > 20
    same = ("effect", "ci_low", "ci_high", "null_sd", "effect_within", "between_share")
    for key in at_head:
        for name in same:
            assert found[key][name] == pytest.approx(expected[key][name], rel=1e-3, abs=1e-4, nan_ok=True), (key, name)
        for name in ("p", "p_within", "tcav_score", "tcav_p"):
            assert found[key][name] == pytest.approx(expected[key][name], abs=2e-3, nan_ok=True), (key, name)
        assert (found[key]["n_concept"], found[key]["n_random"]) == (
            expected[key]["n_concept"],
            expected[key]["n_random"],
        )


def test_before_it_the_effect_is_in_the_logits_of_the_head(result: Run, first_order: list[dict[str, Any]]) -> None:
    """Without the gain, the first-order effect at `late` is smaller by the number of places; put into clips, not."""
    expected, found = by_cell(first_order), by_cell(result.table("scores").to_pylist())
    late, head = ("lift", "late", UP, "random"), ("lift", "head", UP, "random")
    assert expected[head]["effect"] > 10 * expected[late]["effect"] / expected[late]["gain"]
    assert found[late]["effect"] == pytest.approx(found[head]["effect"], rel=0.2)
    assert found[late]["significant"]
    assert all(found[name, "late", UP, "random"]["effect"] < 0 for name in CLASSES if name != "lift")


def test_the_effect_of_a_cell_is_that_of_its_responses(result: Run) -> None:
    rows = [row for row in result.table("responses").to_pylist() if (row["layer"], row["class"]) == ("late", "lift")]
    values = {row["clip_id"]: (row["video_id"], row["responses"]) for row in rows}
    own, other = ([values[clip] for clip in clips] for clips in sides_of(result))
    expected = response_effect(
        [r for _, r in own], [r for _, r in other], groups=[v for v, _ in (*own, *other)], permutations=100
    )
    row = by_cell(result.table("scores").to_pylist())["lift", "late", UP, "random"]
    assert row["effect"] == pytest.approx(expected.effect, rel=1e-4)
    assert row["z"] == pytest.approx(expected.z, rel=1e-3)
    assert (row["n_concept"], row["n_random"]) == (expected.n_concept, expected.n_random)


def test_the_margin_is_that_of_the_logit_and_the_same_at_every_layer(result: Run) -> None:
    gradients = result.table("gradients", layer="late").to_pylist()
    names = {row["clip_id"]: row["name"] for row in result.table("clips", columns=["clip_id", "name"]).to_pylist()}
    rows = [
        row for row in gradients if row["class"] == "lift" and (row["reference"] or names[row["clip_id"]] == "lift")
    ]
    expected = class_margin(
        [row["value"] for row in rows], [names[row["clip_id"]] for row in rows], "lift",
        groups=[row["video_id"] for row in rows],
    )  # fmt: skip
    scores = [r for r in result.table("scores").to_pylist() if r["layer"] != ANSWER]
    margins = {r["class_margin"] for r in scores if r["class"] == "lift"}
    assert sorted(margins) == pytest.approx([expected], rel=1e-5)
    assert expected > 1


def test_the_command_patch_finds_the_same_effects(result: Run, planted: PlantedRun, folder: Path) -> None:
    wanted = Wanted(layers=("late",), concepts=(UP,))
    rows = patch_run(result, result.config.trusting("here"), wanted).table("patch_effects").to_pylist()
    found = by_cell(result.table("scores").to_pylist())
    assert len(rows) == 4
    for row in rows:
        score = found[tuple(row[name] for name in tables.CELL_KEY)]
        assert row["effect_patch"] == pytest.approx(score["effect"], rel=1e-4)
        assert row["p"] == pytest.approx(score["p"], abs=5e-4)


def test_status_report_and_table_know_the_stage(result: Run, planted: PlantedRun) -> None:
    assert [stage.stage for stage in run_status(result).stages][-3:] == ["responses", "scores", "report"]
    assert "responses" not in [stage.stage for stage in run_status(planted.run).stages]
    page = result.folder.read_bytes("report.html").decode()
    assert "The effects are patch effects" in page
    shown = CliRunner().invoke(cli.app, ["table", result.url, "responses", "--format", "csv"])
    assert shown.exit_code == 0, shown.output


def test_running_again_computes_nothing_and_a_lost_shard_is_computed_again(
    result: Run, planted: PlantedRun, folder: Path
) -> None:
    stage = Path(result.stage("responses").folder.url)
    before = {path: path.read_bytes() for path in stage.rglob("*.parquet")}
    lost = sorted(before)[0]
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in stage.rglob("*.parquet")}
    again = vtcav_ray.run(patch_config(planted, folder))
    assert {name: again.keys[name] for name in ("responses", "scores")} == {
        name: result.keys[name] for name in ("responses", "scores")
    }
    assert lost.read_bytes() == before[lost]  # to the last bit
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_clip_without_a_response_is_left_out_of_every_cell(
    result: Run, copied: Path, planted: PlantedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the lost shard with its response is computed again, and the scores."""
    bad = next(r["clip_id"] for r in result.table("responses").to_pylist() if r["clip_id"].startswith(f"concept/{UP}/"))
    row_of: dict[str, int] = {}
    plain, call = workers.responses, workers.ResponseWorker.__call__

    def noted(self: Any, rows: Any) -> Any:
        row_of.clear()
        row_of.update({clip: i for i, clip in enumerate(rows["clip_id"].to_pylist())})
        return call(self, rows)

    def spoiled(recogniser: Any, layer: str, *rest: Any) -> Any:
        found = plain(recogniser, layer, *rest)
        if bad in row_of and layer == "late":
            found.response[row_of[bad]] = np.nan
        return found

    monkeypatch.setattr(workers.ResponseWorker, "__call__", noted)
    monkeypatch.setattr(workers, "responses", spoiled)
    of_clip = next(
        file
        for file in sorted((copied / "responses").rglob("*.parquet"))
        if any((r["clip_id"], r["layer"]) == (bad, "late") for r in pq.read_table(file).to_pylist())
    )
    of_clip.unlink()
    shutil.rmtree(copied / "scores")
    found = vtcav_ray.run(patch_config(planted, copied))
    failures = [row for row in found.table("failures").to_pylist() if row["stage"] == "responses"]
    assert [(row["clip_id"], row["error_kind"]) for row in failures] == [(bad, "non_finite")]
    before, after = (by_cell(run.table("scores").to_pylist()) for run in (result, found))
    for layer in ("late", "head", ANSWER):  # the same clips at every layer: the cells share their permutations
        key = ("lift", layer, UP, "random")
        assert after[key]["n_concept"] == before[key]["n_concept"] - 1


def test_a_review_runs_no_model(result: Run, planted: PlantedRun, folder: Path) -> None:
    """A rejected reference clip counts no more, though the stage `responses` has it."""
    gradients = result.table("gradients", layer="late")
    reference = sorted(gradients.filter(gradients["reference"])["clip_id"].unique().to_pylist())
    Path(folder, "review.csv").write_text(f"set,name,clip_id,decision,note\nclass,,{reference[0]},reject,\n")
    again = vtcav_ray.run(patch_config(planted, folder))
    assert again.keys["responses"] == result.keys["responses"]
    assert again.keys["scores"] != result.keys["scores"]
    rows = again.table("responses").to_pylist()
    values = {r["clip_id"]: r["responses"][1:] for r in rows if (r["layer"], r["class"]) == ("late", "lift")}
    own, other = ([np.mean(values[clip]) for clip in clips] for clips in sides_of(again))
    row = by_cell(again.table("scores").to_pylist())["lift", "late", UP, "random"]
    assert row["effect"] == pytest.approx(np.mean(own) - np.mean(other), rel=1e-4)


def test_runs_of_patch_effects_are_compared_on_pairs(planted: PlantedRun, result: Run) -> None:
    """A run and itself differ by nothing; a run with first-order effects is in other units."""
    other = Run(str(result.url))
    rows = compare_runs([other, other]).to_pylist()
    found = by_cell(other.table("scores").to_pylist())
    assert len(rows) == len(found)
    for row in rows:
        assert row["paired"] == (row["layer"] != ANSWER)
        assert row["change"] == pytest.approx(0, abs=1e-6)
        assert row["effect_a"] == found[tuple(row[name] for name in tables.CELL_KEY)]["effect"]
    with pytest.raises(ConfigError, match="other units"):
        compare_runs([planted.run, other])
