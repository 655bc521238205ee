"""The section `gradcam` of the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vtcav_ray.config.section import ConfigSection
from vtcav_ray.config.values import Fraction


class CompareConfig(ConfigSection):
    """Two classes that differ by motion, and the two concepts that should tell them apart."""

    classes: tuple[str, str]
    concepts: tuple[str, str] = Field(description="`<name>/<kind>` each; the first belongs to the first class")


class GradcamConfig(ConfigSection):
    """The baseline: Grad-CAM on the class examples. See `vtcav gradcam`; `vtcav run` does not read this."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("early", "middle", "late")
    modes: Annotated[tuple[Literal["frame", "window", "clip"], ...], Field(min_length=1)] = ("frame", "window", "clip")
    window: Annotated[int, Field(ge=1)] = Field(8, description="frames at a time in the mode `window`")
    stride: Annotated[int, Field(ge=1)] = Field(4, description="frames from one window to the next")
    max_clips: Annotated[int, Field(ge=1)] | None = Field(None, description="class examples, in turn over the classes")
    overlays: Annotated[int, Field(ge=0)] = Field(2, description="clips drawn per class")
    overlay_layer: str | None = Field(None, description="null: `middle` if it is among `layers`, else the last")
    place: tuple[Fraction, Fraction, Fraction, Fraction] | None = Field(
        None,
        description="x0, y0, x1, y1 of a part of the frame, fractions from its upper left corner: which share of each "
        "map lies there?",
    )
    compare: tuple[CompareConfig, ...] = Field((), description="set side by side with Video-TCAV on the page")

    @model_validator(mode="after")
    def _place_is_a_box(self) -> GradcamConfig:
        if self.place is not None and not (self.place[0] < self.place[2] and self.place[1] < self.place[3]):
            raise ValueError("`place` is [x0, y0, x1, y1] with x0 < x1 and y0 < y1, such as [0.7, 0.9, 1, 1]")
        return self

    @model_validator(mode="after")
    def _overlay_layer_is_there(self) -> GradcamConfig:
        if self.overlay_layer is not None and self.overlay_layer not in self.layers:
            raise ValueError(f"`overlay_layer` is {self.overlay_layer!r}, which is not among `layers`")
        return self

    @property
    def drawn_layer(self) -> str:
        """The layer whose maps are drawn."""
        return self.overlay_layer or ("middle" if "middle" in self.layers else self.layers[-1])
