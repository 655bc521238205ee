"""Small finished runs with planted activations and gradients, computed by the stages' own workers without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.cavs.stage import CavWorker, block_of, labels_of, matching_of, read_plan
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.stage import ScoreWorker, correct, families_of, family_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

LAYER, D = "late", 8
CONFIG = {
    "name": "small",
    "videos": {"uri": "videos"},
    "activations": {"layers": [LAYER]},
    "cavs": {"random_sets": 8},
    "scores": {"permutations": 2000, "bootstrap": 200},
}
CLASSES = ("lift", "drop")
CONCEPTS = ("cup", "ball")


def make_run(
    path: Path,
    *,
    weight: float,
    seed: int = 0,
    scale: float = 1.0,
    gain: float = 1.0,
    videos: str = "v",
    labels: dict[str, str] | None = None,
) -> Run:
    """Make a run whose model weighs concept `cup` (axis 0) by `weight` for class `lift`, and `ball` (axis 1) by 1.

    Args:
        path: the run folder.
        weight: the gradient of `lift` along axis 0.
        seed: of the noise that is specific to the model.
        scale: of this model's activations; its gradients are smaller by the same factor, so that no effect changes.
        gain: of the layer; the gradients are smaller by it, so that no effect changes.
        videos: prefix of the source videos' names; another prefix gives other videos.
        labels: `random_labels` and `concept_labels` of the config. Every fourth video is of the class `lift`.
    """
    config = parse_config({**CONFIG, "out": str(path), "clips": labels or {}})
    folder = Folder(str(path))
    clips, vectors = _clips(videos)
    noise = np.random.default_rng(seed).normal(0, 0.02, vectors.shape)
    activations = stage_folder(folder, "activations", "k")
    activations.commit("0", ShardOutput(_tables(clips, (vectors + noise) * scale, weight, scale, gain, seed)))
    activations.finish({}, {"notes": {"untrained": False}, "warnings": [], "seconds": 1.0})
    cavs, scores = stage_folder(folder, "cavs", "k"), stage_folder(folder, "scores", "k")
    stage_folder(folder, "clips", "k").commit("0", ShardOutput({"clips": _heads(clips)}))
    stage_folder(folder, "clips", "k").finish({}, {"notes": {}, "warnings": [], "seconds": 1.0})
    known = labels_of(stage_folder(folder, "clips", "k"))
    matching = matching_of(stage_folder(folder, "clips", "k"), config)
    trainer = CavWorker(config, activations, matching)
    cavs.commit("0", trainer(block_of(LAYER, "cavs", 0, 10_000)))
    cavs.commit("1", trainer(block_of(LAYER, "chance", 0, 10_000)))
    cavs.finish({}, {"notes": {}, "warnings": [], "seconds": 1.0})
    of = pa.table({"layer": [LAYER], "classes": [sorted(CLASSES)]})
    worker = ScoreWorker(config, activations, cavs, known, matching)
    scores.commit("0", worker(of))
    for shard in family_shards(families_of(activations, config, matching), len(CLASSES)):
        scores.commit(shard.name, worker(shard.rows))
    scores.commit("final", correct(config, scores))
    scores.finish({}, {"notes": {}, "warnings": [], "seconds": 1.0})
    keys = dict.fromkeys(("clips", "activations", "cavs", "scores"), "k")
    folder.write_json("run.json", {"config": config.model_dump(mode="json", exclude_none=True), "keys": keys})
    assert read_plan(StageFolder("activations", "k", activations.folder), LAYER, config, matching).jobs
    return Run(str(path))


def _heads(clips: list[dict]) -> pa.Table:
    """Return the table of the clips without their frames."""
    rows = [{**c, "label": "other" if int(c["video_id"].rpartition("/")[2]) % 4 else "lift"} for c in clips]
    return pa.Table.from_pylist(rows, schema=tables.CLIPS)


def _clips(videos: str) -> tuple[list[dict], np.ndarray]:
    """Make clips. A concept's lie off the random ones along its axis; a video adds the same for every model."""
    rng = np.random.default_rng(7)
    rows, vectors = [], []

    def add(set_: str, name: str, kind: str, number: int, mean: np.ndarray) -> None:
        video = f"{videos}/{set_}/{name}/{number}"
        rows.append({"clip_id": f"{set_}/{name}/{kind}/{video}", "set": set_, "name": name, "kind": kind,
                     "video_id": video})  # fmt: skip
        vectors.append(mean + rng.normal(0, 0.3, D))

    for axis, concept in enumerate(CONCEPTS):
        for i in range(20):
            add("concept", concept, "spatial", i, np.eye(D)[axis])
    for i in range(170):
        add("random", "random/spatial", "spatial", i, np.zeros(D))
    for name in CLASSES:
        for i in range(10):
            add("class", name, "full", i, np.zeros(D))
    found = np.array(vectors)
    # Each set's mean is exactly the planted one, so that the change is known without sampling error.
    for axis, name in enumerate((*CONCEPTS, "random/spatial")):
        of_set = [i for i, row in enumerate(rows) if row["name"] == name]
        found[of_set] += (np.eye(D)[axis] if axis < len(CONCEPTS) else 0.0) - found[of_set].mean(axis=0)
    return rows, found


def _tables(
    clips: list[dict], vectors: np.ndarray, weight: float, scale: float, gain: float, seed: int
) -> dict[str, pa.Table]:
    about = {"layer": LAYER, "views": 1, "model": f"model@{weight:g}"}
    activations = pa.table(
        {
            **{n: [c[n] for c in clips] for n in ("clip_id", "set", "name", "kind", "video_id")},
            **{n: [v] * len(clips) for n, v in about.items()},
            "vector": vector_array(vectors.astype(np.float32)),
        },
        schema=tables.activations(D),
    )
    examples = [c for c in clips if c["set"] == "class"]
    own = {"lift": [weight, 1.0], "drop": [0.0, 1.0]}
    rng = np.random.default_rng(seed + 100)
    gradient = np.array([[*own[c["name"]], *([0.0] * (D - 2))] for c in examples])
    gradient = (gradient + rng.normal(0, 0.05, gradient.shape)) / (scale * gain)
    gradients = pa.table(
        {
            "clip_id": [c["clip_id"] for c in examples],
            "video_id": [c["video_id"] for c in examples],
            "class": [c["name"] for c in examples],
            "layer": [LAYER] * len(examples),
            "reference": [True] * len(examples),
            "target": ["logit"] * len(examples),
            "value": np.ones(len(examples), np.float32),
            "predicted": [c["name"] for c in examples],
            "gain": np.full(len(examples), gain),
            "margin": np.full(len(examples), 2.0, np.float32),
            "views": [1] * len(examples),
            "model": [about["model"]] * len(examples),
            "vector": vector_array(gradient.astype(np.float32)),
        },
        schema=tables.gradients(D),
    )
    return {f"activations/layer={LAYER}": activations, f"gradients/layer={LAYER}": gradients}
