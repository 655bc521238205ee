"""Train a small recogniser on a folder of labelled videos: `python -m tools.train_recogniser VIDEOS --out DIR`.

MMAction2's own Runner trains it, from a config in MMAction2's format. `VIDEOS` has one folder per class. Clips of one
group (a person, a scene) are on one side of the split:

    python -m tools.train_recogniser tennis7 --out run --groups tennis7/scenes.csv --group-column scene
    python -m tools.train_recogniser utd_depth --out run --group-pattern '^s[0-9]+'

`DIR` then holds `config.py` and `recogniser.pth`, which `vtcav` takes as `model.config` and `model.checkpoint`,
`report.json` (accuracies on the held-out clips, forward, reversed and frozen, with intervals over groups), and
`trained.csv` and `held_out.csv` (`uri`, `label`, `group`), which `videos.uri` takes. The last epoch is kept: held-out
clips choose nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.recognisers.clips import DataError, LabelledClip, decode_clips, list_clips, split
from tools.recognisers.configs import MODELS, Recipe, full_config
from tools.recognisers.head_norm import add_norm, fold_norm
from tools.recognisers.measures import CHANGES, logits_of, summary
from vtcav_ray.models.checkpoints import read_checkpoint
from vtcav_ray.models.mmaction_import import import_mmaction

log = logging.getLogger("train_recogniser")


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    torch.set_num_threads(args.threads)
    try:
        report = train(recipe, args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    forward = report["held_out"]["changes"]["forward"]
    print(f"held out: {forward['accuracy']:.3f} ({forward['interval'][0]:.3f} to {forward['interval'][1]:.3f})")
    return 0


def train(recipe: Recipe, args: argparse.Namespace) -> dict[str, Any]:
    """Train, measure, and write all files. Returns the report."""
    start = time.monotonic()
    listed = list_clips(args.videos, args.groups, args.group_column, args.group_pattern)
    frames = args.cache or args.out / "frames"
    decoded = decode_clips(args.videos, listed, args.short_side or recipe.side, frames)
    clips = [clip for clip in listed if clip.uri not in decoded.left_out]
    sides = dict(zip(("train", "held_out"), split(clips, args.folds, args.fold, args.split_seed), strict=True))
    classes = sorted({clip.label for clip in clips})
    args.out.mkdir(parents=True, exist_ok=True)
    lists = {name: str(_write_list(args.out, name, args.videos, clips, sides[name], classes)) for name in sides}
    written = full_config(recipe, classes, str(args.videos), lists)
    written["train_dataloader"]["drop_last"] = len(sides["train"]) % recipe.batch == 1  # a batch norm needs two clips
    runner = _runner(written, args.out, frames)
    started = _start_from(runner.model, args.start) if args.start else 0
    if recipe.architecture == "swin":
        add_norm(runner.model.cls_head)
    runner.train()
    if recipe.architecture == "swin":
        fold_norm(runner.model.cls_head)
    seconds = time.monotonic() - start
    labels = np.array([classes.index(clip.label) for clip in clips])
    held_out = sides["held_out"]
    dataset = runner.val_dataloader.dataset
    logits = {change: logits_of(runner.model, dataset, change, recipe.batch) for change in CHANGES}
    report = {
        "recipe": asdict(recipe),
        "classes": classes,
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "tensors_from_start": started,
        "seconds": round(seconds, 1),
        "trained_clips": len(sides["train"]),
        "trained_groups": len({clips[i].group for i in sides["train"]}),
        "left_out": decoded.left_out,
        "held_out": summary(logits, labels[held_out], [clips[i].group for i in held_out], classes),
    }
    meta = {"classes": classes, "seed": recipe.seed, "held_out_accuracy": _accuracy(report)}
    state = {name: value.detach().cpu().clone() for name, value in runner.model.state_dict().items()}
    torch.save({"meta": meta, "state_dict": state}, args.out / "recogniser.pth")
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _accuracy(report: dict[str, Any]) -> float:
    return float(report["held_out"]["changes"]["forward"]["accuracy"])


def _runner(written: dict[str, Any], out: Path, frames: Path) -> Any:
    """Write `config.py`, and return MMAction2's Runner of it, whose datasets take the decoded frames."""
    import_mmaction()
    from mmengine.config import Config
    from mmengine.runner import Runner

    import tools.recognisers.dataset  # noqa: F401 - which registers it

    config = Config(written)
    config.dump(out / "config.py")
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.type = "DecodedVideoDataset"
        loader.dataset.frames = str(frames)
        loader.dataset.pop("data_prefix")
    config.work_dir = str(out / "log")
    config.launcher = "none"
    return Runner.from_cfg(config)


def _start_from(model: Any, path: Path) -> int:
    """Load the tensors whose names and shapes fit, all but the classifier's. Returns their number."""
    weights = read_checkpoint(str(path)).weights
    model.init_weights()  # now: Runner.train() would do so after this function, and overwrite what it loads
    own = model.state_dict()
    fit = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape and not k.startswith("cls_head")}
    if not fit:
        raise DataError(f"No tensor of {path} fits this model. Give weights of the same architecture, or no --start.")
    model.load_state_dict(fit, strict=False)
    log.info("%d of %d tensors are from %s", len(fit), len(own), path)
    return len(fit)


def _write_list(
    out: Path,
    side: str,
    folder: Path,
    clips: Sequence[LabelledClip],
    numbers: NDArray[np.int64],
    classes: Sequence[str],
) -> Path:
    """Write MMAction2's list of one side (`path number`), and a manifest for `vtcav`; return the list."""
    chosen = [clips[i] for i in numbers]
    listed = out / f"{side}.txt"
    listed.write_text("".join(f"{clip.uri} {classes.index(clip.label)}\n" for clip in chosen))
    with (out / ("trained.csv" if side == "train" else "held_out.csv")).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("uri", "label", "group"))
        writer.writerows((str((folder / clip.uri).resolve()), clip.label, clip.group) for clip in chosen)
    return listed


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="folder with one folder per class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", type=Path, help="CSV with the columns `uri` and --group-column")
    parser.add_argument("--group-column", default="group")
    parser.add_argument("--group-pattern", default="", help="regular expression in the file's name; default: each clip")
    parser.add_argument("--folds", type=int, default=4, help="one of so many parts is held out")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights to start from; its classifier is not used")
    parser.add_argument("--cache", type=Path, help="folder for the decoded frames, which several runs can share")
    parser.add_argument("--short-side", type=int, help="of the decoded frames, pixels; default: --side")
    parser.add_argument("--threads", type=int, default=2)
    for field in fields(Recipe):
        choices = tuple(MODELS) if field.name == "architecture" else None
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default, choices=choices)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
