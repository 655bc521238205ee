"""Train the planted world's recogniser: `python -m tools.world_models.train_recogniser --out DIR`.

From labels alone, motion is learnt late and suddenly (10,000 clips of this world taught nothing at all). Two aids speed
it up, and neither is part of the shipped model:
- the first convolution starts from filters that respond to change in time as well as structure in space;
- during the first half, a linear probe on the second stage's tokens is trained too, to predict what moves where.
With `--start WEIGHTS`, a run continues from the weights of another run (which `--stop` can end early). It then trains
on the class alone, with the harder clips (zoomed, frozen) throughout and a learning rate that falls to zero.

On Linux, setting MALLOC_MMAP_THRESHOLD_=8589934592 and MALLOC_TRIM_THRESHOLD_=8589934592 saves a third of the time
on the CPU: glibc then keeps the large buffers of a step for the next one.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tools.world_models.augment import STILL, Augmentation, centre_clips, sample_batch
from tools.world_models.pool import ClipPool, clip_pool
from vtcav_ray.models.mmaction_import import import_mmaction
from vtcav_ray.world import asset
from vtcav_ray.world.rules import MOTION_ONLY, REVERSE_LABEL

CONFIG = asset("recogniser.py")
_HELD_OUT_SEED_OFFSET = 1_000_000
_REVERSED = [MOTION_ONLY.labels.index(REVERSE_LABEL[label]) for label in MOTION_ONLY.labels]

log = logging.getLogger("train_recogniser")


def build_model() -> tuple[nn.Module, dict[str, Any]]:
    """Build the recogniser from its config; also return the preprocessor's `mean` and `std`."""
    import_mmaction()
    from mmaction.registry import MODELS
    from mmengine.config import Config

    config = Config.fromfile(str(CONFIG))
    return MODELS.build(config.model), config.model.data_preprocessor


def start_from_derivatives(model: Any) -> None:
    """Set half of the first convolution's filters to sums and differences in time of a 2-D cosine basis."""
    weight = model.backbone.patch_embed.proj.weight  # [32, 3, 2, 4, 4]
    _, channels, _, height, width = weight.shape
    positions = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    number = 0
    with torch.no_grad():
        for v, u in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1)):
            cosine = torch.outer(torch.cos(math.pi * v * positions[0]), torch.cos(math.pi * u * positions[1]))
            pattern = cosine / cosine.norm() / channels
            weight[number] = torch.stack([pattern, pattern]).expand(channels, -1, -1, -1)
            # Changes from frame to frame are small: without a gain, the following norm would drown them.
            weight[number + 1] = 4 * torch.stack([-pattern, pattern]).expand(channels, -1, -1, -1)
            number += 2


class MotionProbe(nn.Module):
    """A probe that predicts from each of the second stage's tokens what moves there: logits [B, 5, 8, 8, 8]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * model.backbone.embed_dims, STILL + 1)
        self.tokens_BTHWC = torch.empty(0)
        model.backbone.layers[1].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.tokens_BTHWC = output

    def loss(self, maps_BTHW: torch.Tensor) -> torch.Tensor:
        logits = self.linear(nn.functional.layer_norm(self.tokens_BTHWC, self.tokens_BTHWC.shape[-1:]))
        weight = torch.ones(STILL + 1)
        weight[STILL] = 0.2  # most of a clip is still
        return nn.functional.cross_entropy(logits.permute(0, 4, 1, 2, 3), maps_BTHW, weight=weight)


def logits_of(model: Any, clips: NDArray[np.uint8], preprocessing: dict[str, Any]) -> torch.Tensor:
    """Return logits [B, 4] for clips uint8 [B, 3, 16, 64, 64]."""
    mean = torch.tensor(preprocessing["mean"]).view(1, 3, 1, 1, 1)
    std = torch.tensor(preprocessing["std"]).view(1, 3, 1, 1, 1)
    features = model.backbone((torch.from_numpy(clips).float() - mean) / std)
    return model.cls_head(features)


@torch.no_grad()
def evaluate(model: nn.Module, pool: ClipPool, preprocessing: dict[str, Any]) -> dict[str, float]:
    """Return accuracies on the middle clips, forward and reversed (where the class is the opposite one), in 0..1."""
    model.eval()
    clips = centre_clips(pool)
    forward, backward = [], []
    for first in range(0, len(clips), 50):
        part = clips[first : first + 50]
        forward.append(logits_of(model, part, preprocessing))
        backward.append(logits_of(model, np.ascontiguousarray(part[:, :, ::-1]), preprocessing))
    labels = torch.from_numpy(pool.labels_N)
    reversed_labels = torch.tensor(_REVERSED)[labels]
    chosen, confidence = torch.cat(forward).argmax(1), torch.cat(forward).softmax(1).amax(1)
    model.train()
    report = {
        "accuracy": float((chosen == labels).float().mean()),
        "reversed": float((torch.cat(backward).argmax(1) == reversed_labels).float().mean()),
        "confidence": float(confidence.mean()),
    }
    for number, label in enumerate(MOTION_ONLY.labels):
        report[label] = float((chosen == labels)[labels == number].float().mean())
    return report


@dataclass(frozen=True)
class Schedule:
    """What changes from step to step. A `finishing` run continues from weights that know the classes."""

    steps: int
    warm_up: int
    peak: float
    finishing: bool

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to zero. If not finishing, the rate is constant in the first half."""
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        begin = self.warm_up if self.finishing else self.steps / 2
        late = max(0.0, (step - begin) / (self.steps - begin))
        return self.peak * 0.5 * (1 + math.cos(math.pi * late))

    def augmentation(self, step: int) -> Augmentation:
        """Plain clips for the first 40 % of the steps, then also zoomed and frozen ones, at full rate from 50 % on."""
        ramp = 1.0 if self.finishing else min(1.0, max(0.0, (step / self.steps - 0.4) / 0.1))
        return Augmentation(zoom=0.4 * ramp, frozen=0.1 * ramp)

    def probe_share(self, step: int) -> float:
        """Weight of the probe's loss relative to the class loss."""
        return 0.0 if self.finishing else max(0.0, 1 - 2 * step / self.steps)


def save(model: nn.Module, path: Path, meta: dict[str, Any]) -> None:
    """Write MMAction2's checkpoint format; readable with `weights_only=True`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    aside = path.with_suffix(".part")
    torch.save({"meta": meta, "state_dict": state}, aside)
    aside.replace(path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng([args.seed, 1] if args.start else args.seed)
    start = time.monotonic()
    pool = clip_pool(args.seed, args.videos, args.pool)
    held_out = clip_pool(args.seed + _HELD_OUT_SEED_OFFSET, 200)
    log.info("%d videos to train on, %d held out, %.0f s", len(pool), len(held_out), time.monotonic() - start)
    model, preprocessing = build_model()
    start_from_derivatives(model)
    if args.start:
        model.load_state_dict(torch.load(args.start, map_location="cpu", weights_only=True)["state_dict"])
    schedule = Schedule(args.steps, args.warm_up, args.lr, finishing=args.start is not None)
    stop = min(args.steps, args.stop or args.steps)
    probe = MotionProbe(model)
    log.info("%d parameters", sum(p.numel() for p in model.parameters()))
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [
        {"params": decayed, "weight_decay": 0.02},
        {"params": plain, "weight_decay": 0.0},
        {"params": list(probe.parameters()), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    loss_of = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    model.train()
    losses: list[float] = []
    probe_losses: list[float] = [math.nan]
    for step in range(stop):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        clips, targets, maps = sample_batch(pool, args.batch, schedule.augmentation(step), rng)
        loss = loss_of(logits_of(model, clips, preprocessing), torch.from_numpy(targets))
        if schedule.probe_share(step):
            probe_loss = probe.loss(torch.from_numpy(maps))
            loss = loss + schedule.probe_share(step) * probe_loss
            probe_losses.append(float(probe_loss.detach()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        last = step + 1 == stop
        if last or (step + 1) % args.every == 0:
            report = evaluate(model, held_out, preprocessing)
            figures = " ".join(f"{name} {value:.3f}" for name, value in report.items())
            seen = (step + 1) * args.batch
            mean_loss = float(np.mean(losses[-args.every :]))
            seconds = time.monotonic() - start
            probed = float(np.mean(probe_losses[-args.every :]))
            line = "step %d clips %d loss %.3f probe %.3f %s (%.0f s)"
            log.info(line, step + 1, seen, mean_loss, probed, figures, seconds)
            if last or min(report["accuracy"], report["reversed"]) >= 0.95:
                meta = {"classes": list(MOTION_ONLY.labels), "seed": args.seed, "step": step + 1, "clips": seen}
                save(model, args.out / "recogniser.pth", meta | {"held_out_accuracy": report["accuracy"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for recogniser.pth")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--videos", type=int, default=3000, help="rendered videos in the training pool")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--stop", type=int, help="end after this number of steps of the schedule")
    parser.add_argument("--start", type=Path, help="weights to continue from")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=int, default=50)
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--every", type=int, default=50, help="steps between evaluations")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pool", type=Path, help="file to keep the rendered pool in (.npz)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(args)


if __name__ == "__main__":
    main()
