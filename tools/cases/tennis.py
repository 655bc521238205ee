"""Case study "tennis": `python -m tools.cases.tennis TENNIS7 --out DIR`. See docs/cases/tennis.md.

Trains five recognisers and asks them the same questions about an editor's mark, with `configs/cases/tennis.yaml`:

- `seen`: on the clips as they are, at 80 pixels;
- `cut`: without the rows that hold the mark;
- `marked`: `seen` with a new classifier, trained for a quarter of the epochs more, on clips with a bold version of the
  mark drawn onto each serve: a shortcut that is there by construction;
- `large`, `large-cut`: as `seen` and `cut`, but at 112 pixels and without random crops.

The files in `DIR`:

- `seen/`, `cut/`, `marked/`, `large/`, `large-cut/`: the recognisers (see `tools/train_recogniser.py`); existing ones
  are used;
- `*.csv`, `*drawn/`: manifests for the config, and clips with a mark drawn onto them; `shortcut/`: the clips that
  `marked` is trained on;
- `runs/`: the runs; `vtcav compare` and `vtcav gradcam` take them. Those with the name of a recogniser ask about the
  editor's mark, `bold-marked`, `bold-seen` and `bold-cut` about the bold one;
- `figures/`: what `vtcav export` writes;
- `rivals.json`: what the paper's recipe and Captum's say, on the same activations;
- `truth.json`: what drawing the mark really does to the answers;
- `compare.json`: what `vtcav compare` says of `bold-seen` and `bold-marked`, and of `large-cut` and `large`, what
  moved most first.

`--quick` uses a few clips of each stroke, one epoch, three of the runs and few random sets: it shows that the case
runs, and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import train_recogniser
from tools.cases import rivals
from tools.cases.quick import SETTINGS, few_clips
from tools.cases.tennis_clips import lay_out, plant_shortcut
from tools.cases.tennis_truth import real_effects

CONFIG = "configs/cases/tennis.yaml"
CUT_ROWS = 0.1364  # of 240 rows, 32.7 at the top and at the bottom; the mark lies in the lowest 28
FRAMES, INTERVAL = 8, 6  # as in CONFIG
QUESTIONS = ("mark", "mark drawn", "mark drawn on others")  # the concepts of CONFIG


@dataclass(frozen=True)
class Input:
    """What a recogniser sees of a clip."""

    cut_rows: float = 0.0  # share of the rows that is cut off, at the top and at the bottom
    side: int = 80  # pixels
    zoom: float = 0.85  # smallest share of the area that a random crop of the training keeps
    epochs: float = 1.0  # share of `--epochs`


RECOGNISERS = {
    "seen": Input(),
    "cut": Input(cut_rows=CUT_ROWS),
    "marked": Input(epochs=0.25),
    "large": Input(side=112, zoom=1.0, epochs=0.75),
    "large-cut": Input(cut_rows=CUT_ROWS, side=112, zoom=1.0, epochs=0.75),
}
RUNS = {
    "seen": ("seen", "mark"),
    "cut": ("cut", "mark"),
    "large": ("large", "mark"),
    "large-cut": ("large-cut", "mark"),
    "bold-seen": ("seen", "bold"),
    "bold-cut": ("cut", "bold"),
    "bold-marked": ("marked", "bold"),
}  # run -> recogniser, and the mark that is drawn
QUICK = ("cut", "bold-seen", "bold-marked")  # each mark, and two runs to compare
COMPARED = (("bold-seen", "bold-marked"), ("large-cut", "large"))


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
    names = QUICK if args.quick else tuple(RUNS)
    for name in dict.fromkeys(["seen", *(RUNS[run][0] for run in names)]):  # `marked` starts from `seen`
        if (args.out / name / "report.json").is_file():
            continue
        folder = plant_shortcut(videos, args.out) if name == "marked" else videos
        code = train_recogniser.main(training_arguments(folder, groups, args.out, name, args.fold, epochs))
        if code:
            return code
    lay_out(args.out)
    runs = {name: run_case(args.out, name, args.cpus, more) for name in names}
    write_answers(args.out, runs)
    return 0


def training_arguments(videos: Path, groups: Path, out: Path, recogniser: str, fold: int, epochs: int) -> list[str]:
    """Return the arguments of `tools.train_recogniser`: held out is a quarter of the scenes."""
    shown = RECOGNISERS[recogniser]
    settings: dict[str, object] = {
        "groups": groups, "group-column": "scene", "folds": 4, "fold": fold, "seed": fold,
        "architecture": "resnet3d", "frames": FRAMES, "interval": INTERVAL, "side": shown.side, "zoom": shown.zoom,
        "epochs": max(int(epochs * shown.epochs), 1), "rate": 2e-3, "cut-rows": shown.cut_rows,
        "cache": out / f"frames-{shown.side}",
    }  # fmt: skip
    if recogniser == "marked":
        settings |= {"cache": out / "frames-shortcut", "start": out / "seen" / "recogniser.pth"}
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
        f"clips.concepts.1.clips={place}/{mark}_drawn_pairs.csv",
        f"clips.concepts.1.negatives={place}/not_drawn_pairs.csv",
        f"clips.concepts.2.clips={place}/{mark}_drawn.csv",
        f"clips.concepts.2.negatives={place}/not_drawn.csv",
        f"clips.size={RECOGNISERS[recogniser].side}",
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
    _write(out / "rivals.json", {name: rivals.answers(run, QUESTIONS) for name, run in runs.items()})
    _write(out / "truth.json", {name: _truth(out, *RUNS[name]) for name in runs})
    moved = {}
    for pair in COMPARED:
        if all(name in runs for name in pair):
            rows = compare_runs([runs[name] for name in pair]).to_pylist()
            rows.sort(key=lambda row: (not row["moved"], row["q"], -abs(row["change"])))
            moved[" to ".join(pair)] = rows
    _write(out / "compare.json", moved)


def _truth(out: Path, recogniser: str, mark: str) -> dict[str, Any]:
    shown = RECOGNISERS[recogniser]
    size = (FRAMES, INTERVAL, shown.side)
    return real_effects(out, recogniser, mark, size, sees_the_place=not shown.cut_rows)


def _write(path: Path, found: Any) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
