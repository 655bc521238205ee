"""Train the planted world's detector: `python -m tools.world_models.train_detector --out DIR`.

Uses Ultralytics' model, loss, suppression and metric, but a separate training loop, because Ultralytics' trainer needs
a working torchvision.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tools.world_models.frame_pool import IMAGE_SIDE, LabelledFrame, augment, labelled_frames, letterbox
from vtcav_ray.tracks.ultralytics_import import prefer_own_nms
from vtcav_ray.world import asset
from vtcav_ray.world.rules import KINDS

CONFIG = asset("detector.yaml")
_HELD_OUT_SEED_OFFSET = 1_000_000
_EMA_DECAY = 0.998
_IOU_LEVELS = np.linspace(0.5, 0.95, 10)

log = logging.getLogger("train_detector")


def build_model() -> Any:
    """Build Ultralytics' `DetectionModel` from the world's yaml, with the loss weights that its criterion reads."""
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils import DEFAULT_CFG

    model = DetectionModel(str(CONFIG), ch=3, nc=len(KINDS), verbose=False)
    model.names = dict(enumerate(KINDS))
    model.args = DEFAULT_CFG
    return model


def make_batch(frames: list[LabelledFrame]) -> dict[str, torch.Tensor]:
    """Make the input of `DetectionModel.loss`: img float [B, 3, 128, 128] in 0..1, and boxes as xywh in 0..1."""
    boxes = np.concatenate([frame.boxes_N4 for frame in frames]) / IMAGE_SIDE
    middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    owners = np.concatenate([np.full(len(frame.kinds_N), i, np.float32) for i, frame in enumerate(frames)])
    return {
        "img": to_input([frame.image_HW3 for frame in frames]),
        "batch_idx": torch.from_numpy(owners),
        "cls": torch.from_numpy(np.concatenate([frame.kinds_N for frame in frames])).float().view(-1, 1),
        "bboxes": torch.from_numpy(np.concatenate([middles, sizes], axis=1).astype(np.float32)),
    }


def to_input(images: list[NDArray[np.uint8]]) -> torch.Tensor:
    """Convert uint8 RGB [H, W, 3] images of one size to the detector's float input [B, 3, H, W] in 0..1."""
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()).float() / 255


@torch.no_grad()
def evaluate(model: Any, frames: list[LabelledFrame]) -> dict[str, float]:
    """Compute mAP on letterboxed frames by Ultralytics' `ap_per_class`; `recall` and `precision` at confidence 0.25."""
    from ultralytics.utils.metrics import ap_per_class
    from ultralytics.utils.nms import non_max_suppression

    prefer_own_nms()
    model.eval()
    hits, confidences, kinds, truths = [], [], [], []
    for first in range(0, len(frames), 64):
        part = [letterbox(frame) for frame in frames[first : first + 64]]
        raw = model(to_input([frame.image_HW3 for frame in part]))
        # After its time limit, Ultralytics' suppression returns nothing for the rest of a batch: a busy machine would
        # look like a bad model.
        kept = non_max_suppression(raw, conf_thres=0.001, iou_thres=0.6, max_time_img=60.0)
        for frame, found in zip(part, kept, strict=True):
            found_D6 = found.numpy()
            hits.append(match(found_D6, frame))
            confidences.append(found_D6[:, 4])
            kinds.append(found_D6[:, 5])
            truths.append(frame.kinds_N)
    hit, confidence, truth = np.concatenate(hits), np.concatenate(confidences), np.concatenate(truths)
    ap = ap_per_class(hit, confidence, np.concatenate(kinds), truth)[5]
    sure = confidence >= 0.25
    report = {
        "mAP50": float(ap[:, 0].mean()),
        "mAP50-95": float(ap.mean()),
        "recall": float(hit[sure, 0].sum() / len(truth)),
        "precision": float(hit[sure, 0].mean()) if sure.any() else 0.0,
    }
    return report | {f"AP50 {kind}": float(value) for kind, value in zip(KINDS, ap[:, 0], strict=True)}


def match(found_D6: NDArray[np.float32], frame: LabelledFrame) -> NDArray[np.bool_]:
    """Mark detections (xyxy, confidence, kind; best first) that are correct at each of ten IoU levels: bool [D, 10].

    Each true box is matched once, to the detection of its kind that overlaps it most.
    """
    right = np.zeros((len(found_D6), len(_IOU_LEVELS)), bool)
    if not len(found_D6) or not len(frame.kinds_N):
        return right
    corner1 = np.maximum(found_D6[:, None, :2], frame.boxes_N4[None, :, :2])
    corner2 = np.minimum(found_D6[:, None, 2:4], frame.boxes_N4[None, :, 2:])
    shared = np.clip(corner2 - corner1, 0, None).prod(2)
    area_D = (found_D6[:, 2:4] - found_D6[:, :2]).prod(1)
    area_N = (frame.boxes_N4[:, 2:] - frame.boxes_N4[:, :2]).prod(1)
    iou = shared / (area_D[:, None] + area_N[None] - shared)
    iou *= found_D6[:, 5][:, None] == frame.kinds_N[None]
    order = np.argsort(-iou, axis=None)
    for level, least in enumerate(_IOU_LEVELS):
        used_D, used_N = set(), set()
        for flat in order:
            d, n = divmod(int(flat), iou.shape[1])
            if iou[d, n] < least:
                break
            if d not in used_D and n not in used_N:
                used_D.add(d)
                used_N.add(n)
                right[d, level] = True
    return right


def save(model: Any, path: Path, meta: dict[str, Any]) -> None:
    """Write Ultralytics' checkpoint format with fp16 weights, so that `YOLO(path)` loads it."""
    import ultralytics

    path.parent.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).half().eval()
    half.criterion = None
    half.args = {"imgsz": IMAGE_SIDE, "task": "detect"}
    half.task = "detect"
    # The yaml's own path is specific to the machine that trained the model.
    half.yaml["yaml_file"] = CONFIG.name
    for parameter in half.parameters():
        parameter.requires_grad_(False)
    checkpoint = {
        "epoch": -1,
        "best_fitness": None,
        "model": half,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"imgsz": IMAGE_SIDE, "task": "detect", "model": CONFIG.name},
        "train_metrics": meta,
        "date": date.today().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }
    aside = path.with_suffix(".part")
    torch.save(checkpoint, aside)
    aside.replace(path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    start = time.monotonic()
    frames = labelled_frames(args.seed, args.videos, args.frames_per_video)
    held_out = labelled_frames(args.seed + _HELD_OUT_SEED_OFFSET, 150, 2, crf=18)
    log.info("%d frames, %d held out, %.0f s", len(frames), len(held_out), time.monotonic() - start)
    model = build_model().train()
    log.info("%d parameters", sum(p.numel() for p in model.parameters()))
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": 0.02},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    average = copy.deepcopy(model).eval()
    losses: list[float] = []
    for step in range(args.steps):
        warm = min(1.0, (step + 1) / args.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        batch = make_batch([augment(frames[i], rng) for i in rng.integers(len(frames), size=args.batch)])
        loss, _parts = model.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        nn.utils.clip_grad_norm_(trainable, 10.0)
        optimizer.step()
        _follow(average, model, step)
        losses.append(float(loss.detach().sum()) / args.batch)
        if step + 1 == args.steps or (step + 1) % args.every == 0:
            report = evaluate(average, held_out)
            figures = " ".join(f"{name} {value:.3f}" for name, value in report.items())
            mean_loss, seconds = float(np.mean(losses[-args.every :])), time.monotonic() - start
            log.info("step %d loss %.3f %s (%.0f s)", step + 1, mean_loss, figures, seconds)
            save(average, args.out / "detector.pt", report | {"seed": args.seed, "step": step + 1})


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, step: int) -> None:
    """Update the exponential moving average of weights and batch-norm statistics; its memory is short at first."""
    decay = min(_EMA_DECAY, (1 + step) / (10 + step))
    for slow, fast in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for detector.pt")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--videos", type=int, default=1500, help="rendered videos to take frames from")
    parser.add_argument("--frames-per-video", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--every", type=int, default=150, help="steps between evaluations")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(args)


if __name__ == "__main__":
    main()
