"""One detector for many videos: letterbox, one forward pass per batch, suppression, boxes in source pixels.

The steps are Ultralytics' own (`LetterBox`, `non_max_suppression`, `scale_boxes`), or equal them in every bit, so the
boxes equal those of `track()`. torchvision is not needed.

With PyTorch, every batch is padded to `tracks.batch_size`. For a fixed input shape, a network gives a frame
bit-identical results, whatever its position and the other frames of the batch (tested with PyTorch on CPUs). For
another shape other kernels are used, and the last bits differ (a box by up to 0.0015 pixels, a confidence by 2e-5). So
the detections of a video never depend on the videos that it is processed with: a retry of the video alone gives the
same.

On a CPU, torch runs a batch in pieces of 16 frames. oneDNN takes the same kernels for 16 frames as for 32, so the
results are the same in every bit (tested with AVX-512). A piece takes no more time per frame and less memory, and the
last frames of a shard are padded to 16 instead of to the whole batch. ONNX Runtime, which runs .pt weights on CPUs
where it is installed (`tracks.backend`), gives a frame the same bits in a batch of any size, so nothing is padded.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.backends import Backend, ExportedBackend, TorchBackend, load_backend
from vtcav_ray.tracks.layouts import Rows, with_mask
from vtcav_ray.tracks.masks import Mask, masks_in_source
from vtcav_ray.tracks.suppression import suppress
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.tracks.vocabulary import TextFeatures

_PADDING = 114  # Ultralytics' grey
PIECE = 16  # frames; for 8, oneDNN takes other kernels


@dataclass(frozen=True)
class Detections:
    """The objects of one frame.

    Attributes:
        boxes: float32 [n, 4], xyxy, pixels of the source frame. Inside it, except RT-DETR's, as in `predict()`.
        confidence: float32 [n], in [0, 1], in descending order.
        classes: int64 [n], keys of `Detector.names`.
        masks: one per box, None if it has no pixel; None: the detector does not draw masks.
    """

    boxes: np.ndarray
    confidence: np.ndarray
    classes: np.ndarray
    masks: tuple[Mask | None, ...] | None = None


class Detector:
    """A YOLO or RT-DETR detector: Ultralytics .pt, ONNX (YOLOv8-like, YOLOv7, end to end), or a TensorRT engine.

    Attributes:
        backend: what runs the network: `pytorch`, `onnxruntime` or `tensorrt`.
        names: class number -> label.
        stride: of the network, pixels.

    Args:
        config: weights, image size, confidence, IoU, classes.
        device: `auto` (CUDA if available), `cpu`, `cuda`, `cuda:1`, ...
        masks: also draw the objects' masks.
        features: of the words in `config.vocabulary` (`vtcav_ray.tracks.vocabulary.text_features`).

    Raises:
        ConfigError: the weights do not exist or have no class names, `config.classes` names an unknown class, or
            `masks` is set and the weights give none.
        StageError: the weights are refused or do not load, or the runtime is not installed.
    """

    def __init__(
        self, config: TracksConfig, device: str = "auto", *, masks: bool = False, features: TextFeatures | None = None
    ) -> None:
        import_ultralytics()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config = config
        self.device = torch.device(device)
        self._backend: Backend = load_backend(config, self.device, features)
        self.backend = self._backend.name
        self.names = self._backend.names
        self.stride = self._backend.stride
        self._wanted = self._class_numbers()
        self._masks = masks
        in_pieces = isinstance(self._backend, TorchBackend | ExportedBackend) and self.device.type == "cpu"
        self._piece = PIECE if in_pieces and config.batch_size % PIECE == 0 else config.batch_size
        if masks and not self._backend.masks:
            raise ConfigError(
                f"`clips.mask` needs masks, and {config.weights} gives only boxes. Give segmentation weights, such as "
                "yolo11n-seg.pt, in `tracks.weights`, or set clips.mask to false."
            )

    def _class_numbers(self) -> list[int] | None:
        if self.config.classes is None:
            return None
        by_name = {name: number for number, name in self.names.items()}
        for name in self.config.classes:
            if name not in by_name:
                near = difflib.get_close_matches(name, list(by_name), n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(sorted(by_name))}."
                raise ConfigError(f"`tracks.classes`: the detector has no class {name!r}. {hint}")
        return sorted(by_name[name] for name in self.config.classes)

    def letterbox(self, frame: np.ndarray) -> np.ndarray:
        """Return the detector's input for a frame: uint8 [h, w, 3], as Ultralytics' LetterBox gives for one video.

        Args:
            frame: uint8 [H, W, 3] RGB.
        """
        size = self._backend.fixed_size or (self.config.image_size, self.config.image_size)
        height, width = frame.shape[:2]
        if self._backend.stretched:
            return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        ratio = min(size[0] / height, size[1] / width)
        inner_h, inner_w = max(round(height * ratio), 1), max(round(width * ratio), 1)
        pad_h, pad_w = size[0] - inner_h, size[1] - inner_w
        if self._backend.fixed_size is None:  # the smallest rectangle that the network accepts
            pad_h, pad_w = pad_h % self.stride, pad_w % self.stride
        if (height, width) != (inner_h, inner_w):
            frame = cv2.resize(frame, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
        top, left = round(pad_h / 2 - 0.1), round(pad_w / 2 - 0.1)
        out = np.full((inner_h + pad_h, inner_w + pad_w, 3), _PADDING, np.uint8)
        out[top : top + inner_h, left : left + inner_w] = frame
        return out

    def __call__(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        """Detect objects in frames (uint8 [H, W, 3] RGB) of any size. Frames of one letterboxed shape share batches."""
        inputs = [self.letterbox(f) for f in frames]
        results: list[Detections | None] = [None] * len(frames)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(inputs):
            groups.setdefault(image.shape, []).append(i)
        for members in groups.values():
            for start in range(0, len(members), self.config.batch_size):
                part = members[start : start + self.config.batch_size]
                sizes = [(frames[i].shape[0], frames[i].shape[1]) for i in part]
                for i, found in zip(part, self.detect([inputs[i] for i in part], sizes), strict=True):
                    results[i] = found
        return [r for r in results if r is not None]

    def detect(self, inputs: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detect objects in letterboxed inputs of ONE shape.

        Args:
            inputs: uint8 [h, w, 3] RGB each, from `letterbox`.
            sizes: (height, width) of the source frame of each input.
        """
        if not inputs:
            return []
        empty = 0 if self._backend.any_batch else -len(inputs) % self._piece
        batch = torch.from_numpy(np.stack([*inputs, *[inputs[-1]] * empty]))
        rows: list[Rows] = []
        for part in torch.split(batch, self._piece):
            rows += self._backend(part.to(self.device), self.config.confidence)
        given = inputs[0].shape[:2]
        return [self._found(row, given, size) for row, size in zip(rows[: len(inputs)], sizes, strict=True)]

    def _found(self, row: Rows, given: tuple[int, ...], size: tuple[int, int]) -> Detections:
        """Return the objects in the network's rows for one frame.

        Args:
            given: (height, width) of the network's input.
            size: (height, width) of the source frame.
        """
        kept = row.detections.numpy() if row.final else self._suppress(row.detections.numpy())
        kept = kept[np.isfinite(kept).all(1)]
        self._check_classes(kept)
        if row.final and self._wanted is not None:
            kept = kept[np.isin(kept[:, 5].astype(np.int64), self._wanted)]
        if row.prototypes is not None:
            kept = with_mask(torch.from_numpy(kept), row.prototypes, given).numpy()
        boxes = self._in_source(kept[:, :4].astype(np.float32), given, size)
        masks = None
        if self._masks and row.prototypes is not None:
            masks = tuple(masks_in_source(kept[:, 6:], row.prototypes.numpy(), boxes, given, size))
        return Detections(boxes, kept[:, 4].astype(np.float32), kept[:, 5].astype(np.int64), masks)

    def _in_source(self, boxes: np.ndarray, given: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
        """Map boxes [n, 4] from pixels of the input, of size `given`, to pixels of a frame of size `size`."""
        from ultralytics.utils.ops import scale_boxes

        if self._backend.stretched:
            x, y = size[1] / given[1], size[0] / given[0]
            return boxes * np.array([x, y, x, y], np.float32)
        return np.asarray(scale_boxes(given, boxes, size), np.float32)

    def _check_classes(self, kept: np.ndarray) -> None:
        """Check that the classes in rows [n, 6] have names."""
        if unknown := {int(number) for number in kept[:, 5]} - self.names.keys():
            raise StageError(
                f"{self.config.weights} returns the class {min(unknown)}, but names only {len(self.names)}. Check "
                "`tracks.names`, and whether the file is a detector (`tracks.weights`)."
            )

    def _suppress(self, candidates: np.ndarray) -> np.ndarray:
        """Suppress overlaps of one frame: [4 + nc + extra, n] (xywh, class scores, ...) -> [kept, 6 + extra]."""
        return suppress(
            candidates.T,
            len(self.names),
            self.config.confidence,
            self.config.iou,
            wanted=self._wanted,
            agnostic=self._backend.agnostic,  # as `predict()` does for YOLOE
        )
