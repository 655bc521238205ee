"""Grad-CAM's worker on clips of one red square, whose maps are the square itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.colour_squares import (
    FRAMES,
    SIDE,
    SQUARE,
    WEIGHT,
    clip_row,
    clips_of,
    config_of,
    square_clip,
    square_track,
    tracks_of,
)
from vtcav_ray import tables
from vtcav_ray.gradcam.summary import ALL, finished
from vtcav_ray.gradcam.worker import GradcamWorker
from vtcav_ray.heatmaps.examples import plan
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.mp4 import decode_mp4

STARTS = {"a": 2, "b": 0}  # video -> left edge of its square in the first frame


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[StageFolder, StageFolder]:
    """Clips of two videos with tracks, one of a class that the model lacks, one that is broken, one without a track."""
    folder = Folder(str(tmp_path))
    rows = [clip_row(f"red/{v}", v, "red", square_clip(start)) for v, start in STARTS.items()]
    rows.append(clip_row("juggle/c", "c", "juggle", square_clip()))
    rows.append(clip_row("red/d", "d", "red", b"no clip at all, but long enough"))
    rows.append(clip_row("red/e", "e", "red", square_clip(5)))
    tracks = [square_track(v, start) for v, start in STARTS.items()]
    return clips_of(folder, rows), tracks_of(folder, tracks)


def made(inputs: tuple[StageFolder, StageFolder], folder: Folder, **gradcam: Any) -> ShardOutput:
    config = config_of(gradcam={"layers": ["early"], "window": 4, "stride": 2, **gradcam})
    rows = plan(*inputs, "gradcam", most=None, overlays=0, seed=0)
    assert rows["tracks_shard"].to_pylist() == ["0", "0", None, None, None]
    return GradcamWorker(config, *inputs, folder)(rows)


def by_key(output: ShardOutput) -> dict[tuple[str, str], dict[str, Any]]:
    assert output.tables["gradcam"].schema == tables.GRADCAM
    return {(row["clip_id"], row["mode"]): row for row in output.tables["gradcam"].to_pylist()}


def test_the_map_of_a_square_is_the_square(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    rows = by_key(made(inputs, Folder(str(tmp_path))))
    assert set(rows) == {(f"red/{v}", mode) for v in "abe" for mode in ("frame", "window", "clip")}
    for (clip, mode), row in rows.items():
        assert (row["class"], row["layer"], row["video_id"]) == ("red", "early", clip[-1])
        assert row["logit"] == pytest.approx(WEIGHT * SQUARE**2 / SIDE**2, rel=1e-5)
        assert row["predicted"] == row["predicted_reversed"] == "red"
        assert row["logit_change"] == pytest.approx(0, abs=1e-6)
        assert row["passes"] == {"frame": 8, "window": 3, "clip": 1}[mode]
        assert row["direction"] == pytest.approx(1, abs=1e-5)
        assert -1 <= row["shuffled_weights_similarity"] <= 1
        if clip == "red/e":
            assert row["background_share"] is row["pointing"] is row["track_agreement"] is None
            continue
        if mode != "window":  # in a window, each place that it covers has a share
            assert row["background_share"] == pytest.approx(0, abs=1e-6)
        assert row["background_chance"] == pytest.approx(1 - SQUARE**2 / SIDE**2)
        assert row["pointing"] == 1
        assert row["track_agreement"] == pytest.approx(1, abs=1e-4)
        for measure in ("flicker", "jump", "drift_x", "drift_y"):
            assert row[measure] == pytest.approx(row[f"track_{measure}"], abs=1e-5)
    assert rows["red/a", "clip"]["drift_x"] > 0.1 > abs(rows["red/a", "clip"]["drift_y"])


def test_a_clip_without_evidence_has_no_map_and_reversing_it_turns_the_logit(tmp_path: Path) -> None:
    """No colour speaks for `fades` in the mean over the clip, so its map is zero everywhere."""
    folder = Folder(str(tmp_path))
    clips = clips_of(folder, [clip_row("fades/a", "a", "fades", square_clip(fading=30))])
    config = config_of(gradcam={"layers": ["early"], "modes": ["clip"]})
    rows = plan(clips, None, "gradcam", most=None, overlays=0, seed=0)
    output = GradcamWorker(config, clips, None, folder)(rows)
    row = by_key(output)["fades/a", "clip"]
    assert row["logit"] == pytest.approx(4 * 30 / 255 * SQUARE**2 / SIDE**2, rel=1e-5)
    assert row["logit_change"] == pytest.approx(-2 * row["logit"], rel=1e-5)
    assert row["empty_share"] == 1
    assert row["flicker"] is row["jump"] is row["drift_x"] is row["direction"] is None
    assert "aligned" not in output.tables


def test_clips_that_can_not_be_used_are_failures(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    output = made(inputs, Folder(str(tmp_path)), modes=["clip"])
    kinds = {failure.clip_id: (failure.video_id, failure.error_kind) for failure in output.failures}
    assert kinds == {"juggle/c": ("c", "label"), "red/d": ("d", "decode")}
    (message,) = (failure.message for failure in output.failures if failure.clip_id == "juggle/c")
    assert "no class 'juggle'" in message
    assert "videos.labels" in message
    assert output.metrics["clips"] == 3
    assert output.metrics["overlays"] == 0
    assert "overlays" not in output.tables
    assert "gradcam_places" not in output.tables


@pytest.mark.slow
def test_an_overlay_is_a_film_beside_the_tables(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "drawn"))
    config = config_of(gradcam={"layers": ["early"], "modes": ["clip"]})
    rows = plan(*inputs, "gradcam", most=None, overlays=4, seed=0).slice(0, 1)
    output = GradcamWorker(config, *inputs, folder)(rows)
    assert output.metrics["overlays"] == 1
    (row,) = output.tables["overlays"].to_pylist()
    assert (row["clip_id"], row["layer"], row["mode"], row["class"]) == ("red/a", "early", "clip", "red")
    film = decode_mp4(folder.read_bytes(row["mp4"]))
    assert film.shape == (FRAMES, row["height"], row["width"], 3)
    assert np.abs(np.diff(film.astype(int), axis=0)).max() > 30  # the square moves
    assert folder.read_bytes(row["webp"])[8:12] == b"WEBP"


def test_the_last_shard_averages_over_videos(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    """The square is in the upper half, and in the left half only in part."""
    folder = Folder(str(tmp_path))
    output = stage_folder(folder, "gradcam", "k")
    left = made(inputs, folder, modes=["clip"], place=[0, 0, 0.5, 1])
    upper = made(inputs, folder, modes=["clip"], place=[0, 0, 1, 0.5])
    assert upper.tables["gradcam_places"]["place_share"].to_pylist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert upper.tables["gradcam_places"]["place_area"].to_pylist() == pytest.approx([0.5] * 3)
    shares = []
    for start in (2, 0, 5):  # of the videos a, b and e
        columns = start + np.arange(FRAMES)[:, None] + np.arange(SQUARE)
        shares.append((columns < SIDE // 2).mean())
    assert left.tables["gradcam_places"]["place_share"].to_pylist() == pytest.approx(shares, abs=1e-5)
    output.commit("0", left)
    found = finished(output).tables
    assert set(found) == {"gradcam_summary", "aggregate", "gradcam_places_summary"}
    places = {row["class"]: row for row in found["gradcam_places_summary"].to_pylist()}
    assert set(places) == {"red", ALL}
    assert places["red"]["median"] == pytest.approx(np.median(shares), abs=1e-5)
    assert places["red"]["ci_low"] is None, "three videos have no interval"
    assert (places["red"]["area"], places["red"]["n"]) == (pytest.approx(0.5), 3)
    summary = {(row["class"], row["measure"]): row for row in found["gradcam_summary"].to_pylist()}
    assert summary["red", "logit"]["mean"] == pytest.approx(WEIGHT * SQUARE**2 / SIDE**2)
    assert (summary["red", "logit"]["n"], summary[ALL, "pointing"]["n"]) == (3, 2)
    assert summary[ALL, "pointing"]["mean"] == 1
    maps = {row["class"]: row for row in found["aggregate"].to_pylist()}
    assert {row["clips"] for row in maps.values()} == {2}
    values = np.array(maps["red"]["map"]).reshape(36, 36)
    np.testing.assert_allclose(values[16:20, 16:20], SIDE**2 / SQUARE**2, rtol=1e-5)  # all mass on a sixteenth
    np.testing.assert_allclose(values[:8, 16:20], 0, atol=1e-6)


@pytest.mark.slow
def test_the_last_shard_adds_the_sums_of_all_shards(inputs: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    one = made(inputs, folder, modes=["clip"])
    twice, once = (stage_folder(folder, "gradcam", key) for key in ("twice", "once"))
    for output, shards in ((twice, 2), (once, 1)):
        for shard in range(shards):
            output.commit(str(shard), one)
    first, second = (finished(output).tables["aggregate"].to_pylist() for output in (once, twice))
    for a, b in zip(first, second, strict=True):
        assert b["clips"] == 2 * a["clips"]
        np.testing.assert_allclose(b["map"], a["map"])
    assert not finished(stage_folder(folder, "gradcam", "empty")).tables
