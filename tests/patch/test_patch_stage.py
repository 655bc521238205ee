"""`vtcav patch` on a small planted run: tables, choice of cells, failures, resumption, cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun, opened
from vtcav_ray import cli, tables
from vtcav_ray.config import Config
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
from vtcav_ray.watch.rerun import reopened

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_ray")]

UP = "moving up/context"
CLASSES = ["lift", "push_left", "push_right", "put_down"]
TWO_LAYERS = Wanted(layers=("late", "head"), concepts=(UP,))


@pytest.fixture(scope="module")
def patched(planted_copy: str) -> Run:
    """A run with the patch effects of one concept on all classes at the last two layers."""
    return patch_run(*opened(planted_copy), TWO_LAYERS)


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


def test_the_concept_effect_is_the_first_order_change_where_each_clip_has_its_own_gain(planted_copy: str) -> None:
    wanted = Wanted(("lift",), ("early@moving",), (UP,), significant=False)
    (row,) = patch_run(*opened(planted_copy), wanted).table("patch_effects").to_pylist()
    of_layer = opened(planted_copy)[0].table("gradients", layer="early@moving").to_pylist()
    gradients = [row for row in of_layer if row["reference"]]
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


def test_the_first_order_column_is_the_gradient_at_the_reference_set(planted_copy: str, patched: Run) -> None:
    run, _ = opened(planted_copy)
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


def test_pairs_are_compared_clip_by_clip(planted_copy: str) -> None:
    wanted = Wanted(("lift",), ("head",), ("cup/spatiotemporal",), "cup/frozen")
    result = patch_run(*opened(planted_copy), wanted)
    (row,) = result.table("patch_effects").to_pylist()
    assert row["n_concept"] == row["n_random"]
    assert np.isnan(row["spread_ratio"])
    assert row["effect_patch"] == pytest.approx(row["effect_first_order"], rel=1e-3, abs=1e-5)
    assert 0 < row["p"] <= 1


@pytest.mark.parametrize("layer", ["early@moving"])
def test_a_projection_that_differs_from_clip_to_clip_has_a_patch_effect(planted_copy: str, layer: str) -> None:
    result = patch_run(*opened(planted_copy), Wanted(("lift",), (layer,), (UP,)), limit_reference=4)
    (row,) = result.table("patch_effects").to_pylist()
    assert row["references"] == 4
    assert row["effect_patch"] > 0
    assert np.isfinite(row["z"])


def test_the_choice_of_cells(planted_copy: str) -> None:
    run, _ = opened(planted_copy)
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
        _, other, _ = reopened(planted_copy, [override])
        with pytest.raises(ConfigError, match=match):
            patch_run(run, other, TWO_LAYERS)


def test_cells_without_an_effect_can_be_left_out(planted_copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`vtcav intervene` has nothing to predict there; `vtcav patch` takes them, and says why figures are missing."""
    run, _ = opened(planted_copy)
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


def test_significant_cells_are_taken_by_the_size_of_z(planted_copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = opened(planted_copy)
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


def test_cells_chosen_by_their_p_are_no_independent_test(planted_copy: str, patched: Run) -> None:
    assert CHOSEN_BY_P not in patched.manifest("patch")["warnings"]
    cells = (CellKey("lift", "head", UP, "random"),)
    run, config = opened(planted_copy)
    inputs = {name: run.stage(name) for name in patch_stage(Chosen(cells, True)).inputs}
    context = Context(config, run.folder, inputs)
    assert CHOSEN_BY_P in patch_stage(Chosen(cells, True)).prepare(context).warnings
    assert patch_stage(Chosen(cells, True)).key(context) != patch_stage(Chosen(cells, False)).key(context)


def test_a_clip_with_a_response_that_is_no_number_is_a_failure(
    planted_copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its comparison goes on without it."""
    run, config = opened(planted_copy)
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
    planted_copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = opened(planted_copy)
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


def test_the_cost_is_known_before(planted_copy: str) -> None:
    found = cost(*opened(planted_copy), TWO_LAYERS, limit_reference=3)
    assert found.cells == 8
    assert found.passes == {"late": 32 * 3, "head": 32 * 3}
    metrics = opened(planted_copy)[0].manifest("activations")["metrics"]
    passes = metrics["clips"] + BACKWARD * metrics["gradients"]
    assert found.seconds_a_pass == pytest.approx(metrics["seconds"] / passes)
    words = ["patch", planted_copy, "--cells", "all", "--layer", "head", "--limit-reference", "3", "--dry-run"]
    reported = CliRunner().invoke(cli.app, words)
    assert reported.exit_code == 0, reported.output
    assert "pool clips x 3 reference clips" in reported.stdout
    assert "at most" in reported.stdout


def test_the_command_prints_the_rows_and_running_again_re_uses_them(planted_copy: str, patched: Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(planted_copy).rglob("*.parquet")}
    words = ["patch", planted_copy, "--cells", "all", "--layer", "late", "--layer", "head", "--concept", UP]
    reported = CliRunner().invoke(cli.app, [*words, "--json"])
    assert reported.exit_code == 0, reported.output
    assert json.loads(reported.stdout) == patched.table("patch_effects").to_pylist()
    assert {p: p.stat().st_mtime_ns for p in Path(planted_copy).rglob("*.parquet")} == before
    shown = CliRunner().invoke(cli.app, words)
    assert "lift" in shown.stdout
    table = CliRunner().invoke(cli.app, ["table", planted_copy, "patch_effects", "--format", "csv"])
    assert table.output.splitlines()[0].replace('"', "").split(",") == tables.PATCH_EFFECTS.names
    assert CliRunner().invoke(cli.app, [*words, "--cells", "some"]).exit_code == 2


def test_a_run_without_the_stage_says_how_to_get_it(planted: PlantedRun) -> None:
    with pytest.raises(ConfigError, match=f"Run `vtcav patch {planted.run.url}`"):
        planted.run.table("patch_effects")
