"""What a user would write instead, and the same with ours: for `throughput.py`. All on one small planted world.

A way is a pair of calls, theirs and ours, on the same inputs; the processor's clock runs over both. Where ours does
more (camera motion, lossless storage, permutations and intervals), it is counted as ours.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import captum_parity
import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from tracking import mend_torchvision, ultralytics_tracks

from vtcav_ray.activations import Extractor
from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.concepts.detect import Detector
from vtcav_ray.concepts.track import track_videos
from vtcav_ray.concepts.ultralytics_import import import_ultralytics
from vtcav_ray.config import Config, ModelConfig, TracksConfig
from vtcav_ray.config_file import parse_config
from vtcav_ray.models import load_recogniser, resolve_layer
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.mmaction import build_mmaction
from vtcav_ray.pipeline import STAGES
from vtcav_ray.stage import Context
from vtcav_ray.storage import Folder, StageFolder, stage_folder
from vtcav_ray.tcav import score
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.world import asset, write_world

Ways = dict[str, tuple[Callable[[], Any], Callable[[], Any]]]
LAYERS = ("early", "middle", "late", "head")
FRAMES, SIDE = 16, 64
MODEL = ModelConfig(config="asset:recogniser.py", checkpoint="asset:recogniser.pth")


class World:
    """A few rendered videos in a folder, and both packaged models, loaded once."""

    def __init__(self, folder: Path, videos: int) -> None:
        self.folder = folder
        write_world(str(folder), videos=videos, seed=7, frames=(FRAMES, FRAMES), size=(SIDE, SIDE))
        self.paths = sorted(str(path) for path in (folder / "videos").glob("*.mp4"))
        self.recogniser = load_recogniser(MODEL, "cpu")
        self.plain: Any = build_mmaction(read_config(MODEL.config), MODEL.config, seed=None)
        self.plain.load_state_dict(self.recogniser.module.state_dict())
        self.plain.eval()
        self.layers = [resolve_layer(self.recogniser, layer) for layer in LAYERS]

    @contextmanager
    def hooked(self) -> Iterator[list[torch.Tensor]]:
        """What the plain model's layers put out, as it runs."""
        kept: list[torch.Tensor] = []
        hooks = [
            self.plain.get_submodule(path).register_forward_hook(lambda m, i, out: kept.append(out))
            for path in self.layers
        ]
        try:
            yield kept
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def small_world(videos: int) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        yield World(Path(name), videos)


def tracking_ways(world: World) -> Ways:
    """Ultralytics' `track()` in a loop over videos; ours without camera motion, which `track()` has not."""
    config = TracksConfig(weights=str(asset("detector.pt")), image_size=128, camera_motion=False)
    detector = Detector(config, "cpu")
    mend_torchvision()
    import_ultralytics()
    from ultralytics import YOLO

    model = YOLO(str(asset("detector.pt")))
    videos = [(path, path) for path in world.paths]

    def theirs() -> None:
        for path in world.paths:
            ultralytics_tracks("", path, config, "cpu", model)

    return {"tracks, Ultralytics' track() in a loop": (theirs, lambda: track_videos(videos, detector, config))}


def extraction_ways(world: World) -> Ways:
    """With gradients: the model with hooks, one clip at a time. Without: MMAction2's inferencer, which has none."""
    frames = [decode_frames(path, range(FRAMES))[0] for path in world.paths]
    extractor = Extractor(world.recogniser, LAYERS, batch_size=8, threads=1)
    from mmaction.apis import inference_recognizer
    from mmengine.dataset import Compose

    steps = [
        {"type": "PyAVInit"},
        {"type": "SampleFrames", "clip_len": FRAMES, "frame_interval": 1, "num_clips": 1, "test_mode": True},
        {"type": "PyAVDecode"},
        {"type": "Resize", "scale": (-1, SIDE)},
        {"type": "CenterCrop", "crop_size": SIDE},
        {"type": "FormatShape", "input_format": "NCTHW"},
        {"type": "PackActionInputs"},
    ]
    pipeline = Compose(steps)

    def with_gradients() -> None:
        with world.hooked() as kept:
            for clip in frames:
                kept.clear()
                _logits(world, clip)[0, 0].backward(inputs=kept)

    def inferencer() -> None:
        with world.hooked() as kept:
            for path in world.paths:
                kept.clear()
                inference_recognizer(world.plain, path, pipeline)
                assert len(kept) == len(LAYERS), "every layer was hooked"

    def from_files() -> None:
        extractor.extract([decode_frames(path, range(FRAMES))[0] for path in world.paths])

    classes: list[list[int] | None] = [[0]] * len(frames)
    return {
        "extract, MMAction2's model with hooks": (with_gradients, lambda: extractor.extract(frames, classes)),
        "activations from files, MMAction2's inferencer with hooks": (inferencer, from_files),
    }


def _logits(world: World, clip: Any) -> torch.Tensor:
    logits: torch.Tensor = world.plain.cls_head(world.plain.backbone(world.recogniser.preprocess([clip])[:, 0]))
    return logits


def captum_ways(runs: int, dim: int) -> Ways:
    """Captum's `TCAV.interpret` for two classes and three concepts, and ours; a small network of its own."""
    torch.manual_seed(0)
    model = captum_parity.Model(dim, 2).eval()
    inputs, n = torch.randn(30, dim), 30
    concepts = {name: torch.randn(n, dim) for name in ("a", "b", "c")}
    randoms = [torch.randn(n, dim) for _ in range(runs)]
    rows = np.arange((3 + runs) * n).reshape(-1, n)

    def ours() -> None:
        with torch.no_grad():
            pool = model.trunk(torch.cat((*concepts.values(), *randoms))).numpy()
        cavs = train_cavs(gram(pool), np.repeat(rows[:3], runs, axis=0), np.tile(rows[3:], (3, 1)))
        for target in (0, 1):
            score(captum_parity._gradients(model, inputs, target), cavs.vectors)

    return {
        "cavs and scores, Captum's TCAV": (lambda: captum_parity._captum(model, inputs, concepts, randoms, 0), ours)
    }


def whole_config(world: World) -> Config:
    """Four ways of moving as concepts, four classes: all stages but the report."""
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
                "concepts": [{"name": d, "motion": {"direction": d}, "kinds": ["context"]} for d in directions],
            },
            "model": MODEL.model_dump(),
            "activations": {"layers": LAYERS},
            "cavs": {"random_sets": 20},
            "scores": {"permutations": 1000, "bootstrap": 200},
        }
    )


def run_stages(config: Config, place: Path) -> tuple[dict[str, StageFolder], dict[str, float]]:
    """All stages but the report, in this process and without Ray. Returns their folders and processor seconds."""
    run, inputs, seconds = Folder(str(place)), {}, {}
    for stage in STAGES[:-1]:
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
    return inputs, seconds


class Whole:
    """From videos to scores: our stages, and a script that does the same with what others offer.

    Attributes:
        stages: processor seconds of ours by stage, one dict a call.
        counts: clips and CAVs of both.
    """

    def __init__(self, world: World) -> None:
        self.world, self.config = world, whole_config(world)
        self.stages: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as name:
            folders, _ = run_stages(self.config, Path(name))
            columns = ("set", "name", "video_id")
            clips = folders["clips"].read("clips", columns=columns)
            videos = folders["videos"].read("videos", columns=("video_id", "uri"))
            cavs = folders["cavs"].read("cavs", columns=("concept",))
        assert clips is not None and videos is not None and cavs is not None, "the run is complete"  # noqa: PT018
        uris = dict(zip(videos["video_id"].to_pylist(), videos["uri"].to_pylist(), strict=True))
        self.rows = [(row["set"], row["name"], uris[row["video_id"]]) for row in clips.to_pylist()]
        self.counts = {"clips": len(self.rows), "our_cavs": cavs.num_rows, "their_cavs": 0}
        self.track = tracking_ways(world)["tracks, Ultralytics' track() in a loop"][0]

    def ours(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            self.stages.append(run_stages(self.config, Path(name))[1])

    def theirs(self) -> None:
        """`track()`, OpenCV for the frames, hooks, LogisticRegression against 20 random draws, signs counted."""
        self.track()
        classes = sorted({name for kind, name, _ in self.rows if kind == "class"})
        vectors: dict[str, list[list[np.ndarray]]] = {}
        gradients: dict[str, list[list[np.ndarray]]] = {}
        with self.world.hooked() as kept:
            for kind, name, path in self.rows:
                kept.clear()
                logits = _logits(self.world, _read(path))
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
                for _ in range(20):
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


def _mean(raw: torch.Tensor) -> np.ndarray:
    """Channels of a raw output: over all axes but the second (or the last, where channels come last)."""
    flat = raw[0].reshape(raw.shape[1], -1) if raw.ndim < 5 or raw.shape[1] > raw.shape[-1] else raw[0].flatten(0, 2).T
    return np.asarray(flat.mean(1).numpy())


def _read(path: str) -> np.ndarray:
    video, frames = cv2.VideoCapture(path), []
    for _ in range(FRAMES):
        frames.append(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB))
    video.release()
    return np.stack(frames)


def limited(call: Callable[[], Any]) -> Callable[[], Any]:
    """One BLAS thread: small matrices, where waiting threads would count as work."""

    def run() -> Any:
        with threadpool_limits(1):
            return call()

    return run
