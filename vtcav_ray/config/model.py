"""The sections `model` and `activations`: the recogniser, and what is stored of its passes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from vtcav_ray.config.section import ConfigSection, NamesCode, StorageOptions
from vtcav_ray.registry import PROJECTIONS, UnknownName
from vtcav_ray.stages import ANSWER


class ModelConfig(NamesCode):
    """The recogniser that is explained."""

    framework: str = Field(
        "mmaction2", description="or `transformers`, `python`, `torchvision`, or the name of your own entry point"
    )
    config: str = Field(
        "asset:recogniser.py",
        description="MMAction2 config: a file, a URL, or a packaged name; with `python`: package.module:function",
    )
    checkpoint: str = Field(
        "asset:recogniser.pth",
        description="a .pth on any URL, or `untrained`: random weights; with `transformers`: a folder",
    )
    labels: str | None = Field(None, description="file, one class name per line; null: from the config or checkpoint")
    storage_options: StorageOptions = Field(default_factory=dict)


def _check_projection(spec: str) -> str:
    PROJECTIONS.resolve(spec)
    return spec


AUTO = "auto"  # the layers of the model's family


def _listed_auto(layers: Any) -> Any:
    return (AUTO,) if layers == AUTO else layers


class ActivationsConfig(ConfigSection):
    """The activations and gradients to store from a forward and a backward pass."""

    layers: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed_auto)] = Field(
        (AUTO,),
        description="`early@moving`: with its own projection. auto: early, middle, late and head; where these are "
        "convolutional, also with the projections moving and still",
    )
    projection: Annotated[str, AfterValidator(_check_projection)] = "mean"
    sketch_seed: int = 0
    target: Literal["logit", "log_odds", "log_probability"] = "logit"
    classes: Literal["label", "listed"] | Annotated[str, Field(pattern=r"^top-[1-9]\d*$")] = Field(
        "label",
        description="differentiate each class example's own label, its top-k answers, or all of clips.classes",
    )
    reference: Annotated[int, Field(ge=0)] | None = Field(
        None, description="videos of the reference set, where every class is differentiated; null: clips.per_class"
    )
    views: Literal["center", "test"] = Field(
        "center", description="one centre crop of the stored clip, or the config's own crops, averaged"
    )
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of the stored activations; gradients are always float32"
    )
    compile: bool = False

    @field_validator("layers")
    @classmethod
    def _projections_of_layers(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        for layer in layers:
            name, at, own = layer.partition("@")
            if name == ANSWER:
                raise ValueError(f"{layer!r} is the name of the model's own answer in the scores, beside the layers")
            if not at:
                continue
            if not name:
                raise ValueError(f"{layer!r}: before the @ comes the layer's name")
            try:
                PROJECTIONS.resolve(own)
            except UnknownName as error:
                raise ValueError(
                    f"{layer!r}: after the @ comes the layer's own projection, and {own!r} is none. {error.known}"
                ) from error
        if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
            raise ValueError(f"layers must be unique; twice: {', '.join(twice)}")
        if AUTO in layers and len(layers) > 1:
            raise ValueError(f"`{AUTO}` stands alone: write `layers: {AUTO}`, or name every layer")
        return layers

    @property
    def layers_are_auto(self) -> bool:
        """Whether the layers are those of the model's family, which a run fills in when it starts."""
        return self.layers == (AUTO,)

    @property
    def projection_names(self) -> set[str]:
        """The registered names of the projections that the layers use."""
        specs = [layer.partition("@")[2] or self.projection for layer in self.layers]
        return {PROJECTIONS.resolve(spec)[0] for spec in specs}
