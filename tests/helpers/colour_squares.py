"""A recogniser whose layer is the picture itself, and clips of one red square: every map can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray import tables
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import encode_clip

if TYPE_CHECKING:
    from torch import nn

    from vtcav_ray.models import NetworkSpec

FRAMES, SIDE, SQUARE = 8, 16, 4
CLASSES = ("red", "blue", "fades")  # `fades`: red in the first half minus red in the second half
WEIGHT = 10.0  # of a colour's mean over the clip, as a logit


def build() -> tuple[nn.Module, NetworkSpec]:
    """Return a network for `model.framework: python`. Its layer `early` has the three colours as channels."""
    import torch
    from torch import nn

    from vtcav_ray.models import NetworkSpec

    class Head(nn.Module):
        """The logits, from means over places."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([WEIGHT, WEIGHT]))

        def forward(self, a: torch.Tensor) -> torch.Tensor:
            mean_B3T = a.mean((3, 4))
            red, half = mean_B3T[:, 0], a.shape[2] // 2
            whole = self.weight * mean_B3T[:, [0, 2]].mean(2)
            return torch.cat((whole, (red[:, :half].mean(1) - red[:, half:].mean(1))[:, None]), 1)

    colours = nn.Conv3d(3, 3, 1, bias=False)
    with torch.no_grad():
        colours.weight.copy_(torch.eye(3).view(3, 3, 1, 1, 1))
    return nn.Sequential(colours, Head()), NetworkSpec(CLASSES, SIDE, layer_aliases={"early": "0"})


def config_of(**sections: Any) -> Config:
    """Return a config with this recogniser."""
    model = {"framework": "python", "config": "tests.helpers.colour_squares:build", "checkpoint": "built"}
    given = {"name": "squares", "videos": {"uri": "videos"}, "model": model, "activations": {"layers": ["early"]}}
    return parse_config({**given, **sections})


def corner(start: int, t: int, step: int = 1) -> int:
    """Return the left edge of the square in a frame, pixels."""
    return start + step * t


def square_clip(start: int = 2, top: int = 4, *, step: int = 1, fading: int = 0) -> np.ndarray:
    """Draw a red square on dark green that moves right: uint8 `[FRAMES, SIDE, SIDE, 3]`.

    Args:
        start: left edge in the first frame, pixels.
        top: upper edge.
        step: pixels per frame.
        fading: how much red is lost per frame, of 255.
    """
    clip = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    clip[..., 1] = 30
    for t in range(FRAMES):
        left = corner(start, t, step)
        clip[t, top : top + SQUARE, left : left + SQUARE] = (255 - fading * t, 0, 0)
    return clip


def clip_row(clip_id: str, video_id: str, label: str, clip: np.ndarray | bytes, set_: str = "class") -> dict[str, Any]:
    """Return a row of `clips`; bytes are stored as they are."""
    encoding, encoded = encode_clip(clip) if isinstance(clip, np.ndarray) else ("webp-frames", clip)
    return {
        "clip_id": clip_id,
        "set": set_,
        "name": label,
        "kind": "full",
        "video_id": video_id,
        "label": label,
        "frames": list(range(FRAMES)),
        "num_frames": FRAMES,
        "height": SIDE,
        "width": SIDE,
        "encoding": encoding,
        "encoded": encoded,
    }


def square_track(video_id: str, start: int = 2, top: int = 4) -> dict[str, Any]:
    """Return the row of `tracks` of the square of `square_clip`."""
    left = [float(corner(start, t)) for t in range(FRAMES)]
    boxes = [[x, float(top), x + SQUARE, float(top + SQUARE)] for x in left]
    return track_row(video_id, label="square", n=FRAMES, boxes=boxes, height=SIDE, width=SIDE)


def clips_of(folder: Folder, rows: Sequence[dict[str, Any]]) -> StageFolder:
    """Write the table `clips` as one shard, `0`."""
    output = stage_folder(folder, "clips", "k")
    output.commit("0", ShardOutput({"clips": pa.Table.from_pylist(list(rows), schema=tables.CLIPS)}))
    output.finish({}, {"notes": {}, "warnings": [], "seconds": 1.0})
    return output


def tracks_of(folder: Folder, rows: list[dict[str, Any]]) -> StageFolder:
    """Write the table `tracks` as one shard, `0`."""
    output = stage_folder(folder, "tracks", "k")
    output.commit("0", ShardOutput({"tracks": tracks_table(rows)}))
    output.finish({}, {"notes": {}, "warnings": [], "seconds": 1.0})
    return output
