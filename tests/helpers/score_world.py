"""Clips, activations and gradients with planted effects, run through the stages `cavs` and `scores` without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.cavs import stage as cavs_stage
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context, Stage
from vtcav_ray.scores import stage as scores_stage
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

D, N, KIND = 8, 8, "spatial"


class World:
    """Clips of one kind at one layer: random ones, concepts, and class examples with their gradients."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.rows: list[tuple[str, str, str, np.ndarray]] = []  # set, name, video, vector
        self.gradients: list[tuple[str, str, np.ndarray]] = []  # class, video, vector
        self.name_in_model: dict[str, str] = {}  # of a class; missing: the same name
        self.label_of: dict[str, str] = {}  # of a video; missing: null
        self.gain_of: dict[str, float] = {}  # of a class example's video; missing: 1
        self.margin_of: dict[str, float] = {}  # the same; missing: 2
        self.logits_of: dict[str, np.ndarray] = {}  # clip id -> of the classes; empty: there is no table `answers`
        self.classes: list[str] = []  # of the model, in the order of the logits

    def clips(self, role: str, name: str, count: int, shift: float = 0.0, *, like: np.ndarray | None = None) -> None:
        first = sum(n == name for _, n, _, _ in self.rows)
        for i in range(first, first + count):
            z = self.rng.normal(size=D) if like is None else like
            self.rows.append((role, name, f"{name}-{i}", z + shift * np.eye(D)[0]))

    def of_class(self, name: str, count: int, sign: float) -> None:
        self.clips("class", name, count)
        for i in range(count):
            self.gradients.append((name, f"{name}-{i}", sign * np.eye(D)[0] + 0.3 * self.rng.normal(size=D)))

    def shifts(self) -> dict[str, np.ndarray]:
        """Return each concept's mean minus that of the random clips."""
        mean = {n: np.mean([z for _, name, _, z in self.rows if name == n], axis=0) for _, n, _, _ in self.rows}
        return {n: mean[n] - mean[f"random/{KIND}"] for s, n, _, _ in self.rows if s == "concept"}

    def heads(self, folder: Folder) -> StageFolder:
        """Return the clips table without its frames, for the review of clips."""
        output = StageFolder("clips", "key", folder.below("clips", "key"))
        rows = [
            {
                "clip_id": f"{s}/{n}/{v}",
                "set": s,
                "name": n,
                "kind": "full" if s == "class" else KIND,
                "video_id": v,
                "label": self.label_of.get(v),
            }
            for s, n, v, _ in self.rows
        ]
        output.commit("0", ShardOutput({"clips": pa.Table.from_pylist(rows, schema=tables.CLIPS)}))
        output.finish({}, {"warnings": [], "notes": {}})
        return output

    def written(self, folder: Folder) -> StageFolder:
        output = StageFolder("activations", "key", folder.below("activations", "key"))
        role, name, video, vectors = zip(*self.rows, strict=True)
        columns = {
            "clip_id": [f"{s}/{n}/{v}" for s, n, v in zip(role, name, video, strict=True)],
            "set": role,
            "name": name,
            "kind": ["full" if s == "class" else KIND for s in role],
            "video_id": video,
            "layer": ["late"] * len(role),
            "views": [1] * len(role),
            "model": ["m@1"] * len(role),
            "vector": vector_array(np.array(vectors, np.float32)),
        }
        parts = {"activations/layer=late": pa.table(columns, schema=tables.activations(D))}
        if self.gradients:
            name, video, vectors = zip(*self.gradients, strict=True)
            of = {
                "clip_id": [f"class/{v.rpartition('-')[0]}/{v}" for v in video],
                "video_id": video,
                "class": [self.name_in_model.get(n, n) for n in name],
                "layer": ["late"] * len(name),
                "reference": [True] * len(name),
                "target": ["logit"] * len(name),
                "value": [0.0] * len(name),
                "predicted": name,
                "gain": [self.gain_of.get(v, 1.0) for v in video],
                "margin": [self.margin_of.get(v, 2.0) for v in video],
                "views": [1] * len(name),
                "model": ["m@1"] * len(name),
                "vector": vector_array(np.array(vectors, np.float32)),
            }
            parts["gradients/layer=late"] = pa.table(of, schema=tables.gradients(D))
        if self.logits_of:
            parts["answers"] = self.answers(list(self.logits_of))
        output.commit("0", ShardOutput(parts))
        output.finish({}, {"warnings": [], "notes": {}})
        return output

    def answers(self, clip_ids: list[str]) -> pa.Table:
        about = {f"{s}/{n}/{v}": {"set": s, "name": n, "video_id": v} for s, n, v, _ in self.rows}
        rows = []
        for clip in clip_ids:
            of: dict[str, str] = about.get(clip, {})  # a test may ask for answers to clips that are not of the world
            gain, label = self.gain_of.get(of.get("video_id", ""), 1.0), self.label_of.get(of.get("video_id", ""))
            rows.append({**of, "clip_id": clip, "label": label, "logits": self.logits_of[clip], "gains": [gain]})
        schema = tables.ANSWERS.with_metadata({tables.CLASSES: json.dumps(self.classes)})
        return pa.Table.from_pylist(rows, schema=schema)


def usual() -> World:
    world = World()
    world.clips("random", f"random/{KIND}", 80)
    world.clips("concept", "moving", N, 3.0)
    world.clips("concept", "nearly the same", N, 3.0)
    world.clips("concept", "nothing", N)
    world.of_class("lift", 10, 1.0)
    world.of_class("drop", 10, -1.0)
    return world


def answering(world: World, classes: tuple[str, ...] = ("drop", "lift", "other")) -> World:
    """Give every clip logits: `lift` is its own axis 0, `drop` half of it downwards, the others noise."""
    rng = np.random.default_rng(1)
    world.classes = list(classes)
    for role, name, video, z in world.rows:
        logits = {"lift": z[0] + 2.0 * (name == "lift"), "drop": -0.5 * z[0] + 2.0 * (name == "drop")}
        noise = 0.3 * rng.normal(size=len(classes))
        world.logits_of[f"{role}/{name}/{video}"] = np.array([logits.get(c, 0.0) for c in classes]) + noise
    return world


def config(scores: dict[str, object] | None = None, **cavs: object) -> Config:
    return parse_config(
        {
            "videos": {"uri": "unused"},
            "activations": {"layers": ["late"]},
            "cavs": {"random_sets": 8, "relative": ["groups"], **cavs},
            "scores": {"permutations": 2000, "bootstrap": 200, **(scores or {})},
        }
    )


def done(stage: Stage, context: Context) -> StageFolder:
    """Run a stage's shards one after another in this process, by one worker as in an actor; return its output."""
    output = StageFolder(stage.name, "key", context.run.below(stage.name, "key"))
    work = stage.prepare(context)
    worker = work.make_worker()
    for shard in work.shards:
        output.commit(shard.name, worker(shard.rows))
    if work.finish is not None:
        output.commit("final", work.finish(output))
    output.finish({}, {"warnings": list(work.warnings), "notes": dict(work.notes)})
    return output


def prepared(world: World, folder: Path, settings: Config) -> dict[str, StageFolder]:
    """Return the inputs of the stage `scores`."""
    place = Folder(str(folder))
    inputs = {"activations": world.written(place), "clips": world.heads(place)}
    inputs["cavs"] = done(cavs_stage.STAGE, Context(settings, place, dict(inputs)))
    return inputs


def run(world: World, folder: Path, settings: Config | None = None) -> tuple[StageFolder, StageFolder]:
    settings = settings or config()
    inputs = prepared(world, folder, settings)
    return inputs["cavs"], done(scores_stage.STAGE, Context(settings, Folder(str(folder)), inputs))


def opened(world: World, folder: Path, settings: Config) -> Run:
    """Return a run with finished CAVs."""
    inputs = prepared(world, folder, settings)
    place = Folder(str(folder))
    videos = StageFolder("videos", "key", place.below("videos", "key"))
    rows = [{"video_id": v, "uri": f"/nowhere/{v}.mp4"} for v in dict.fromkeys(v for _, _, v, _ in world.rows)]
    videos.commit("0", ShardOutput({"videos": pa.Table.from_pylist(rows, schema=tables.VIDEOS)}))
    videos.finish({}, {"warnings": [], "notes": {}})
    keys = dict.fromkeys(("videos", *inputs), "key")
    place.write_json("run.json", {"config": settings.model_dump(mode="json"), "keys": keys})
    return Run(place.url)


def cells(scores: StageFolder) -> dict[tuple[str, str], dict]:  # type: ignore[type-arg]
    table = scores.read("scores")
    assert table is not None
    return {
        (r["class"], r["concept"].removesuffix(f"/{KIND}")): r for r in table.to_pylist() if r["against"] == "random"
    }
