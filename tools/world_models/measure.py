"""Measure the shipped models on newly rendered videos: `python -m tools.world_models.measure`.

Prints the figures that `vtcav_ray/world/assets/MODELS.md` reports. The seeds differ from those of the training, so no
video is shared. The frames are encoded as H.264, and the recogniser sees the middle 16 of each video.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.world_models import train_detector, train_recogniser
from tools.world_models.augment import CLIP_FRAMES, centre_clips
from tools.world_models.frame_pool import IMAGE_SIDE, labelled_frames
from tools.world_models.pool import ClipPool, clip_pool
from vtcav_ray.world import asset
from vtcav_ray.world.rules import MOTION_ONLY


def shipped_recogniser() -> tuple[Any, dict[str, Any]]:
    """Return the recogniser with its shipped weights, in evaluation mode, and its preprocessing."""
    model, preprocessing = train_recogniser.build_model()
    checkpoint = torch.load(asset("recogniser.pth"), map_location="cpu", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval(), preprocessing


def shipped_detector() -> Any:
    """Return the detector with its shipped weights in fp32, in evaluation mode. Loads with `weights_only=True`."""
    from ultralytics.nn.tasks import torch_safe_load

    checkpoint, _ = torch_safe_load(str(asset("detector.pt")), safe_only=True)
    return checkpoint["model"].float().eval()


@torch.no_grad()
def class_probabilities(clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return softmax of the shipped recogniser's logits: [N, 4] for clips uint8 [N, 3, 16, 64, 64]."""
    model, preprocessing = shipped_recogniser()
    parts = [
        train_recogniser.logits_of(model, np.ascontiguousarray(clips[i : i + 50]), preprocessing).softmax(1)
        for i in range(0, len(clips), 50)
    ]
    return torch.cat(parts).numpy()


def measure_recogniser(pool: ClipPool) -> dict[str, float]:
    """Return accuracies on the middle clips, forward and reversed, and results for frozen clips. All in 0..1."""
    model, preprocessing = shipped_recogniser()
    report = train_recogniser.evaluate(model, pool, preprocessing)
    clips = centre_clips(pool)
    for name, t in (("first", 0), ("middle", CLIP_FRAMES // 2), ("last", CLIP_FRAMES - 1)):
        frozen = class_probabilities(np.repeat(clips[:, :, t : t + 1], CLIP_FRAMES, axis=2))
        report[f"frozen {name} frame, accuracy"] = float((frozen.argmax(1) == pool.labels_N).mean())
        report[f"frozen {name} frame, mean top probability"] = float(frozen.max(1).mean())
    return report


@torch.no_grad()
def detector_milliseconds(batch: int = 64, rounds: int = 20) -> float:
    """Return median milliseconds per frame of the fused detector's forward pass at 128 x 128, channels last."""
    model = shipped_detector().fuse(verbose=False).to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, IMAGE_SIDE, IMAGE_SIDE).to(memory_format=torch.channels_last)
    model(images)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        model(images)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / batch * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=9001)
    parser.add_argument("--videos", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"recogniser, {args.videos} videos of seed {args.seed}, classes {MOTION_ONLY.labels}")
    for name, value in measure_recogniser(clip_pool(args.seed, args.videos)).items():
        print(f"  {name}: {value:.4f}")
    for crf in (18, 28):
        frames = labelled_frames(args.seed + 1, args.videos // 2, 3, crf=crf)
        print(f"detector, {len(frames)} frames of seed {args.seed + 1}, crf {crf}")
        for name, value in train_detector.evaluate(shipped_detector(), frames).items():
            print(f"  {name}: {value:.4f}")
    how = f"fused, channels last, batches of 64, {args.threads} threads"
    print(f"  forward, {how}: {detector_milliseconds():.2f} ms per frame")


if __name__ == "__main__":
    main()
