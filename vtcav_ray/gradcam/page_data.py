"""The content of the Grad-CAM page as plain values: the only interface between reading a run and building the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from vtcav_ray.gradcam.compare import Comparison
from vtcav_ray.gradcam.maps import MODES


@dataclass(frozen=True)
class Picture:
    """An overlay: animated WebP bytes, and the address of its .mp4 relative to the page."""

    clip_id: str
    name: str
    mode: str
    layer: str
    image: bytes
    mp4: str
    height: int
    width: int


@dataclass(frozen=True)
class PageData:
    """Everything that the page shows, as plain values, so it can be built without a run.

    Attributes:
        title: the run's name.
        layer: the layer whose maps are drawn and described.
        clips: rows of `tables.GRADCAM`.
        summary: rows of `tables.GRADCAM_SUMMARY`.
        aggregate: rows of `vtcav_ray.gradcam.summary.AGGREGATE`.
        comparisons: comparisons with Video-TCAV.
        pictures: the overlays.
        failures: failures of this stage.
        seconds: total seconds per clip; None: not known.
        model: `<checkpoint>@<digest>`.
        untrained: whether the weights are random.
        report: address of the report beside the page; empty: no report.
        window: length and stride of the mode `window`, frames.
        place: xyxy of the part of the frame that was asked about, in fractions of it; None: none.
        places: rows of `tables.GRADCAM_PLACES_SUMMARY`.
    """

    title: str
    layer: str
    clips: pa.Table
    summary: pa.Table
    aggregate: pa.Table | None = None
    comparisons: Sequence[Comparison] = ()
    pictures: Sequence[Picture] = ()
    failures: Sequence[Mapping[str, Any]] = ()
    seconds: float | None = None
    model: str = ""
    untrained: bool = False
    report: str = ""
    window: Mapping[str, int] = field(default_factory=dict)
    place: Sequence[float] | None = None
    places: Sequence[Mapping[str, Any]] = ()

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(self.clips["layer"].to_pylist()))

    @property
    def modes(self) -> list[str]:
        there = set(self.clips["mode"].to_pylist())
        return [mode for mode in MODES if mode in there]

    def cells(self, name: str, layer: str, mode: str) -> dict[str, dict[str, Any]]:
        """Return measure -> its summary row, for a class (or `all`), a layer and a mode."""
        at = (name, layer, mode)
        return {
            row["measure"]: row for row in self.summary.to_pylist() if (row["class"], row["layer"], row["mode"]) == at
        }
