"""Case study "tennis": `python -m tools.cases.tennis TENNIS7 --out DIR`. See docs/cases/tennis.md.

Trains three recognisers and asks them the same questions about an editor's mark, with `configs/cases/tennis.yaml`:

- `seen`: on the clips as they are;
- `cut`: without the rows that hold the mark;
- `marked`: `seen` with a new classifier, trained for a quarter of the epochs more, on clips with a bold version of the
  mark drawn onto each serve: a shortcut that is there by construction.

The files in `DIR`:

- `seen/`, `cut/`, `marked/`: the recognisers (see `tools/train_recogniser.py`); existing ones are used;
- `*.csv`, `*drawn/`: manifests for the config, and clips with a mark drawn onto them; `shortcut/`: the clips that
  `marked` is trained on;
- `runs/`: the runs; `vtcav compare` and `vtcav gradcam` take them. `seen` and `cut` ask about the editor's mark,
  `bold-marked`, `bold-seen` and `bold-cut` about the bold one;
- `figures/`: what `vtcav export` writes;
- `rivals.json`: what the paper's recipe and Captum's say, on the same activations;
- `truth.json`: what drawing the mark really does to the answers;
- `compare.json`: what `vtcav compare` says of `bold-seen` and `bold-marked`, what moved most first.

`--quick` uses a few clips of each stroke, one epoch, three of the runs and few random sets: it shows that the case
runs, and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import train_recogniser
from tools.cases import rivals
from tools.cases.quick import SETTINGS, few_clips
from tools.cases.tennis_clips import lay_out, plant_shortcut
from tools.cases.tennis_truth import real_effects

CONFIG = "configs/cases/tennis.yaml"
CUT_ROWS = 0.1364  # of 240 rows, 32.7 at the top and at the bottom; the mark lies in the lowest 28
FRAMES, INTERVAL, SIDE = 8, 6, 80  # as in CONFIG
RECOGNISERS = {"seen": 0.0, "cut": CUT_ROWS, "marked": 0.0}  # name -> rows that are cut off
RUNS = {
    "seen": ("seen", "mark"),
    "cut": ("cut", "mark"),
    "bold-seen": ("seen", "bold"),
    "bold-cut": ("cut", "bold"),
    "bold-marked": ("marked", "bold"),
}  # run -> recogniser, and the mark that is drawn
QUICK = ("cut", "bold-seen", "bold-marked")  # each recogniser, each mark, and the two runs to compare


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="Tennis-7: a folder per stroke, and scenes.csv (uri, label, scene)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, help="which quarter of the scenes is held out; also the seed")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few clips and one epoch: try the case out")
    args = parser.parse_args(argv)
    videos, groups, epochs, more = args.videos, args.videos / "scenes.csv", args.epochs, tuple[str, ...]()
    if args.quick:
        videos, epochs, more = few_clips(args.videos, args.out / "few", each=12), 1, SETTINGS
    for name in RECOGNISERS:
        if (args.out / name / "report.json").is_file():
            continue
        folder = plant_shortcut(videos, args.out) if name == "marked" else videos
        code = train_recogniser.main(training_arguments(folder, groups, args.out, name, args.fold, epochs))
        if code:
            return code
    lay_out(args.out)
    runs = {name: run_case(args.out, name, args.cpus, more) for name in (QUICK if args.quick else RUNS)}
    write_answers(args.out, runs)
    return 0


def training_arguments(videos: Path, groups: Path, out: Path, recogniser: str, fold: int, epochs: int) -> list[str]:
    """Return the arguments of `tools.train_recogniser`: held out is a quarter of the scenes."""
    settings: dict[str, object] = {
        "groups": groups, "group-column": "scene", "folds": 4, "fold": fold, "seed": fold,
        "architecture": "resnet3d", "frames": FRAMES, "interval": INTERVAL, "side": SIDE, "zoom": 0.85,
        "epochs": epochs, "rate": 2e-3, "cut-rows": RECOGNISERS[recogniser], "cache": out / "frames",
    }  # fmt: skip
    if recogniser == "marked":
        further = {"epochs": max(epochs // 4, 1), "start": out / "seen" / "recogniser.pth"}
        settings |= {"cache": out / "frames-shortcut", **further}
    place = str(out / recogniser)
    return [str(videos), "--out", place, *(part for k, v in settings.items() for part in (f"--{k}", str(v)))]


def run_case(out: Path, name: str, cpus: int, more: Sequence[str] = ()) -> Any:
    """Run the config for one of `RUNS`, or what is missing of it; return the run."""
    from vtcav_ray import load_config, pipeline

    settings = [*settings_of(out, name, cpus), *more]
    return pipeline.run(load_config(CONFIG, settings, out=str((out / "runs" / name).resolve())))


def settings_of(out: Path, name: str, cpus: int) -> list[str]:
    """Return the overrides that point the config to the files in `out`."""
    place = out.resolve()
    recogniser, mark = RUNS[name]
    return [
        f"videos.uri={place}/clips.csv",
        f"clips.concepts.0.clips={place}/mark.csv",
        f"clips.concepts.0.negatives={place}/no_mark.csv",
        f"clips.concepts.1.clips={place}/{mark}_drawn.csv",
        f"clips.concepts.1.negatives={place}/not_drawn.csv",
        f"model.config={place}/{recogniser}/config.py",
        f"model.checkpoint={place}/{recogniser}/recogniser.pth",
        f"resources.num_cpus={cpus}",
    ]


def write_answers(out: Path, runs: dict[str, Any]) -> None:
    """Write figures, the rivals' answers, the truth, and what `vtcav compare` puts first."""
    from vtcav_ray.compare.runs import compare_runs
    from vtcav_ray.exports.paper import export

    for name, run in runs.items():
        export(run, str(out / "figures" / name), formats=("png",))
    found = {name: rivals.answers(run, ("mark", "mark drawn")) for name, run in runs.items()}
    _write(out / "rivals.json", found)
    _write(out / "truth.json", {n: real_effects(out, *RUNS[n], (FRAMES, INTERVAL, SIDE)) for n in runs})
    moved = compare_runs([runs["bold-seen"], runs["bold-marked"]]).to_pylist()
    _write(out / "compare.json", sorted(moved, key=lambda row: (not row["moved"], row["q"], -abs(row["change"]))))


def _write(path: Path, found: Any) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
