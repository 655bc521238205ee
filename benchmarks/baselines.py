"""What a user would write instead, beside ours, on a small planted world: for `throughput.py` and `smoke.py`.

A way is a pair of calls, theirs and ours, on the same inputs. Both are measured in processor time. Extra work that only
ours does (camera motion, lossless storage, permutations and intervals) counts as ours.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tracking import patch_torchvision_nms, ultralytics_tracks

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig, TracksConfig
from vtcav_ray.models import Recogniser, load_recogniser, resolve_layer
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.mmaction import build_mmaction
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.world import asset, write_world

Ways = dict[str, tuple[Callable[[], Any], Callable[[], Any]]]
LAYERS = ("early", "middle", "late", "head")
FRAMES, SIDE = 16, 64
TRACKS = TracksConfig(weights=str(asset("detector.pt")), image_size=128, camera_motion=False, backend="pytorch")
MODEL = ModelConfig(config="asset:recogniser.py", checkpoint="asset:recogniser.pth")


class Plain:
    """MMAction2's own model with the packaged weights and hooks on the layers that ours extracts."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._preprocess = recogniser.preprocess
        self.module: Any = build_mmaction(read_config(MODEL.config), MODEL.config, seed=None)
        self.module.load_state_dict(recogniser.module.state_dict())
        self.module.eval()
        self.layers = [resolve_layer(recogniser, layer) for layer in LAYERS]

    def logits(self, clip: NDArray[np.uint8]) -> torch.Tensor:
        found: torch.Tensor = self.module.cls_head(self.module.backbone(self._preprocess([clip])[:, 0]))
        return found

    @contextmanager
    def hooked(self) -> Iterator[list[torch.Tensor]]:
        """Collect the outputs of the layers while the model runs."""
        kept: list[torch.Tensor] = []
        hooks = [
            self.module.get_submodule(path).register_forward_hook(lambda m, i, out: kept.append(out))
            for path in self.layers
        ]
        try:
            yield kept
        finally:
            for hook in hooks:
                hook.remove()


class World:
    """A few rendered videos in a folder, and both packaged models, each loaded once."""

    def __init__(self, folder: Path, videos: int) -> None:
        self.folder = folder
        write_world(str(folder), videos=videos, seed=7, frames=(FRAMES, FRAMES), size=(SIDE, SIDE))
        self.paths = sorted(str(path) for path in (folder / "videos").glob("*.mp4"))
        self.recogniser = load_recogniser(MODEL, "cpu")
        self.plain = Plain(self.recogniser)


def part_of(world: World, videos: int) -> World:
    """Return the same world with only its first videos."""
    part = copy.copy(world)
    part.paths = world.paths[:videos]
    return part


@contextmanager
def small_world(videos: int) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        yield World(Path(name), videos)


def track_in_a_loop(world: World, model: Any) -> None:
    """Run Ultralytics' `track()` on one video after the other."""
    for path in world.paths:
        ultralytics_tracks("", path, TRACKS, "cpu", model)


def yolo() -> Any:
    """Load the packaged detector with Ultralytics."""
    patch_torchvision_nms()
    import_ultralytics()
    from ultralytics import YOLO

    return YOLO(str(asset("detector.pt")))


def tracking_ways(world: World) -> Ways:
    """Ultralytics' `track()` in a loop over videos; ours without camera motion, which `track()` does not have."""
    detector, model = Detector(TRACKS, "cpu"), yolo()
    videos = [(path, path) for path in world.paths]
    return {
        "tracks, Ultralytics' track() in a loop": (
            lambda: track_in_a_loop(world, model),
            lambda: track_videos(videos, detector, TRACKS),
        )
    }


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
        with world.plain.hooked() as kept:
            for clip in frames:
                kept.clear()
                world.plain.logits(clip)[0, 0].backward(inputs=kept)

    def inferencer() -> None:
        with world.plain.hooked() as kept:
            for path in world.paths:
                kept.clear()
                inference_recognizer(world.plain.module, path, pipeline)
                assert len(kept) == len(LAYERS), "every layer was hooked"

    def from_files() -> None:
        extractor.extract([decode_frames(path, range(FRAMES))[0] for path in world.paths])

    classes: list[list[int] | None] = [[0]] * len(frames)
    return {
        "extract, MMAction2's model with hooks": (with_gradients, lambda: extractor.extract(frames, classes)),
        "activations from files, MMAction2's inferencer with hooks": (inferencer, from_files),
    }


def limited(call: Callable[[], Any]) -> Callable[[], Any]:
    """Limit a call to one BLAS thread: on small matrices, waiting threads would count as work."""

    def run() -> Any:
        with threadpool_limits(1):
            return call()

    return run
