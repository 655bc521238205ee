"""What drawing a mark really does to a tennis recogniser's answers, and how much of a Grad-CAM map lies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tools.cases.tennis_clips import read_rows, shape_in, shape_of
from tools.cases.watermark import REGION, VIDEO, with_mark
from tools.recognisers.clips import shrunk
from vtcav_ray.config.model import ModelConfig
from vtcav_ray.gradcam.maps import GradCam
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.mmaction import load_mmaction
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.video.sample import spread_clips

MAPPED = ("early", "middle", "late")


def real_effects(
    out: Path, recogniser: str, mark: str, size: tuple[int, int, int], *, sees_the_place: bool = True
) -> dict[str, Any]:
    """Return what drawing a mark does to a recogniser: the same held-out clips without and with it.

    Args:
        out: folder of the case.
        recogniser: the name of its folder.
        mark: one of `MARKS`.
        size: frames of a clip, their interval, and their short side.
        sees_the_place: the recogniser's input shows the mark's place; otherwise no Grad-CAM map is made.

    Returns:
        `clips`, their number; `logit_change`, the mean change of each class's logit; `answers`, for each class the
        number of clips that are answered with it, without and with the mark; `gradcam`, for each layer the mean share
        of a map's mass that lies in the mark's place, without and with it (the map of the class that the recogniser
        answers with), beside the share of the area.
    """
    model = _load(out, recogniser)
    shape = shape_of(mark, shape_in(read_rows(out / "clips.csv")))
    cam = GradCam(model, MAPPED)
    logits: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    shares: dict[bool, list[list[float]]] = {False: [], True: []}
    for row in read_rows(out / "no_mark.csv"):
        frames, _ = decode_frames(row["uri"])
        chosen = frames[spread_clips(len(frames), size[0], size[1], 1)[0]]
        for drawn in logits:
            clip = np.stack([shrunk(f, size[2]) for f in (with_mark(chosen, shape) if drawn else chosen)])
            x_CThw = cam.prepare(clip)
            with torch.no_grad():
                logits[drawn].append(model.logits(x_CThw[None])[0])
            if sees_the_place:
                shares[drawn].append(shares_in_place(cam, x_CThw, int(logits[drawn][-1].argmax())))
    plain, marked = (torch.stack(logits[drawn]) for drawn in (False, True))
    counts = [torch.bincount(x.argmax(1), minlength=x.shape[1]).tolist() for x in (plain, marked)]
    found: dict[str, Any] = {
        "clips": len(plain),
        "logit_change": dict(zip(model.class_names, (marked - plain).mean(0).tolist(), strict=True)),
        "answers": dict(zip(model.class_names, zip(*counts, strict=True), strict=True)),
    }
    if sees_the_place:
        means = [np.nanmean(np.array(shares[drawn]), axis=0).tolist() for drawn in (False, True)]
        area = (REGION[0].stop - REGION[0].start) * (REGION[1].stop - REGION[1].start) / (VIDEO[0] * VIDEO[1])
        found["gradcam"] = {"area": area, **dict(zip(MAPPED, zip(*means, strict=True), strict=True))}
    return found


def _load(out: Path, recogniser: str) -> Recogniser:
    folder = out / recogniser
    settings = ModelConfig(config=str(folder / "config.py"), checkpoint=str(folder / "recogniser.pth"))
    return load_mmaction(settings, torch.device("cpu"), 0)


def shares_in_place(cam: GradCam, x_CThw: torch.Tensor, target: int) -> list[float]:
    """Return the share of each layer's map that lies in the mark's place; NaN: the map is zero everywhere."""
    found = cam(x_CThw, [tuple(range(x_CThw.shape[1]))], target).maps
    shares = []
    for layer in MAPPED:
        on_frame = F.interpolate(found[layer].sum(1)[None], VIDEO, mode="bilinear")[0, 0]
        total = float(on_frame.sum())
        shares.append(float(on_frame[REGION].sum()) / total if total > 0 else float("nan"))
    return shares
