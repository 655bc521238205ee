"""Case study "tennis": `python -m tools.cases.tennis TENNIS7 --out DIR`. See docs/cases/tennis.md.

Trains two recognisers, one on the clips as they are, one without the rows that hold an editor's mark, and asks both the
same questions about it with `configs/cases/tennis.yaml`. The files in `DIR`:

- `seen/`, `cut/`: the recognisers (see `tools/train_recogniser.py`); existing ones are used;
- `*.csv`, `drawn/`: manifests for the config, and clips with the mark drawn onto them;
- `runs/seen`, `runs/cut`: the runs; `vtcav compare` and `vtcav gradcam` take them;
- `figures/`: what `vtcav export` writes of both;
- `rivals.json`: what the paper's recipe and Captum's say of both, on the same activations;
- `truth.json`: what drawing the mark really does to the answers.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools import train_recogniser
from tools.cases import rivals
from tools.cases.watermark import MARKED, UNMARKED, draw_mark, has_mark, mark_shape, with_mark, write_again
from tools.recognisers.clips import shrunk
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.video.sample import spread_clips

CONFIG = "configs/cases/tennis.yaml"
CUT_ROWS = 0.1364  # of 240 rows, 32.7 at the top and at the bottom; the mark lies in the lowest 28
FRAMES, INTERVAL, SIDE = 8, 6, 80  # as in CONFIG
SIDES = {"seen": 0.0, "cut": CUT_ROWS}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="Tennis-7: a folder per stroke, and scenes.csv (uri, label, scene)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, help="which quarter of the scenes is held out; also the seed")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--cpus", type=int, default=2)
    args = parser.parse_args(argv)
    for side, rows in SIDES.items():
        if not (args.out / side / "report.json").is_file():
            code = train_recogniser.main(training_arguments(args.videos, args.out / side, args.fold, args.epochs, rows))
            if code:
                return code
    lay_out(args.out)
    runs = {side: run_case(args.out, side, args.cpus) for side in SIDES}
    from vtcav_ray.exports.paper import export

    for side, run in runs.items():
        export(run, str(args.out / "figures" / side), formats=("png",))
    found = {side: rivals.answers(run, ("mark", "mark drawn")) for side, run in runs.items()}
    (args.out / "rivals.json").write_text(json.dumps(found, indent=1) + "\n")
    truth = {side: real_effects(args.out, side) for side in SIDES}
    (args.out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    return 0


def real_effects(out: Path, side: str) -> dict[str, Any]:
    """Return what drawing the mark does to a recogniser's answers: the same held-out clips without and with it.

    Returns:
        For each class, the mean change of its logit; and how many clips are answered with a class that has the mark in
        all of its clips (`MARKED`), without and with it.
    """
    import torch

    from vtcav_ray.config.model import ModelConfig
    from vtcav_ray.models.mmaction import load_mmaction

    shape = mark_shape([Path(row["uri"]) for row in _read(out / "clips.csv") if row["label"] in MARKED])
    settings = ModelConfig(config=str(out / side / "config.py"), checkpoint=str(out / side / "recogniser.pth"))
    model = load_mmaction(settings, torch.device("cpu"), 0)
    logits: dict[bool, list[Any]] = {False: [], True: []}
    for row in _read(out / "no_mark.csv"):
        frames, _ = decode_frames(row["uri"])
        chosen = frames[spread_clips(len(frames), FRAMES, INTERVAL, 1)[0]]
        for drawn in logits:
            clip = np.stack([shrunk(f, SIDE) for f in (with_mark(chosen, shape) if drawn else chosen)])
            with torch.no_grad():
                x = model.preprocessor([clip], "center", torch.device("cpu"))[:, 0]
                logits[drawn].append(model.logits(x)[0])
    plain, marked = (torch.stack(logits[drawn]) for drawn in (False, True))
    of_marked = [k for k, name in enumerate(model.class_names) if name in MARKED]
    answered = [int(torch.isin(x.argmax(1), torch.tensor(of_marked)).sum()) for x in (plain, marked)]
    change = (marked - plain).mean(0).tolist()
    return {
        "clips": len(plain),
        "logit_change": dict(zip(model.class_names, change, strict=True)),
        "answered_with_a_marked_class": {"without": answered[0], "with": answered[1]},
    }


def training_arguments(videos: Path, out: Path, fold: int, epochs: int, cut_rows: float) -> list[str]:
    """Return the arguments of `tools.train_recogniser`: held out is a quarter of the scenes."""
    settings = {
        "groups": videos / "scenes.csv", "group-column": "scene", "folds": 4, "fold": fold, "seed": fold,
        "architecture": "resnet3d", "frames": FRAMES, "interval": INTERVAL, "side": SIDE, "zoom": 0.85,
        "epochs": epochs, "rate": 2e-3, "cut-rows": cut_rows,
    }  # fmt: skip
    return [str(videos), "--out", str(out), *(part for k, v in settings.items() for part in (f"--{k}", str(v)))]


def lay_out(out: Path) -> None:
    """Write the manifests of the config, and the clips with the mark drawn onto them.

    Concepts are of held-out scenes, class examples of the scenes that were trained on. Of the held-out clips without
    the mark, every second one has it drawn on; the others are written again through the same encoder.
    """
    trained, held_out = _read(out / "seen" / "trained.csv"), _read(out / "seen" / "held_out.csv")
    _write(out / "clips.csv", trained)
    shape = mark_shape([Path(row["uri"]) for row in trained if row["label"] in MARKED])
    marked = [row for row in held_out if row["label"] not in UNMARKED and has_mark(Path(row["uri"]), shape)]
    plain = [row for row in held_out if row not in marked]
    _write(out / "mark.csv", marked)
    _write(out / "no_mark.csv", plain)
    drawn, others = [], []
    for number, row in enumerate(sorted(plain, key=lambda row: (row["label"], row["uri"]))):
        source = Path(row["uri"])
        target = out / "drawn" / f"{row['label']}_{source.name}"
        if not target.is_file():
            draw_mark(source, target, shape) if number % 2 == 0 else write_again(source, target)
        (others if number % 2 else drawn).append({**row, "uri": str(target.resolve())})
    _write(out / "drawn.csv", drawn)
    _write(out / "not_drawn.csv", others)


def run_case(out: Path, side: str, cpus: int) -> Any:
    """Run the config for one recogniser, or what is missing of it; return the run."""
    from vtcav_ray import load_config, pipeline

    return pipeline.run(load_config(CONFIG, settings_of(out, side, cpus), out=str((out / "runs" / side).resolve())))


def settings_of(out: Path, side: str, cpus: int) -> list[str]:
    """Return the overrides that point the config to the files in `out`."""
    place = out.resolve()
    return [
        f"videos.uri={place}/clips.csv",
        f"clips.concepts.0.clips={place}/mark.csv",
        f"clips.concepts.0.negatives={place}/no_mark.csv",
        f"clips.concepts.1.clips={place}/drawn.csv",
        f"clips.concepts.1.negatives={place}/not_drawn.csv",
        f"model.config={place}/{side}/config.py",
        f"model.checkpoint={place}/{side}/recogniser.pth",
        f"resources.num_cpus={cpus}",
    ]


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("uri", "label", "source"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({"uri": row["uri"], "label": row["label"], "source": row["group"]} for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
