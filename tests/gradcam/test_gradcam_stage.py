"""The stage on a small planted world: tables, overlays, page, failures, and its link to the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import QUICKSTART, PlantedRun
from tests.helpers.small_runs import run_pickled
from vtcav_ray import cli, engine, tables
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.gradcam.run import run_gradcam
from vtcav_ray.gradcam.stage import STAGE
from vtcav_ray.gradcam.worker import GradcamWorker
from vtcav_ray.heatmaps.examples import plan
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.mp4 import decode_mp4

pytestmark = pytest.mark.slow

SMALL = ["gradcam.layers=[middle]", "gradcam.max_clips=4", "gradcam.overlays=1"]


@pytest.fixture(scope="module", autouse=True)
def pickled(no_ray: None) -> Iterator[None]:
    """Send the worker as to an actor. tests/patch/test_patch_engine.py has a real Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_shards", run_pickled)
        yield


@pytest.fixture(scope="module")
def small(planted: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a run that has clips, and no scores."""
    out = planted.copy(tmp_path_factory.mktemp("copy") / "run", ["videos", "tracks", "clips"])
    return planted.config(out, *SMALL)


@pytest.fixture(scope="module")
def finished(small: Config) -> Run:
    return run_gradcam(small)


def test_there_is_a_row_a_clip_layer_and_mode(finished: Run) -> None:
    table = finished.table("gradcam")
    assert table.schema == tables.GRADCAM
    assert table.num_rows == 4 * 1 * 3
    rows = table.to_pylist()
    assert {row["class"] for row in rows} == {"lift", "put_down", "push_left", "push_right"}
    examples = finished.table("clips", columns=["clip_id", "set"]).to_pylist()
    assert {row["clip_id"] for row in rows} <= {row["clip_id"] for row in examples if row["set"] == "class"}
    for row in rows:
        assert 0 <= row["flicker"] <= 1
        assert 0 <= row["background_share"] <= 1
        assert -1 <= row["direction"] <= 1.000001
        assert row["passes"] == {"frame": 16, "window": 3, "clip": 1}[row["mode"]]
        if row["mode"] == "frame":
            assert row["direction"] == pytest.approx(1)
            assert row["logit_change"] == 0
        if row["mode"] == "clip":  # the planted truth: the model distinguishes a clip from its reverse
            assert row["logit_change"] < -1
            assert row["predicted_reversed"] != row["predicted"] == row["class"]


def test_the_planted_object_is_where_the_map_is(finished: Run) -> None:
    """The whole clip's map lies on the object more than a uniform map; otherwise the boxes are misplaced."""
    whole = [row for row in finished.table("gradcam").to_pylist() if row["mode"] == "clip"]
    assert np.mean([row["background_chance"] - row["background_share"] for row in whole]) > 0.05
    assert np.mean([row["track_agreement"] for row in whole]) > 0.3
    aggregate = finished.stage("gradcam").read("aggregate").to_pylist()
    everything = next(r for r in aggregate if (r["class"], r["mode"]) == ("all", "clip"))
    values = np.array(everything["map"]).reshape(36, 36)
    assert everything["clips"] == 4
    assert np.nanmean(values[12:24, 12:24]) > 1.5 * np.nanmean(values)


def test_overlays_are_films_beside_the_tables(finished: Run) -> None:
    folder = finished.stage("gradcam")
    drawn = folder.read("overlays").to_pylist()
    assert len(drawn) == 4 * 3
    film = decode_mp4(folder.folder.read_bytes(drawn[0]["mp4"]))
    assert film.shape == (16, drawn[0]["height"], drawn[0]["width"], 3)
    assert np.abs(np.diff(film.astype(int), axis=0)).max() > 30  # it moves
    assert folder.folder.read_bytes(drawn[0]["webp"])[8:12] == b"WEBP"


def test_the_page_and_the_tables_are_found(finished: Run) -> None:
    page = Path(finished.url, "gradcam.html").read_text()
    assert "This run has no scores" in page
    assert page.count("data:image/webp") == 12
    result = CliRunner().invoke(cli.app, ["table", finished.url, "gradcam", "--format", "csv"])
    assert result.exit_code == 0
    assert result.output.splitlines()[0].replace('"', "").split(",") == tables.GRADCAM.names
    summary = finished.table("gradcam_summary").to_pylist()
    flicker = next(r for r in summary if (r["class"], r["mode"], r["measure"]) == ("all", "frame", "flicker"))
    assert flicker["n"] == 4
    assert flicker["ci_low"] < flicker["mean"] < flicker["ci_high"]


def test_running_again_and_by_the_command_re_uses_everything(
    finished: Run, small: Config, planted: PlantedRun, tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(small.run_url).rglob("*.parquet")}
    record = Path(small.run_url, "run.json").read_bytes()
    settings = [*planted.overrides, *(setting for setting in SMALL if not setting.startswith("gradcam.max"))]
    options = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(cli.app, ["gradcam", QUICKSTART, "--out", small.run_url, "--limit", "4", *options])
    assert result.exit_code == 0, result.output
    assert "re-used" in result.output
    assert {p: p.stat().st_mtime_ns for p in Path(small.run_url).rglob("*.parquet")} == before
    assert Path(small.run_url, "run.json").read_bytes() == record  # the run's record does not change
    # With other clips, the maps of the earlier ones no longer belong to this run.
    there = finished.folder.read_json("run.json")
    other = tmp_path / "run"
    Folder(str(other)).write_json("run.json", {**there, "keys": {**there["keys"], "clips": "another"}})
    (other / "gradcam.json").write_bytes(Path(small.run_url, "gradcam.json").read_bytes())
    assert "gradcam" not in Run(str(other)).keys
    asked = CliRunner().invoke(cli.app, ["table", str(other), "gradcam"])
    assert "vtcav gradcam CONFIG" in str(asked.exception)


def test_a_clip_that_can_not_be_used_is_a_failure(finished: Run, small: Config) -> None:
    """Of two clips, one has a class that the model does not have. The other is still processed."""
    clips, tracks = finished.stage("clips"), finished.stage("tracks")
    rows = plan(clips, tracks, "gradcam", most=None, overlays=0, seed=0).slice(0, 2).to_pylist()
    rows[0]["class"] = "juggle"
    changed = small.model_copy(update={"gradcam": small.gradcam.model_copy(update={"modes": ("clip",)})})
    worker = GradcamWorker(changed, clips, tracks, finished.stage("gradcam").folder)
    output = worker(pa.Table.from_pylist(rows))
    assert [(f.clip_id, f.error_kind) for f in output.failures] == [(rows[0]["clip_id"], "label")]
    assert output.tables["gradcam"]["clip_id"].to_pylist() == [rows[1]["clip_id"]]


def test_the_share_in_a_place_adds_up_over_places_and_is_that_of_the_map(finished: Run, small: Config) -> None:
    clips, tracks = finished.stage("clips"), finished.stage("tracks")
    rows = plan(clips, tracks, "gradcam", most=2, overlays=0, seed=0)
    assert finished.stage("gradcam").read("gradcam_places") is None, "no place was asked about"

    def shares(*place: float) -> np.ndarray:
        settings = small.gradcam.model_copy(update={"modes": ("clip",), "place": place})
        worker = GradcamWorker(small.model_copy(update={"gradcam": settings}), clips, tracks, finished.folder)
        table = worker(rows).tables["gradcam_places"]
        assert table.schema == tables.GRADCAM_PLACES
        return np.stack([table["place_share"], table["place_area"]], axis=1)

    left, right, everywhere = shares(0, 0, 0.4, 1), shares(0.4, 0, 1, 1), shares(0, 0, 1, 1)
    np.testing.assert_allclose(everywhere, 1, rtol=1e-6)
    np.testing.assert_allclose(left + right, 1, rtol=1e-5)
    np.testing.assert_allclose(left[:, 1], 0.4, atol=0.02)  # the model crops the sides of wide frames off
    assert np.abs(left[:, 0] - 0.4).max() > 0.02, "the maps are not the same everywhere"


def test_the_command_reports_the_share_in_a_place(small: Config, planted: PlantedRun, tmp_path: Path) -> None:
    out = planted.copy(tmp_path / "run", ["videos", "tracks", "clips"])
    settings = [*planted.overrides, *SMALL, "gradcam.max_clips=8", "gradcam.modes=[clip]"]
    options = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(
        cli.app, ["gradcam", QUICKSTART, "--out", str(out), "--place", "0,0,0.5,1", *options], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    assert "Maps' mass in the place" in result.output
    run = Run(str(out))
    summary = {row["class"]: row for row in run.table("gradcam_places_summary").to_pylist()}
    assert set(summary) == {"all", "lift", "put_down", "push_left", "push_right"}
    values = run.table("gradcam_places")["place_share"].to_numpy()
    assert summary["all"]["median"] == pytest.approx(np.median(values))
    assert values.min() <= summary["all"]["ci_low"] <= summary["all"]["median"] <= summary["all"]["ci_high"]
    assert summary["all"]["area"] == pytest.approx(0.5, abs=0.02)
    assert summary["lift"]["ci_low"] is None, "two videos have no interval"
    page = Path(out, "gradcam.html").read_text()
    assert "0 to 50 % of the width, 0 to 100 % of the height" in page
    assert f"{100 * summary['all']['median']:.1f} %" in page
    assert STAGE.key(Context(small, run.folder, {n: run.stage(n) for n in STAGE.inputs})) != run.keys["gradcam"]


def test_rejected_clips_are_not_looked_at(finished: Run, small: Config) -> None:
    inputs = {name: finished.stage(name) for name in STAGE.inputs}
    before = Context(small, finished.folder, inputs)
    wanted = STAGE.prepare(before)
    chosen = sorted(c for shard in wanted.shards for c in shard.rows["clip_id"].to_pylist())
    review = Path(finished.url, "review.csv")
    try:
        review.write_text(f"set,name,clip_id,decision,note\nclass,,{chosen[0]},reject,a hand in view\n")
        after = Context(small, finished.folder, inputs)
        left = sorted(c for shard in STAGE.prepare(after).shards for c in shard.rows["clip_id"].to_pylist())
        assert chosen[0] not in left
        assert set(chosen[1:]) < set(left)  # another clip of its class replaces it
        assert STAGE.key(after) != STAGE.key(before)
        # A decision about a clip without maps changes nothing, because the maps take minutes.
        review.write_text("set,name,clip_id,decision,note\nconcept,cup/spatial,,reject,\n")
        assert STAGE.key(Context(small, finished.folder, inputs)) == STAGE.key(before)
        review.write_text(
            "set,name,clip_id,decision,note\n"
            + "".join(f"class,{name},,reject,\n" for name in ("lift", "put_down", "push_left", "push_right"))
        )
        with pytest.raises(StageError, match=r"review\.csv rejects them all"):
            STAGE.prepare(Context(small, finished.folder, inputs))
    finally:
        review.unlink()
