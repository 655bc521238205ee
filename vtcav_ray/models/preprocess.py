"""Conversion of frames to a model's input, as in the test pipeline of the model's own config.

MMAction2's transforms process one video at a time, frame by frame, as lists. Here the same steps (the same OpenCV
interpolation, the same crop positions, the same mean and standard deviation) process batches of whole clips, and pixels
stay `uint8` until they are on the model's device. A test compares the logits of real clips with MMAction2's.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch

from vtcav_ray.errors import ConfigError

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
CROPS: Mapping[str, Literal["center", "three", "ten"]] = {
    "CenterCrop": "center",
    "ThreeCrop": "three",
    "TenCrop": "ten",
}
# Steps that select, decode or pack frames and change no pixel.
PIXELS_UNCHANGED = frozenset(
    {
        "DecordInit", "DecordDecode", "PyAVInit", "PyAVDecode", "OpenCVInit", "OpenCVDecode", "RawFrameDecode",
        "TorchVisionInit", "TorchVisionDecode", "PIMSInit", "PIMSDecode", "SampleFrames", "DenseSampleFrames",
        "UniformSample", "UniformSampleFrames", "UntrimmedSampleFrames", "FormatShape", "PackActionInputs",
        "ArrayDecode", "Collect", "ToTensor",
    }
)  # fmt: skip
MOST_SIDE = 8192  # of a crop, or of the short side after a resize, pixels
MOST_FACTOR = 16.0
MOST_FRAMES = 1_000_000
SAMPLERS = ("SampleFrames", "DenseSampleFrames", "UniformSample", "UniformSampleFrames")


class Sampling(NamedTuple):
    """The sampling of a video by the config's test pipeline.

    `frame_interval` is in source frames; None: the frames are spread over the whole video. A model's input has
    `frames` frames: one clip, or, for 2D models with one frame per segment, all segments.
    """

    clip_len: int
    frame_interval: int | None
    num_clips: int

    @property
    def frames(self) -> int:
        return self.clip_len if self.clip_len > 1 else self.num_clips


@dataclass(frozen=True)
class Resize:
    """Resize to `scale`, (width, height); if the ratio is kept, to the largest size within (long edge, short edge)."""

    scale: tuple[float, float] | float
    keep_ratio: bool
    interpolation: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the new (height, width), rounded like mmcv."""
        if isinstance(self.scale, float):
            factor = self.scale
        elif not self.keep_ratio:
            return int(self.scale[1]), int(self.scale[0])
        else:
            factor = min(max(self.scale) / max(height, width), min(self.scale) / min(height, width))
        return int(height * factor + 0.5), int(width * factor + 0.5)

    def apply(self, clip: np.ndarray) -> np.ndarray:
        """Resize a clip: `uint8 [T, H, W, 3]` -> `uint8 [T, h, w, 3]`."""
        return _resized(clip, self.size(*clip.shape[1:3]), self.interpolation)


@dataclass(frozen=True)
class AntialiasedResize:
    """Resize as torchvision's and Hugging Face's transforms do: with antialiasing, in `uint8`, sizes cut off.

    Attributes:
        shortest: the new short side, pixels; None: `exact` is given.
        exact: the new (height, width), pixels.
        mode: `bilinear` or `bicubic`.
    """

    shortest: int | None
    exact: tuple[int, int] | None = None
    mode: Literal["bilinear", "bicubic"] = "bilinear"

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the new (height, width)."""
        if self.exact is not None:
            return self.exact
        assert self.shortest is not None
        if width <= height:
            return int(self.shortest * height / width), self.shortest
        return self.shortest, int(self.shortest * width / height)

    def apply(self, clip: np.ndarray) -> np.ndarray:
        """Resize a clip: `uint8 [T, H, W, 3]` -> `uint8 [T, h, w, 3]`."""
        height, width = self.size(*clip.shape[1:3])
        if clip.shape[1:3] == (height, width):
            return clip
        x = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
        native = self.mode == "bicubic" or _has_native_bilinear()
        if not native:
            x = x.float()
        x = torch.nn.functional.interpolate(
            x, size=(height, width), mode=self.mode, align_corners=False, antialias=True
        )
        if not native:
            x = x.round_().clamp_(0, 255).to(torch.uint8)
        return x.permute(0, 2, 3, 1).contiguous().numpy()


def _has_native_bilinear() -> bool:
    """Return whether torchvision resizes `uint8` without a detour through float32 on this processor."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


@dataclass(frozen=True)
class Crop:
    """One centre crop, or MMAction2's three or ten crops; sizes in pixels."""

    kind: Literal["center", "three", "ten"]
    height: int
    width: int

    def views(self, height: int, width: int, *, center_only: bool) -> list[tuple[int, int, bool]]:
        """Return (top, left, flipped) of each crop, in MMAction2's order."""
        if min(height - self.height, width - self.width) < 0:
            raise ConfigError(f"A crop of {self.height}x{self.width} does not fit in frames of {height}x{width}.")
        if center_only or self.kind == "center":
            return [((height - self.height) // 2, (width - self.width) // 2, False)]
        if self.kind == "ten":
            down, right = height - self.height, width - self.width
            down_half, right_half = down // 4, right // 4
            corners = [(0, 0), (0, 4 * right_half), (4 * down_half, 0), (4 * down_half, 4 * right_half)]
            corners.append((2 * down_half, 2 * right_half))
            return [(top, left, flipped) for top, left in corners for flipped in (False, True)]
        if height == self.height:
            step = (width - self.width) // 2
            return [(0, 0, False), (0, 2 * step, False), (0, step, False)]
        if width == self.width:
            step = (height - self.height) // 2
            return [(0, 0, False), (2 * step, 0, False), (step, 0, False)]
        raise ConfigError(f"ThreeCrop of {self.height}x{self.width} needs frames with one side of that size.")


@dataclass(frozen=True)
class Preprocessor:
    """The pixel steps of a test pipeline, and the normalisation of the model's data preprocessor."""

    resizes: tuple[Resize | AntialiasedResize, ...]
    crop: Crop | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    swap_channels: bool
    sampling: Sampling | None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input, pixels."""
        if self.crop is not None:
            return self.crop.height, self.crop.width
        return self.resizes[-1].size(10_000, 10_000)

    def __call__(
        self, frames: Sequence[np.ndarray], views: Literal["center", "test"], device: torch.device
    ) -> torch.Tensor:
        """Convert B clips `uint8 [T, H, W, 3]` to float32 `[B, V, C, T, h, w]` on the device.

        See `Recogniser.preprocess`.
        """
        pixels = np.stack([self.pixels(clip, views) for clip in frames])
        return self.normalised(torch.from_numpy(pixels).to(device))

    def pixels(self, clip: np.ndarray, views: Literal["center", "test"]) -> np.ndarray:
        """Resize and crop one clip on a CPU: `uint8 [T, H, W, 3]` -> `uint8 [V, T, h, w, 3]`. Thread-safe."""
        return self._views(clip, center_only=views == "center")

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise on the model's device: `uint8 [B, V, T, h, w, 3]` -> float32 `[B, V, C, T, h, w]`."""
        x = pixels.permute(0, 1, 5, 2, 3, 4)
        if self.swap_channels:
            x = x.flip(2)
        mean = torch.tensor(self.mean, device=x.device).view(3, 1, 1, 1)
        std = torch.tensor(self.std, device=x.device).view(3, 1, 1, 1)
        return ((x - mean) / std).contiguous()

    def _views(self, clip: np.ndarray, *, center_only: bool) -> np.ndarray:
        assert clip.dtype == np.uint8, clip.dtype
        assert clip.ndim == 4, clip.shape
        for resize in self.resizes:
            clip = resize.apply(clip)
        if self.crop is None:
            return clip[None]
        h, w = self.crop.height, self.crop.width
        cut = []
        for top, left, flipped in self.crop.views(*clip.shape[1:3], center_only=center_only):
            view = clip[:, top : top + h, left : left + w]
            cut.append(view[:, :, ::-1] if flipped else view)
        return np.stack(cut)


def make_preprocessor(pipeline: Sequence[Mapping[str, Any]], data_preprocessor: Mapping[str, Any]) -> Preprocessor:
    """Read the pixel steps of an MMAction2 test pipeline.

    Args:
        pipeline: the config's `test_pipeline`.
        data_preprocessor: the model's own section: mean, std, to_rgb.

    Raises:
        ConfigError: a step is unknown or incomplete, a size is out of range, or the model does not take RGB.
    """
    try:
        return _read_preprocessor(pipeline, data_preprocessor)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"The config's `test_pipeline` or `data_preprocessor` can't be read ({type(error).__name__}: {error}). "
            "Write its steps as MMAction2 does."
        ) from error


def _read_preprocessor(pipeline: Sequence[Mapping[str, Any]], data_preprocessor: Mapping[str, Any]) -> Preprocessor:
    resizes: list[Resize] = []
    crop: Crop | None = None
    for step in pipeline:
        name = str(step["type"])
        if name == "Resize":
            if crop is not None:
                raise ConfigError("The test pipeline resizes after it crops, which is not supported.")
            resizes.append(_read_resize(step))
        elif name in CROPS:
            if crop is not None:
                raise ConfigError("The test pipeline crops twice, which is not supported.")
            width, height = _pair(step["crop_size"])
            crop = Crop(CROPS[name], height, width)
        elif name not in PIXELS_UNCHANGED:
            known = ", ".join(["Resize", *CROPS])
            raise ConfigError(f"The test pipeline has a step `{name}` that is not supported; supported: {known}.")
    if crop is None and (not resizes or resizes[-1].keep_ratio):
        raise ConfigError("The test pipeline ends with frames of any size: it needs a crop, or a fixed resize.")
    mean, std = data_preprocessor.get("mean") or (0.0, 0.0, 0.0), data_preprocessor.get("std") or (1.0, 1.0, 1.0)
    if not all(math.isfinite(m) and math.isfinite(s) and s > 0 for m, s in zip(mean, std, strict=False)):
        raise ConfigError(f"The data preprocessor's mean {mean} and std {std} must be finite, and std above 0.")
    if len(mean) != 3 or len(std) != 3:
        raise ConfigError(f"This model takes {len(mean)} channels (optical flow?); only RGB is supported.")
    return Preprocessor(
        resizes=tuple(resizes),
        crop=crop,
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        swap_channels=bool(data_preprocessor.get("to_rgb", False)),
        sampling=read_sampling(pipeline),
    )


def read_sampling(pipeline: Sequence[Mapping[str, Any]]) -> Sampling | None:
    """Return the frame sampling of a test pipeline; None if it has none."""
    for step in pipeline:
        if step["type"] in SAMPLERS:
            uniform = str(step["type"]).startswith("Uniform")
            interval = None if uniform else _count(step.get("frame_interval", 1))
            return Sampling(_count(step["clip_len"]), interval, _count(step.get("num_clips", 1)))
    return None


def _read_resize(step: Mapping[str, Any]) -> Resize:
    scale: Any = step["scale"]
    if not isinstance(scale, float):
        scale = tuple(float(s) for s in scale)
        if min(scale) == -1:
            scale = (math.inf, max(scale))
        if len(scale) != 2 or not 1 <= min(scale) <= MOST_SIDE:
            raise ValueError(f"a Resize to {scale} pixels")
    elif not 0 < scale <= MOST_FACTOR:
        raise ValueError(f"a Resize by {scale}")
    return Resize(scale, bool(step.get("keep_ratio", True)), INTERPOLATIONS[step.get("interpolation", "bilinear")])


def _pair(size: Any) -> tuple[int, int]:
    width, height = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if not (1 <= width <= MOST_SIDE and 1 <= height <= MOST_SIDE):
        raise ValueError(f"a crop of {width}x{height} pixels")
    return width, height


def _count(number: Any) -> int:
    if not 1 <= int(number) <= MOST_FRAMES:
        raise ValueError(f"{number} frames or clips")
    return int(number)


def _resized(clip: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    height, width = size
    if clip.shape[1:3] == (height, width):
        return clip
    out = np.empty((len(clip), height, width, 3), np.uint8)
    for frame, target in zip(clip, out, strict=True):
        cv2.resize(frame, (width, height), dst=target, interpolation=interpolation)
    return out
