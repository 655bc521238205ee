"""Every family of recognisers, from its packaged config, at full width and depth and with small inputs.

The source of the table in docs/models.md, which `python -m tests.helpers.families` writes and
tests/models/test_families.py holds to what it finds.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import LayerRow, Recogniser, layer_table, load_recogniser
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.preprocess import Crop, Resize

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEADING = "| --- | --- | --- | --- | --- | --- |"


class Trial(NamedTuple):
    """A packaged config, its test input, and the backbone's setting that allows such a small input."""

    config: str
    frames: int
    size: int
    setting: str | None = None


TRIALS = {
    "Video Swin-T": Trial("swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb", 8, 64),
    "Video Swin-S": Trial("swin-small-p244-w877_in1k-pre_32xb4-amp-32x2x1-30e_kinetics710-rgb", 8, 64),
    "Video Swin-B": Trial("swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb", 8, 64),
    "Video Swin-L": Trial("swin-large-p244-w877_in22k-pre_16xb8-amp-32x2x1-30e_kinetics700-rgb", 8, 64),
    "TimeSformer, divided": Trial("timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb", 8, 64, "img_size"),
    "TimeSformer, joint": Trial("timesformer_jointST_8xb8-8x32x1-15e_kinetics400-rgb", 8, 64, "img_size"),
    "TimeSformer, space only": Trial("timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb", 8, 64, "img_size"),
    "MViT": Trial("mvit-small-p244_32xb16-16x4x1-200e_kinetics400-rgb", 16, 64, "spatial_size"),
    "UniFormer": Trial("uniformer-small_imagenet1k-pre_16x4x1_kinetics400-rgb", 8, 64),
    "UniFormerV2": Trial("uniformerv2-base-p16-res224_clip_8xb32-u8_kinetics400-rgb", 8, 64, "input_resolution"),
    "VideoMAE": Trial("vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400", 16, 64, "img_size"),
    "SlowFast": Trial("slowfast_r50_8xb8-4x16x1-256e_kinetics400-rgb", 32, 64),
    "SlowOnly": Trial("slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb", 4, 64),
    "X3D": Trial("x3d_s_13x6x1_facebook-kinetics400-rgb", 13, 64),
    "I3D": Trial("i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb", 8, 64),
    "R(2+1)D": Trial("r2plus1d_r34_8xb8-8x8x1-180e_kinetics400-rgb", 8, 64),
    "CSN": Trial("ircsn_ig65m-pretrained-r50-bnfrozen_8xb12-32x2x1-58e_kinetics400-rgb", 8, 64),
    "C2D": Trial("c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb", 8, 64),
    "C3D": Trial("c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb", 16, 112),
    "TPN": Trial("tpn-slowonly_r50_8xb8-8x8x1-150e_kinetics400-rgb", 8, 64),
    "TSM": Trial("tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb", 8, 64),
    "TSM, MobileNetV2": Trial("tsm_imagenet-pretrained-mobilenetv2_8xb16-1x1x8-100e_kinetics400-rgb", 8, 64),
    "TSN": Trial("tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_kinetics400-rgb", 8, 64),
    "TANet": Trial("tanet_imagenet-pretrained-r50_8xb8-1x1x8-50e_sthv1-rgb", 8, 64),
    "TRN": Trial("trn_imagenet-pretrained-r50_8xb16-1x1x8-50e_sthv1-rgb", 8, 64),
}


def build(trial: Trial, folder: Path, width: int | None = None, **backbone: int) -> Recogniser:
    """Build a trial's network.

    Args:
        trial: the packaged config and the input.
        folder: for the changed config.
        width: of the backbone's output, for a network smaller than the packaged one.
        backbone: the backbone's settings that make it so.
    """
    config = trial.config
    if trial.setting is not None or backbone:
        parsed = read_config(config)
        parsed.model["backbone"].update(backbone)
        if trial.setting is not None:
            parsed.model["backbone"][trial.setting] = trial.size
        if width is not None:
            parsed.model["cls_head"]["in_channels"] = width
        config = str(folder / "model.json")
        Path(config).write_text(json.dumps({"model": parsed.model, "test_pipeline": parsed.pipeline}))
    recogniser = load_recogniser(ModelConfig(config=config, checkpoint="untrained"), "cpu")
    side = float(trial.size)
    small = dataclasses.replace(
        recogniser.preprocessor,
        resizes=(Resize((float("inf"), side), True, recogniser.preprocessor.resizes[-1].interpolation),),
        crop=Crop("center", trial.size, trial.size),
    )
    return dataclasses.replace(recogniser, preprocessor=small)


def examine(trial: Trial, folder: Path) -> dict[str, LayerRow]:
    """Run forward and backward at every alias, and check everything that a meaningful CAV needs."""
    recogniser = build(trial, folder)
    assert set(recogniser.layer_aliases) == {"early", "middle", "late", "head"}
    stream = np.random.RandomState(0)
    clips = [stream.randint(0, 256, (trial.frames, trial.size, trial.size, 3), np.uint8) for _ in range(2)]
    aliases = list(recogniser.layer_aliases)
    found = Extractor(recogniser, aliases, batch_size=2).extract(clips, [[1], [2]])
    assert found.logits.shape == (2, len(recogniser.class_names))
    assert not found.non_finite
    for alias in aliases:
        assert (np.abs(found.activations[alias]).max(1) > 0).all(), alias
        assert (np.abs(found.gradients[alias]).max(1) > 0).all(), alias
    return {row.alias: row for row in layer_table(recogniser, aliases, frames=trial.frames)}


def table_row(family: str, rows: dict[str, LayerRow]) -> str:
    """Return the family's line in docs/models.md."""
    trial = TRIALS[family]
    cells = []
    for alias in ("early", "middle", "late", "head"):
        row = rows[alias]
        mark = " (degenerate)" if row.degenerate else ""
        cells.append(f"`{row.name}` {'×'.join(map(str, row.shape))}, {row.cost:.2f}{mark}")
    return f"| {family} | {trial.frames}×{trial.size}×{trial.size} | {' | '.join(cells)} |"


def write_page(families: Sequence[str]) -> None:
    """Write the rows of these families into docs/models.md, in the order of TRIALS."""
    head, rest = PAGE.read_text(encoding="utf-8").split(f"{HEADING}\n", 1)
    old, end = rest.split("\n\n", 1)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines()}
    for family in families:
        with tempfile.TemporaryDirectory() as name:
            lines[family] = table_row(family, examine(TRIALS[family], Path(name)))
        print(lines[family], flush=True)
        table = "\n".join(lines[name] for name in TRIALS if name in lines)
        PAGE.write_text(f"{head}{HEADING}\n{table}\n\n{end}", encoding="utf-8")


if __name__ == "__main__":
    write_page(sys.argv[1:] or list(TRIALS))
