"""Case study "gestures": `python -m tools.cases.gestures UTD_DEPTH --out DIR`. See docs/cases/gestures.md.

Trains a recogniser, runs `configs/cases/gestures.yaml` on clips of held-out people, and compares the effect of
reversing and of freezing a class's clips with what that really costs the class. The files in `DIR`:

- `model/`: the recogniser (see `tools/train_recogniser.py`); an existing one is used;
- `clips/`: the clips, laid out for the config;
- `run/`: the run; `vtcav` resumes it;
- `figures/`: what `vtcav export` writes, and `merit.png`;
- `merit.json`: rank correlations over classes, for the concept effect, the sign count and the paper's recipe.

`--quick` uses a few clips of four gestures, one epoch and few random sets: it shows that the case runs, and nothing
else.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import train_recogniser
from tools.cases.merit import draw, measure
from tools.cases.quick import SETTINGS, few_clips

CONFIG = "configs/cases/gestures.yaml"
QUICK = ("circle_ccw", "circle_cw", "sit_to_stand", "stand_to_sit")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "videos", type=Path, help="UTD-MHAD's depth videos: a folder per gesture, s<person>_t<trial>.mp4"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, help="which third of the people is held out; also the seed")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few clips and one epoch: try the case out")
    args = parser.parse_args(argv)
    videos, epochs, more = args.videos, args.epochs, tuple[str, ...]()
    if args.quick:
        videos, epochs, more = few_clips(args.videos, args.out / "few", each=16, classes=QUICK), 1, SETTINGS
    if not (args.out / "model" / "report.json").is_file():
        code = train_recogniser.main(training_arguments(videos, args.out / "model", args.fold, epochs))
        if code:
            return code
    lay_out(args.out / "model", args.out / "clips")
    run = run_case(args.out, args.cpus, more)
    from vtcav_ray.exports.paper import export

    merit = measure(run)
    (args.out / "merit.json").write_text(json.dumps(merit, indent=1) + "\n")
    export(run, str(args.out / "figures"), formats=("png",), classes=("circle_cw",))
    draw(merit, args.out / "figures" / "merit.png")
    print(json.dumps(merit["summary"], indent=1))
    return 0


def training_arguments(videos: Path, out: Path, fold: int, epochs: int) -> list[str]:
    """Return the arguments of `tools.train_recogniser`: held out are two or three of the eight people."""
    settings = {
        "group-pattern": "^s[0-9]+", "folds": 3, "fold": fold, "seed": fold, "architecture": "resnet3d", "frames": 8,
        "interval": 6, "side": 64, "epochs": epochs, "rate": 2e-3,
    }  # fmt: skip
    return [str(videos), "--out", str(out), *(part for k, v in settings.items() for part in (f"--{k}", str(v)))]


def lay_out(model: Path, clips: Path) -> None:
    """Link (or copy) the clips of both sides of the split to `clips/trained/CLASS/` and `clips/held_out/CLASS/`."""
    for side in ("trained", "held_out"):
        with (model / f"{side}.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                source = Path(row["uri"])
                target = clips / side / row["label"] / source.name
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    continue
                try:
                    os.link(source, target)
                except OSError:  # another disk
                    shutil.copyfile(source, target)


def settings_of(out: Path, cpus: int) -> list[str]:
    """Return the overrides that point the config to the files in `out`."""
    clips, model = (out / "clips").resolve(), (out / "model").resolve()
    return [
        f"videos.uri={clips}/*/*/*.mp4",
        f"clips.concepts.from={clips}/held_out",
        f"model.config={model}/config.py",
        f"model.checkpoint={model}/recogniser.pth",
        f"resources.num_cpus={cpus}",
    ]


def run_case(out: Path, cpus: int, more: Sequence[str] = ()) -> Any:
    """Run the config, or what is missing of it; return the run."""
    from vtcav_ray import load_config, pipeline
    from vtcav_ray.runs.run import Run

    config = load_config(CONFIG, [*settings_of(out, cpus), *more], out=str((out / "run").resolve()))
    pipeline.run(config)
    return Run(config.out)


if __name__ == "__main__":
    raise SystemExit(main())
