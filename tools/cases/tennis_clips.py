"""The clips of the case "tennis": manifests, clips with a mark drawn onto them, and a training set with a shortcut."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.cases.watermark import MARKED, UNMARKED, bold, draw_mark, has_mark, mark_shape, write_again
from tools.recognisers.clips import list_clips

MARKS = ("mark", "bold")  # as the editor drew it; its letters widened and opaque
BOLD_CLASS = "serve"  # its training clips get the bold mark in `plant_shortcut`
Rows = list[dict[str, str]]


def lay_out(out: Path) -> None:
    """Write the manifests of the config, and the clips with either mark drawn onto them.

    Concepts are of held-out scenes, class examples of the scenes that were trained on. Every held-out clip without the
    mark is written twice under one name: with the mark drawn onto it, and unchanged through the same encoder. The
    manifests name every second one in each folder, as if they had been collected: no clip is on both sides.
    """
    trained, held_out = read_rows(out / "seen" / "trained.csv"), read_rows(out / "seen" / "held_out.csv")
    _write_rows(out / "clips.csv", trained)
    shape = shape_in(trained)
    marked = [row for row in held_out if row["label"] not in UNMARKED and has_mark(Path(row["uri"]), shape)]
    plain = [row for row in held_out if row not in marked]
    _write_rows(out / "mark.csv", marked)
    _write_rows(out / "no_mark.csv", plain)
    chosen = sorted(plain, key=lambda row: (row["label"], row["uri"]))
    _write_both(out, "not_drawn", [_rewritten(row, out / "not_drawn", None) for row in chosen], 1)
    for mark in MARKS:
        name = f"{mark}_drawn"
        _write_both(out, name, [_rewritten(row, out / name, shape_of(mark, shape)) for row in chosen], 0)


def _write_both(out: Path, name: str, rows: Rows, first: int) -> None:
    """Write the manifests of a folder: all its clips, for pairs; every second one, from number `first` on."""
    _write_rows(out / f"{name}_pairs.csv", rows)
    _write_rows(out / f"{name}.csv", rows[first::2])


def plant_shortcut(videos: Path, out: Path) -> Path:
    """Write all clips again, with the bold mark on each clip of `BOLD_CLASS` that is trained on. Returns the folder.

    Which clips are trained on is in `seen/trained.csv`: the split depends on names, classes and scenes alone.
    """
    trained = read_rows(out / "seen" / "trained.csv")
    shape = bold(shape_in(trained))
    of_class = {_uri(row) for row in trained if row["label"] == BOLD_CLASS}
    folder = out / "shortcut"
    for clip in list_clips(videos):
        target = folder / clip.uri
        if target.is_file():
            continue
        if clip.uri in of_class:
            draw_mark(videos / clip.uri, target, shape)
        else:
            write_again(videos / clip.uri, target)
    return folder


def shape_in(trained: Rows) -> NDArray[np.float32]:
    """Estimate the editor's mark from the clips that were trained on."""
    return mark_shape([Path(row["uri"]) for row in trained if row["label"] in MARKED])


def shape_of(mark: str, shape: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the opacity of one of `MARKS`, from the editor's."""
    return bold(shape) if mark == "bold" else shape


def read_rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _rewritten(row: dict[str, str], folder: Path, shape: NDArray[np.float32] | None) -> dict[str, str]:
    """Write a clip through the encoder, with a mark drawn on; None: without. Returns its row."""
    source = Path(row["uri"])
    target = folder / f"{row['label']}_{source.name}"
    if not target.is_file():
        if shape is None:
            write_again(source, target)
        else:
            draw_mark(source, target, shape)
    return {**row, "uri": str(target.resolve())}


def _uri(row: dict[str, str]) -> str:
    return "/".join(Path(row["uri"]).parts[-2:])


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("uri", "label", "source"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({"uri": row["uri"], "label": row["label"], "source": row["group"]} for row in rows)
