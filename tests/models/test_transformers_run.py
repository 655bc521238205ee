"""A Hugging Face model through the whole of it: a run, Grad-CAM, maps, patch, intervene, rerun and watch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.hugging_face import need_transformers, save
from tests.helpers.planted_run import PlantedRun
from tests.helpers.small_runs import without_ray
from vtcav_ray import pipeline
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.gradcam.run import run_gradcam
from vtcav_ray.intervene.run import intervene_run
from vtcav_ray.maps.run import maps_run
from vtcav_ray.patch.run import patch_run
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.watch.find import list_checkpoints, looks_whole
from vtcav_ray.watch.loop import WatchOptions, watch_once
from vtcav_ray.watch.rerun import rerun
from vtcav_ray.watch.run_one import CheckpointRunner

pytestmark = pytest.mark.slow

NETWORK = {"image_size": 64, "patch_size": 16, "num_frames": 16, "tubelet_size": 4}
LAYERS = ("early", "middle@grid:2", "late", "head")
ONE = Wanted(classes=("lift",), concepts=("cup/spatial",), layers=("late",))


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    need_transformers()
    with without_ray():
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, _here: None) -> list[str]:
    """Two folders, as a training writes them, without a processor's file: an hour old."""
    root = tmp_path_factory.mktemp("training")
    found = []
    for step in (10, 9):
        folder = Path(save("videomae", root / f"checkpoint-{step}", seed=step, **NETWORK))
        (folder / "video_preprocessor_config.json").unlink()
        for file in folder.iterdir():
            os.utime(file, (time.time() - 3600,) * 2)
        found.append(str(folder))
    return found


@pytest.fixture(scope="module")
def config(planted: PlantedRun, tmp_path_factory: pytest.TempPathFactory, checkpoints: list[str]) -> Config:
    out = planted.copy(tmp_path_factory.mktemp("copy") / "run", ["videos", "tracks", "clips"])
    model = f"model={{framework: transformers, checkpoint: '{checkpoints[0]}'}}"
    small = ["cavs.random_sets=3", "scores.permutations=100", "scores.bootstrap=100"]
    more = [*small, "gradcam.layers=[middle]", "gradcam.max_clips=2", "gradcam.overlays=1"]
    return planted.config(out, model, f"activations.layers=[{', '.join(LAYERS)}]", *more)


@pytest.fixture(scope="module")
def run(config: Config) -> Run:
    return pipeline.run(config)


@pytest.mark.full
def test_a_run_scores_every_layer_and_marks_the_head(run: Run) -> None:
    assert "checkpoint-10@" in run.manifest("activations")["notes"]["model"]
    assert run.table("failures").num_rows == 0
    scores = run.table("scores").to_pylist()
    assert {row["layer"] for row in scores} >= set(LAYERS)
    effects = {layer: [r["effect"] for r in scores if r["layer"] == layer] for layer in LAYERS}
    assert all(np.isfinite(values).all() and np.abs(values).max() > 0 for values in effects.values())
    degenerate = {layer: {r["degenerate"] for r in scores if r["layer"] == layer} for layer in LAYERS}
    assert degenerate["head"] == {True}
    assert not any(True in degenerate[layer] for layer in LAYERS[:3])


@pytest.mark.full
def test_gradcam_maps_patch_and_intervene(run: Run, config: Config) -> None:
    cams = run_gradcam(config).table("gradcam").to_pylist()
    assert len(cams) == 2 * 3
    assert all(0 <= row["background_share"] <= 1 for row in cams)
    changes = intervene_run(run, ONE, (-0.5, 0.5), max_clips=2).to_pylist()
    assert len(changes) > 0
    assert all(np.isfinite(row["real"]) for row in changes)
    assert max(abs(row["real"]) for row in changes) > 1e-4
    assert maps_run(run, config, ONE, clips=2).table("maps").num_rows > 0
    patched = patch_run(run, config, ONE, limit_reference=8).table("patch_effects").to_pylist()
    assert patched
    assert any(abs(row["effect_patch"]) > 1e-6 for row in patched)


@pytest.mark.full
def test_rerun_keeps_the_clips_and_changes_the_model(run: Run, checkpoints: list[str]) -> None:
    other = rerun(run.url, checkpoints[1], overrides=["activations.layers=[late]"]).run
    assert other.keys["clips"] == run.keys["clips"]
    assert other.keys["activations"] != run.keys["activations"]
    assert "/checkpoints/checkpoint-9-" in other.url
    assert "checkpoint-9@" in other.manifest("activations")["notes"]["model"]


@pytest.mark.full
def test_watch_runs_each_folder_once_in_the_order_of_training(run: Run, config: Config, checkpoints: list[str]) -> None:
    pattern = str(Path(checkpoints[0]).parent / "*")
    found = list_checkpoints(pattern)
    assert [(one.name, one.step) for one in found] == [("checkpoint-9", 9), ("checkpoint-10", 10)]
    options = WatchOptions(pattern, settle_s=1.0, expires_s=60.0, attempts=1)
    config = config.model_copy(update={"activations": config.activations.model_copy(update={"layers": ("late",)})})
    passed = watch_once(config, options, CheckpointRunner(pipeline.Silence()), lambda folder: None)
    assert passed.done == ["checkpoint-9", "checkpoint-10"]
    assert watch_once(config, options, CheckpointRunner(pipeline.Silence()), lambda folder: None).done == []


def test_a_folder_that_is_still_copied_is_not_run(checkpoints: list[str], tmp_path: Path) -> None:
    source = Path(checkpoints[0])
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    assert list_checkpoints(str(tmp_path / "*")) == []
    weights = (source / "model.safetensors").read_bytes()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    for content, whole in ((weights[:-1], False), (weights[:5], False), (weights, True), (weights + b"x", False)):
        (folder / "model.safetensors").write_bytes(content)
        (one,) = list_checkpoints(str(tmp_path / "*"))
        assert looks_whole(one) == whole
    fingerprints = {one.fingerprint}
    (folder / "config.json").write_text("{}")
    fingerprints |= {one.fingerprint for one in list_checkpoints(str(tmp_path / "*"))}
    assert len(fingerprints) == 2
    # Of a model in several files, all must be there.
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert not looks_whole(one)
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (folder / "model.safetensors.index.json").write_text(str(index).replace("'", '"'))
    assert not looks_whole(one)
    (folder / shards[0]).write_bytes(weights)
    (folder / shards[1]).write_bytes(weights)
    assert looks_whole(one)


def test_the_packaged_example_of_a_config_is_valid() -> None:
    path = Path(__file__).parents[2] / "configs" / "videomae.yaml"
    config = load_config(str(path), ["videos.uri=v"])
    assert config.model.framework == "transformers"
    assert (config.clips.frames, config.clips.size) == (16, 224)
