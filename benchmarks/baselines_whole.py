"""Clips, and all stages from videos to scores, beside what a user would write: for `throughput.py` and `smoke.py`.

Both need the earlier stages, so ours runs its stages' own workers, without Ray.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from baselines import FRAMES, LAYERS, MODEL, SIDE, Plain, Ways, World, track_in_a_loop, yolo
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.pipeline import STAGES
from vtcav_ray.runs.stage import Context, Work
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

LEAST_VIDEOS = 32  # per world: with fewer, some motion occurs in too few videos for a concept
RANDOM_SETS = 20


def whole_config(world: World, kinds: tuple[str, ...] = ("context",)) -> Config:
    """Return a config with four motions as concepts and four classes, for all stages except the report."""
    directions = ("up", "down", "left", "right")
    return parse_config(
        {
            "videos": {"uri": str(world.folder)},
            "tracks": {"weights": "asset:detector.pt", "image_size": 128},
            "clips": {
                "frames": FRAMES,
                "interval": 1,
                "size": SIDE,
                "per_class": 2,
                "min_per_class": 1,
                "per_concept": 2,
                "min_per_concept": 2,
                "random_pool": 8,
                "concepts": [{"name": d, "motion": {"direction": d}, "kinds": kinds} for d in directions],
            },
            "model": MODEL.model_dump(),
            "activations": {"layers": LAYERS},
            "cavs": {"random_sets": RANDOM_SETS},
            "scores": {"permutations": 1000, "bootstrap": 200},
        }
    )


def run_stages(
    config: Config, place: Path, until: str = "scores"
) -> tuple[dict[str, StageFolder], dict[str, float], Work]:
    """Run the stages up to `until` in this process, without Ray.

    Returns:
        The stages' folders, their processor seconds, and the work of the last stage.
    """
    run = Folder(str(place))
    inputs: dict[str, StageFolder] = {}
    seconds: dict[str, float] = {}
    for stage in STAGES:
        began = time.process_time()
        context = Context(config, run, dict(inputs))
        output = stage_folder(run, stage.name, stage.key(context))
        work = stage.prepare(context)
        worker = work.make_worker()
        for shard in work.shards:
            output.commit(shard.name, worker(shard.rows))
        if work.finish is not None:
            output.commit("final", work.finish(output))
        notes = {"warnings": list(work.warnings), "notes": dict(work.notes)}
        output.finish(stage.all_ingredients(context), notes)
        inputs[stage.name] = output
        seconds[stage.name] = time.process_time() - began
        if stage.name == until:
            return inputs, seconds, work
    raise ValueError(f"no stage {until!r}")


def clip_ways(world: World) -> Ways:
    """Cut the planned clips of still, moving and full-frame concepts with an OpenCV loop and with our stage's worker.

    The loop reopens the video for each clip and cuts like a script would: frames up to the span's end, the box, resized
    onto the canvas. It keeps the clip in memory, or also as PNG, which is lossless like ours. Ours includes the codec,
    the table, and the hashes that detect near-duplicates.
    """
    with tempfile.TemporaryDirectory() as name:
        config = whole_config(world, ("spatial", "spatiotemporal", "context"))
        _, _, work = run_stages(config, Path(name), "clips")
    worker = work.make_worker()
    rows = [row for shard in work.shards for row in shard.rows.to_pylist()]

    def ours() -> int:
        return sum(int(worker(shard.rows).metrics["clips"]) for shard in work.shards)

    def in_a_loop(store: Callable[[NDArray[np.uint8]], Any]) -> int:
        for row in rows:
            store(_cut(row))
        return len(rows)

    def png(clip: NDArray[np.uint8]) -> list[Any]:
        return [cv2.imencode(".png", frame)[1] for frame in clip]

    assert ours() == len(rows), "both cut all clips"
    return {
        "clips, an OpenCV loop that stores PNG": (lambda: in_a_loop(png), ours),
        "clips, an OpenCV loop that stores nothing": (lambda: in_a_loop(lambda clip: clip), ours),
    }


def _cut(row: dict[str, Any]) -> NDArray[np.uint8]:
    """Cut one clip, [T, S, S, 3], RGB."""
    span = row["frames"] if row["frames"] is not None else list(range(FRAMES))
    frames = _read(row["uri"], span)
    if row["boxes"] is None or row["kind"] in ("context", "full"):
        return np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])
    boxes = [[max(0, round(v)) for v in box] for box in row["boxes"]]
    if row["kind"] in ("spatial", "frozen"):
        frames, boxes = [frames[row["pick"]]] * len(frames), [boxes[row["pick"]]] * len(frames)
    largest = max(max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes)
    out = np.zeros((len(frames), SIDE, SIDE, 3), np.uint8)
    for canvas, frame, (x1, y1, x2, y2) in zip(out, frames, boxes, strict=True):
        crop = frame[y1:y2, x1:x2]
        height, width = (min(SIDE, max(1, round(v * SIDE / largest))) for v in crop.shape[:2])
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        canvas[top : top + height, left : left + width] = cv2.resize(crop, (width, height))
    return out


def _read(path: str, span: list[int]) -> list[NDArray[Any]]:
    """Read the frames of a span, RGB. Earlier frames are decoded and dropped."""
    video, frames = cv2.VideoCapture(path), {}
    for index in range(max(span) + 1):
        found, frame = video.read()
        assert found, f"{path} has {index} frames and no more"
        if index in span:
            frames[index] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    video.release()
    return [frames[index] for index in span]


class Whole:
    """From videos to scores, including loading the models: our stages, and a script built on other libraries.

    Attributes:
        stages: processor seconds of ours by stage, one dict per call.
        counts: number of clips and CAVs of both.
    """

    def __init__(self, world: World) -> None:
        self.world, self.config = world, whole_config(world)
        self.stages: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as name:
            folders, _, _ = run_stages(self.config, Path(name))
            clips = folders["clips"].read("clips", columns=("set", "name", "video_id"))
            videos = folders["videos"].read("videos", columns=("video_id", "uri"))
            cavs = folders["cavs"].read("cavs", columns=("concept",))
        assert clips is not None and videos is not None and cavs is not None, "the run is complete"  # noqa: PT018
        uris = dict(zip(videos["video_id"].to_pylist(), videos["uri"].to_pylist(), strict=True))
        self.rows = [(row["set"], row["name"], uris[row["video_id"]]) for row in clips.to_pylist()]
        self.counts = {"clips": len(self.rows), "our_cavs": cavs.num_rows, "their_cavs": 0}

    def ours(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            self.stages.append(run_stages(self.config, Path(name))[1])

    def theirs(self) -> None:
        """Run `track()`, OpenCV for the frames, hooks, LogisticRegression against 20 random draws, and sign counts."""
        track_in_a_loop(self.world, yolo())
        plain = Plain(self.world.recogniser)
        classes = sorted({name for kind, name, _ in self.rows if kind == "class"})
        vectors: dict[str, list[list[NDArray[Any]]]] = {}
        gradients: dict[str, list[list[NDArray[Any]]]] = {}
        with plain.hooked() as kept:
            for kind, name, path in self.rows:
                kept.clear()
                with torch.set_grad_enabled(kind == "class"):
                    logits = plain.logits(np.stack(_read(path, list(range(FRAMES)))))
                vectors.setdefault(f"{kind} {name}", []).append([_mean(one.detach()) for one in kept])
                if kind == "class":
                    found = torch.autograd.grad(logits[0, classes.index(name)], kept)
                    gradients.setdefault(name, []).append([_mean(one) for one in found])
        pools = {name: [np.stack(layer) for layer in zip(*rows, strict=True)] for name, rows in vectors.items()}
        random = next(pool for name, pool in pools.items() if name.startswith("random"))
        rng, count = np.random.default_rng(0), 0
        for name in [name for name in pools if name.startswith("concept")]:
            for at in range(len(LAYERS)):
                positives = pools[name][at]
                for _ in range(RANDOM_SETS):
                    negatives = random[at][rng.permutation(len(random[at]))[: len(positives)]]
                    x = np.concatenate((positives, negatives))
                    y = np.arange(len(x)) < len(positives)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        cav = LogisticRegression(max_iter=1000).fit(x, y).coef_[0]
                    count += 1
                    for rows in gradients.values():
                        float(np.mean([row[at] @ cav > 0 for row in rows]))
        self.counts["their_cavs"] = count


def _mean(raw: torch.Tensor) -> NDArray[Any]:
    """Average a raw output over all axes except the channels: the second axis, or the last if channels come last."""
    flat = raw[0].reshape(raw.shape[1], -1) if raw.ndim < 5 or raw.shape[1] > raw.shape[-1] else raw[0].flatten(0, 2).T
    return np.asarray(flat.mean(1).numpy())
