"""The stored clips of a run as the arguments of `vtcav_ray.explain`."""

from __future__ import annotations

from typing import Any

from vtcav_ray.clips.usable import AcceptedRows, full_name, read_left_out
from vtcav_ray.runs.run import Run
from vtcav_ray.video.codec import decode_clip

COLUMNS = ("set", "name", "kind", "video_id", "label", "encoding", "encoded")
SETS = {"concept": "concepts", "random": "random", "class": "examples"}


def explain_arguments(run: Run) -> dict[str, Any]:
    """Return `concepts`, `random`, `examples`, `groups` and `labels` of a run, and its settings."""
    rows = AcceptedRows.of(run.stage("clips"), read_left_out(run.stage("cavs"))).read("clips", columns=COLUMNS)
    assert rows is not None
    clips: dict[str, dict[str, list[Any]]] = {name: {} for name in SETS.values()}
    groups: dict[str, dict[str, list[str]]] = {name: {} for name in SETS.values()}
    labels = {}
    for row in rows.to_pylist():
        part = SETS[row["set"]]
        name = row["kind"] if part == "random" else full_name(row["set"], row["name"], row["kind"])
        clips[part].setdefault(name, []).append(decode_clip(row["encoding"], row["encoded"]))
        groups[part].setdefault(name, []).append(row["video_id"])
        if row["label"] is not None:
            labels[row["video_id"]] = row["label"]
    config = run.config
    return {
        **clips,
        "groups": groups,
        "labels": labels,
        "layers": config.activations.layers,
        "seed": config.seed,
        "reference": config.activations.reference or config.clips.per_class,
        "random_sets": config.cavs.random_sets,
        "permutations": config.scores.permutations,
        "bootstrap": config.scores.bootstrap,
        "progress": False,
    }
