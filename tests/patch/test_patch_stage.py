"""`vtcav patch` on a small planted run: tables, choice of cells, failures, resumption, cost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun
from tests.helpers.small_runs import without_ray
from tests.helpers.waiting import wait_for
from vtcav_ray import cli, engine, tables
from vtcav_ray.config import Config, ResourcesConfig
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.errors import ConfigError, InputError, StageError
from vtcav_ray.patch.plan import Chosen
from vtcav_ray.patch.run import cost, patch_run
from vtcav_ray.patch.stage import CHOSEN_BY_P, patch_stage
from vtcav_ray.patch.worker import PatchWorker
from vtcav_ray.report import ReportData
from vtcav_ray.responses import worker as workers
from vtcav_ray.responses.reference import read_reference
from vtcav_ray.runs.costs import BACKWARD
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context
from vtcav_ray.scores.choose import CellKey, Wanted, choose
from vtcav_ray.scores.sides import accepted, comparisons
from vtcav_ray.stages import ANSWER
from vtcav_ray.tcav import concept_effect
from vtcav_ray.watch.rerun import reopened

pytestmark = pytest.mark.slow

UP = "moving up/context"
CLASSES = ["lift", "push_left", "push_right", "put_down"]
TWO_LAYERS = Wanted(layers=("late", "head"), concepts=(UP,))


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
def patched(folder: str) -> Run:
    """A run with the patch effects of one concept on all classes at the last two layers."""
    return patch_run(*opened(folder), TWO_LAYERS)


def worker_of(run: Run, config: Config, chosen: Chosen) -> tuple[PatchWorker, list[pa.Table]]:
    inputs = {name: run.stage(name) for name in patch_stage(chosen).inputs}
    work = patch_stage(chosen).prepare(Context(config, run.folder, inputs))
    made = work.make_worker()
    assert isinstance(made, PatchWorker)
    return made, [shard.rows for shard in work.shards]


def test_there_is_a_row_a_layer_pool_clip_and_class(patched: Run) -> None:
    table = patched.table("patched")
    assert table.schema == tables.PATCHED
    activations = accepted(patched.stage("activations"), patched.stage("cavs"))
    sides = comparisons(activations, "late", patched.config)[UP, "random"]
    clips = {*sides.concept.clips, *sides.other.clips}
    assert len(clips) == 8 + 24
    for layer in ("late", "head"):
        rows = [row for row in table.to_pylist() if row["layer"] == layer]
        assert {(row["clip_id"], row["class"]) for row in rows} == {(clip, name) for clip in clips for name in CLASSES}
        assert len(rows) == len(clips) * len(CLASSES)
        assert {row["references"] for row in rows} == {8}
    assert patched.manifest("patch")["metrics"]["passes"] == 2 * 32 * 8


def test_the_effects_are_those_of_the_responses(patched: Run) -> None:
    rows = patched.table("patch_effects").to_pylist()
    assert patched.table("patch_effects").schema == tables.PATCH_EFFECTS
    assert {(row["class"], row["layer"]) for row in rows} == {(k, layer) for k in CLASSES for layer in ("late", "head")}
    scores = {tuple(row[n] for n in tables.CELL_KEY): row for row in patched.table("scores").to_pylist()}
    responses = {(r["clip_id"], r["layer"], r["class"]): r["response"] for r in patched.table("patched").to_pylist()}
    activations = accepted(patched.stage("activations"), patched.stage("cavs"))
    for row in rows:
        sides = comparisons(activations, row["layer"], patched.config)[row["concept"], row["against"]]
        own, other = (
            np.array([responses[clip, row["layer"], row["class"]] for clip in side.clips])
            for side in (sides.concept, sides.other)
        )
        assert row["effect_patch"] == pytest.approx(own.mean() - other.mean())
        null_sd = other.std(ddof=1) * np.sqrt(1 / len(own) + 1 / len(other))
        assert row["z"] == pytest.approx(row["effect_patch"] / null_sd)
        assert (row["n_concept"], row["n_random"]) == (8, 24)
        assert 0 < row["p"] <= row["q"] <= 1
        assert row["note"] == ""
        score = scores[tuple(row[n] for n in tables.CELL_KEY)]
        assert row["effect"] == score["effect"]
        assert row["same_sign"] == (row["effect_patch"] * score["effect"] > 0)


def test_after_the_head_the_patch_effect_is_the_concept_effect(patched: Run) -> None:
    """Only a linear map follows, so it is also its own first-order prediction."""
    rows = [row for row in patched.table("patch_effects").to_pylist() if row["layer"] == "head"]
    assert len(rows) == 4
    for row in rows:
        assert row["effect_patch"] == pytest.approx(row["effect"], rel=1e-3)
        assert row["effect_patch"] == pytest.approx(row["effect_first_order"], rel=1e-3)
        assert row["same_sign"]


def test_the_concept_effect_is_the_first_order_change_at_every_layer(patched: Run) -> None:
    for row in patched.table("patch_effects").to_pylist():
        assert row["effect"] == pytest.approx(row["effect_first_order"], rel=1e-3, abs=1e-4), row["layer"]
    gains = {row["layer"]: row["gain"] for row in patched.table("scores").to_pylist()}
    assert gains["early"] > gains["late"] > gains["head"] == 1


def test_the_concept_effect_is_the_first_order_change_where_each_clip_has_its_own_gain(folder: str) -> None:
    wanted = Wanted(("lift",), ("early@moving",), (UP,), significant=False)
    (row,) = patch_run(*opened(folder), wanted).table("patch_effects").to_pylist()
    gradients = [r for r in opened(folder)[0].table("gradients", layer="early@moving").to_pylist() if r["reference"]]
    assert len({r["gain"] for r in gradients}) > 1
    assert row["effect"] == pytest.approx(row["effect_first_order"], rel=1e-3)


def test_the_report_shows_the_finite_change_beside_the_effect(patched: Run) -> None:
    rows = {tuple(r[n] for n in tables.CELL_KEY): r for r in patched.table("patch_effects").to_pylist()}
    shown = ReportData.from_run(patched).scores
    for row in shown.to_pylist():
        expected = rows.get(tuple(row[n] for n in tables.CELL_KEY))
        figures = (None, None) if expected is None else (expected["effect_patch"], expected["q"])
        assert (row["effect_patch"], row["q_patch"]) == figures
    assert len(rows) == 8
    assert "effect_patch" in patched.folder.read_bytes("report.html").decode()


def test_the_planted_motion_raises_its_class_and_lowers_the_others(patched: Run) -> None:
    rows = {row["class"]: row for row in patched.table("patch_effects").to_pylist() if row["layer"] == "late"}
    assert rows["lift"]["z"] > 3
    assert rows["lift"]["q"] < 0.05
    assert all(rows[name]["effect_patch"] < 0 for name in CLASSES if name != "lift")


def test_the_first_order_column_is_the_gradient_at_the_reference_set(folder: str, patched: Run) -> None:
    run, _ = opened(folder)
    activations = accepted(run.stage("activations"), run.stage("cavs"))
    gradients = read_reference(activations, "head", None, run.config.seed)
    assert set(gradients["class"].to_pylist()) == set(CLASSES)
    assert set(gradients["reference"].to_pylist()) == {True}
    half = read_reference(activations, "head", 4, run.config.seed)
    assert half["clip_id"].unique().to_pylist() != gradients["clip_id"].unique().to_pylist()
    names = run.table("clips", columns=["clip_id", "name"]).to_pylist()
    name_of = {row["clip_id"]: row["name"] for row in names}
    assert sorted(name_of[clip] for clip in half["clip_id"].unique().to_pylist()) == CLASSES  # one of each
    assert set(half["clip_id"].to_pylist()) < set(gradients["clip_id"].to_pylist())


def test_pairs_are_compared_clip_by_clip(folder: str) -> None:
    wanted = Wanted(("lift",), ("head",), ("cup/spatiotemporal",), "cup/frozen")
    result = patch_run(*opened(folder), wanted)
    (row,) = result.table("patch_effects").to_pylist()
    assert row["n_concept"] == row["n_random"]
    assert np.isnan(row["spread_ratio"])
    assert row["effect_patch"] == pytest.approx(row["effect_first_order"], rel=1e-3, abs=1e-5)
    assert 0 < row["p"] <= 1


@pytest.mark.parametrize("layer", ["early@moving"])
def test_a_projection_that_differs_from_clip_to_clip_has_a_patch_effect(folder: str, layer: str) -> None:
    result = patch_run(*opened(folder), Wanted(("lift",), (layer,), (UP,)), limit_reference=4)
    (row,) = result.table("patch_effects").to_pylist()
    assert row["references"] == 4
    assert row["effect_patch"] > 0
    assert np.isfinite(row["z"])


def test_the_choice_of_cells(folder: str) -> None:
    run, _ = opened(folder)
    scores = run.table("scores").to_pylist()
    every = choose(run, Wanted(significant=False))
    assert len(every) == sum(row["against"] == "random" and row["layer"] != ANSWER for row in scores)
    some = choose(run, Wanted(("lift",), ("late", "head"), (UP,)))
    assert sorted(some) == [CellKey("lift", "head", UP, "random"), CellKey("lift", "late", UP, "random")]
    assert choose(run, Wanted(("lift",), ("late", "head"), (UP,), most=1)) == some[:1]
    for wrong, match in (
        (Wanted(layers=("nose",)), "--layer 'nose'"),
        (Wanted(layers=(ANSWER,)), "--layer 'answer'"),  # no activation that could be changed
        (Wanted(against="nobody"), "nobody"),
        (Wanted(classes=("put_down",), concepts=("cup/spatial",), significant=True), "--cells all"),
    ):
        with pytest.raises(ConfigError, match=match):
            choose(run, wrong)
    for override, match in (
        ("clips.per_concept=7", "`clips` differs"),
        ("model.checkpoint=untrained", "is now UNTRAINED"),
    ):
        _, other, _ = reopened(folder, [override])
        with pytest.raises(ConfigError, match=match):
            patch_run(run, other, TWO_LAYERS)


def test_cells_without_an_effect_can_be_left_out(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`vtcav intervene` has nothing to predict there; `vtcav patch` takes them, and says why figures are missing."""
    run, _ = opened(folder)
    scores = run.table("scores")
    z = np.array(scores["z"].to_pylist())
    spoiled_rows = np.flatnonzero(np.array(scores["against"].to_pylist()) == "random")[:5]
    z[spoiled_rows] = np.nan
    place = scores.column_names.index("z")
    spoiled = scores.set_column(place, "z", pa.array(z))
    monkeypatch.setattr(run, "table", lambda *_, **__: spoiled)
    bad = {CellKey(*(row[n] for n in tables.CELL_KEY)) for row in spoiled.take(spoiled_rows).to_pylist()}
    every, measured = choose(run, Wanted()), choose(run, Wanted(measured=True))
    assert set(every) - set(measured) == bad
    assert measured == tuple(cell for cell in every if cell not in bad)
    cell = min(bad)
    only = Wanted((cell.class_,), (cell.layer,), (cell.concept,), measured=True)
    with pytest.raises(ConfigError, match="No comparison with an effect"):
        choose(run, only)


def test_significant_cells_are_taken_by_the_size_of_z(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = opened(folder)
    scores = run.table("scores")
    z = np.abs(np.asarray(scores["z"]))
    called = pa.array(z > 2.0, pa.bool_())
    place = scores.column_names.index("significant")
    monkeypatch.setattr(run, "table", lambda *_, **__: scores.set_column(place, "significant", called))
    rows = [row for row in scores.to_pylist() if abs(row["z"]) > 2 and row["against"] == "random"]
    rows = [row for row in rows if row["layer"] != ANSWER]
    rows.sort(key=lambda row: -abs(row["z"]))
    assert len(rows) > 3
    expected = [CellKey(*(row[n] for n in tables.CELL_KEY)) for row in rows]
    assert choose(run, Wanted(significant=True, most=3)) == tuple(expected[:3])
    assert choose(run, Wanted(significant=True)) == tuple(expected)


def test_cells_chosen_by_their_p_are_no_independent_test(folder: str, patched: Run) -> None:
    assert CHOSEN_BY_P not in patched.manifest("patch")["warnings"]
    cells = (CellKey("lift", "head", UP, "random"),)
    run, config = opened(folder)
    inputs = {name: run.stage(name) for name in patch_stage(Chosen(cells, True)).inputs}
    context = Context(config, run.folder, inputs)
    assert CHOSEN_BY_P in patch_stage(Chosen(cells, True)).prepare(context).warnings
    assert patch_stage(Chosen(cells, True)).key(context) != patch_stage(Chosen(cells, False)).key(context)


def test_a_clip_with_a_response_that_is_no_number_is_a_failure(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its comparison goes on without it."""
    run, config = opened(folder)
    cell = CellKey("lift", "head", UP, "random")
    worker, (rows, *_) = worker_of(run, config, Chosen((cell,), False))
    bad = rows["clip_id"][3].as_py()
    plain = workers.responses

    def spoiled(recogniser: Any, layer: str, vectors: np.ndarray, *rest: Any) -> Any:
        found = plain(recogniser, layer, vectors, *rest)
        found.response[3] = np.nan
        return found

    monkeypatch.setattr(workers, "responses", spoiled)
    output = worker(rows)
    assert [(f.clip_id, f.error_kind) for f in output.failures] == [(bad, "non_finite")]
    assert bad not in output.tables["patched/layer=head"]["clip_id"].to_pylist()
    assert output.tables["patched/layer=head"].num_rows == rows.num_rows - 1
    result = patch_run(run, config, Wanted(("lift",), ("head",), (UP,)))
    (row,) = result.table("patch_effects").to_pylist()
    assert sorted((row["n_concept"], row["n_random"])) in ([7, 24], [8, 23])
    failures = [row for row in result.table("failures").to_pylist() if row["stage"] == "patch"]
    assert [(row["clip_id"], row["error_kind"]) for row in failures] == [(bad, "non_finite")]


def test_a_reference_clip_that_can_not_be_decoded_is_left_out_and_named_once(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = opened(folder)
    chosen = Chosen((CellKey("lift", "late", UP, "random"), CellKey("lift", "head", UP, "random")), False)
    activations = accepted(run.stage("activations"), run.stage("cavs"))
    reference = read_reference(activations, "head", None, config.seed)["clip_id"].unique().to_pylist()
    encoded = {row["clip_id"]: row["encoded"] for row in run.table("clips").to_pylist() if row["clip_id"] in reference}
    decode = workers.decode_clip

    def broken(encoding: str, data: bytes) -> np.ndarray:
        if data == encoded[reference[0]]:
            raise InputError("decode", "broken")
        return decode(encoding, data)

    monkeypatch.setattr(workers, "decode_clip", broken)
    worker, shards = worker_of(run, config, chosen)
    outputs = [worker(rows) for rows in shards]
    assert len(shards) == 2
    named = [(f.clip_id, f.error_kind) for output in outputs for f in output.failures]
    assert named == [(reference[0], "decode")]
    for output in outputs:
        (table,) = output.tables.values()
        assert set(table["references"].to_pylist()) == {7}
    monkeypatch.setattr(workers, "decode_clip", lambda *_: (_ for _ in ()).throw(InputError("decode", "all broken")))
    worker, (rows, *_) = worker_of(run, config, chosen)
    with pytest.raises(StageError, match="all broken"):
        worker(rows)


def test_the_cost_is_known_before(folder: str) -> None:
    found = cost(*opened(folder), TWO_LAYERS, limit_reference=3)
    assert found.cells == 8
    assert found.passes == {"late": 32 * 3, "head": 32 * 3}
    metrics = opened(folder)[0].manifest("activations")["metrics"]
    passes = metrics["clips"] + BACKWARD * metrics["gradients"]
    assert found.seconds_a_pass == pytest.approx(metrics["seconds"] / passes)
    words = ["patch", folder, "--cells", "all", "--layer", "head", "--limit-reference", "3", "--dry-run"]
    reported = CliRunner().invoke(cli.app, words)
    assert reported.exit_code == 0, reported.output
    assert "pool clips x 3 reference clips" in reported.stdout
    assert "at most" in reported.stdout


def test_the_command_prints_the_rows_and_running_again_re_uses_them(folder: str, patched: Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*.parquet")}
    words = ["patch", folder, "--cells", "all", "--layer", "late", "--layer", "head", "--concept", UP]
    reported = CliRunner().invoke(cli.app, [*words, "--json"])
    assert reported.exit_code == 0, reported.output
    assert json.loads(reported.stdout) == patched.table("patch_effects").to_pylist()
    assert {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*.parquet")} == before
    shown = CliRunner().invoke(cli.app, words)
    assert "lift" in shown.stdout
    table = CliRunner().invoke(cli.app, ["table", folder, "patch_effects", "--format", "csv"])
    assert table.output.splitlines()[0].replace('"', "").split(",") == tables.PATCH_EFFECTS.names
    assert CliRunner().invoke(cli.app, [*words, "--cells", "some"]).exit_code == 2


def test_a_run_without_the_stage_says_how_to_get_it(planted: PlantedRun) -> None:
    with pytest.raises(ConfigError, match=f"Run `vtcav patch {planted.run.url}`"):
        planted.run.table("patch_effects")


KILLED = """
import sys
from tests.helpers.small_runs import without_ray
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.patch.run import patch_run
from vtcav_ray.responses import stage
from vtcav_ray.watch.rerun import reopened

stage.CLIPS_A_SHARD = 4
run, config, _ = reopened(sys.argv[1])
with without_ray():
    patch_run(run, config, Wanted(("lift",), ("early",), ("moving up/context",)))
"""


def test_a_killed_run_resumes_with_its_missing_shards(
    planted: PlantedRun, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(planted.copy(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", KILLED, own], cwd=Path(__file__).parents[2])

    def commits() -> list[Path]:
        return sorted(Path(own, "patch").glob("*/_commits/*.json"))

    try:
        wait_for(lambda: len(commits()) >= 2, process=process)
    finally:
        process.kill()
        process.wait()
    done = {p: p.read_bytes() for p in commits()}
    assert not list(Path(own, "patch").glob("*/manifest.json")), "it was killed too late"
    assert not Path(own, "patch.json").exists()
    monkeypatch.setattr("vtcav_ray.responses.stage.CLIPS_A_SHARD", 4)
    wanted = Wanted(("lift",), ("early",), (UP,))
    result = patch_run(*opened(own), wanted)
    manifest = result.manifest("patch")
    assert manifest["resumed"]
    assert len(manifest["shards"]) == 32 // 4 + 1
    assert {p: p.read_bytes() for p in done} == done
    uninterrupted = patch_run(*opened(folder), wanted)
    for name in ("patched", "patch_effects"):
        assert result.table(name).equals(uninterrupted.table(name)), name


def test_it_runs_on_ray(folder: str) -> None:
    with ray_session(ResourcesConfig(num_cpus=2)), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_shards", run_shards)
        result = patch_run(*opened(folder), Wanted(("lift",), ("head",), ("cup/spatial",)))
    assert result.manifest("patch")["metrics"]["seconds"] > 0  # an actor's
    (row,) = result.table("patch_effects").to_pylist()
    gradients = [
        r for r in result.table("gradients", layer="head").to_pylist() if r["reference"] and r["class"] == "lift"
    ]
    pool = {row["clip_id"]: row["vector"] for row in result.table("activations", layer="head").to_pylist()}
    activations = accepted(result.stage("activations"), result.stage("cavs"))
    sides = comparisons(activations, "head", result.config)["cup/spatial", "random"]
    own, other = (np.array([pool[clip] for clip in side.clips]) for side in (sides.concept, sides.other))
    expected = concept_effect(
        [r["vector"] for r in gradients], own, other, groups=sides.concept.videos + sides.other.videos
    )
    assert row["effect"] == pytest.approx(expected.effect, rel=1e-3)  # the gain after the head is 1
    assert row["z"] == pytest.approx(expected.z, rel=1e-2)
