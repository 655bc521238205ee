"""The section `tracks`: detection and tracking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from vtcav_ray.config.section import NamesCode, StorageOptions
from vtcav_ray.config.values import Fraction
from vtcav_ray.registry import TRACK_FORMATS, TRACK_SOURCES, UnknownName

Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$", max_length=200)]
TrackFormat = Annotated[str, AfterValidator(TRACK_FORMATS.check)]  # also those that other packages register


class TracksConfig(NamesCode):
    """Detection by YOLO in batches over many videos, and tracking video by video; or tracks that exist already."""

    weights: str = Field("asset:detector.pt", description=".pt, .onnx or .engine; `asset:` is a packaged file")
    names: str | None = Field(
        None, description="label file for weights that carry no class names, and for `format`s that number the classes"
    )
    tracker: Literal["bytetrack", "botsort"] = "bytetrack"
    tracker_options: dict[str, Any] = Field(default_factory=dict)
    image_size: Annotated[int, Field(ge=32, multiple_of=32)] = 640
    confidence: Fraction = 0.1
    iou: Fraction = 0.7
    classes: tuple[str, ...] | None = Field(None, description="keep only these labels")
    frame_stride: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description="detect in every nth frame, and leave the others out; `auto`: detect where objects begin, end or "
        "move, and interpolate their boxes in the other frames",
    )
    max_frames: Annotated[int, Field(ge=1)] = Field(20_000, description="maximum number of frames decoded per video")
    max_pixels: Annotated[int, Field(ge=1)] = Field(8192 * 8192, description="refuse larger frames")
    batch_size: Annotated[int, Field(ge=1)] = 32
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: of the network's convolutions, for .pt weights; up to twice as fast on processors that "
        "compute in it (AVX512-BF16, AMX) and on GPUs, and boxes differ by about a pixel",
    )
    backend: Literal["auto", "pytorch", "onnxruntime"] = Field(
        "auto",
        description="what runs .pt weights; `auto`: on a CPU, ONNX Runtime if it is installed (the extra `onnx`) and "
        "the network's head is `Detect`, else PyTorch; boxes differ by less than a hundredth of a pixel",
    )
    vocabulary: Annotated[tuple[Word, ...], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="the words that an open-vocabulary detector (YOLO-World, YOLOE) looks for"
    )
    text_encoder: str | None = Field(
        None,
        description="weights that turn the vocabulary into numbers: ViT-B-32.pt for YOLO-World, mobileclip_blt.ts for "
        "YOLOE; null: looked for beside `weights`",
    )
    camera_motion: bool = True
    decoder: Literal["pyav", "torchcodec"] = Field(
        "pyav",
        description="torchcodec: on the detector's GPU, if it has one; needs the extra `torchcodec` and FFmpeg's "
        "shared libraries",
    )
    storage_options: StorageOptions = Field(default_factory=dict)
    format: TrackFormat | None = Field(
        None, description="of the tracks that `source` names: parquet, mot, cvat, coco-video or csv"
    )
    source: str | None = Field(
        None,
        description="where tracks come from: with `format`, a file, folder or glob of tracks, on any fsspec URL; else "
        "a registered name; null: `ultralytics`, which this section's other keys set up",
    )

    @model_validator(mode="after")
    def _words_fit(self) -> TracksConfig:
        words = self.vocabulary
        if words is None:
            if self.text_encoder is not None:
                raise ValueError("`text_encoder` is set, and `vocabulary` is not. Set both, or neither")
            return self
        if twice := sorted({w for w in words if words.count(w) > 1}):
            raise ValueError(f"words in `vocabulary` must be unique; twice: {', '.join(twice)}")
        if self.names is not None:
            raise ValueError("`names` and `vocabulary` both name the detector's classes. Set one of them")
        return self

    @property
    def decode_stride(self) -> int:
        """Return how many frames lie from one decoded frame to the next; with `frame_stride: auto`, one."""
        return 1 if self.frame_stride == "auto" else self.frame_stride

    @property
    def given(self) -> bool:
        """Whether the tracks exist already, in files that `source` names, so that nothing is detected."""
        return self.format is not None

    @field_validator("source")
    @classmethod
    def _is_known(cls, source: str | None, info: ValidationInfo) -> str | None:
        """Check the name of a registered source. With `format`, or where `format` is wrong, it is a file."""
        if source is None or info.data.get("format", "wrong") is not None:
            return source
        try:
            return TRACK_SOURCES.check(source)
        except UnknownName as error:
            raise UnknownName(f"{error} For a file or folder of tracks, also set `tracks.format`.") from error

    @model_validator(mode="after")
    def _format_has_a_source(self) -> TracksConfig:
        if self.format is not None and self.source is None:
            raise ValueError("`tracks.format` needs `tracks.source`: the file or folder of the tracks")
        if self.format is not None and self.frame_stride == "auto":
            raise ValueError("`frame_stride: auto` is for a detector. With `tracks.format`, give the frames' distance")
        return self
