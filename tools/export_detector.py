"""Export a detector to ONNX, in int8 or float32, and measure what that changes.

    python -m tools.export_detector yolov8n.pt my/videos yolov8n_int8.onnx --image-size 640
    vtcav run mine.yaml --set tracks.weights=yolov8n_int8.onnx

For int8, ONNX Runtime quantizes the network's weights per channel, and its activations by their ranges on frames of
every other video (`--frames` of them). The head's arithmetic stays in float32, since a box's place needs more than 256
levels. The other videos measure the change: `ap50` and `ap50_95` are average precisions of the export's boxes, with the
.pt file's boxes of at least 0.25 as the truth, and `lost` is the share of these that the export does not find. Labels
are not needed. Read them before you use the file: they say what the export changes, not how good the detector is.

The export is weights like any other: the key of `tracks` contains its digest, and every machine of a cluster runs the
same file. It needs ONNX Runtime (the extra `onnx`). int8 is fast on processors with AVX512-VNNI or AVX-VNNI.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtcav_ray.config import TracksConfig, VideosConfig
from vtcav_ray.errors import ConfigError, InputError, StageError
from vtcav_ray.tracks.backends import TorchBackend
from vtcav_ray.tracks.backends.exported import export_network, is_plain
from vtcav_ray.tracks.detect import Detections, Detector
from vtcav_ray.tracks.heads import AUTHOR
from vtcav_ray.tracks.keyframes import box_iou
from vtcav_ray.video.decode import Video
from vtcav_ray.videos.listing import list_videos

TRUE = 0.25  # confidence of the .pt file's boxes that count as the truth
LOWEST = 0.05  # confidence of the boxes that are compared
IOUS = np.arange(0.5, 1.0, 0.05)


def frames_of(videos: str, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return frames of every other video, and of the rest: uint8 [H, W, 3] RGB each, up to `count` in both.

    Raises:
        ConfigError: fewer than two videos can be read.
    """
    table, _ = list_videos(VideosConfig(uri=videos))
    uris = table["uri"].to_pylist()
    uris = [uris[i] for i in np.random.default_rng(0).permutation(len(uris))[: 2 * count]]
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    each = -(-2 * count // max(len(uris), 1))
    read = 0
    for uri in uris:
        try:
            with Video(uri) as video:
                wanted = np.unique(np.linspace(0, video.count() - 1, each).astype(int)).tolist()
                found = list(video.read(wanted))
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        sides[read % 2].extend(found)
        read += 1
    if read < 2:
        raise ConfigError(f"{videos} has {read} readable videos. Give at least two: one calibrates, one measures.")
    return sides[0][:count], sides[1][:count]


def export(detector: Detector, shape: Sequence[int], path: Path) -> list[str]:
    """Write the detector's network as ONNX. Return the names of the head's nodes that are no convolutions.

    Args:
        shape: (height, width) of an input; the file takes others, too.

    Raises:
        ConfigError: the network has another head than `Detect`, or suppresses overlaps itself.
    """
    import onnx

    backend = detector._backend
    assert isinstance(backend, TorchBackend)
    model = backend.network
    if not is_plain(model):
        raise ConfigError(
            f"{detector.config.weights} has the head {type(model.model[-1]).__name__}; only `Detect` is exported here."
        )
    written = onnx.load_from_string(export_network(model, shape))
    stated = {"author": AUTHOR, "task": "detect", "head": "Detect", "stride": str(detector.stride)}
    for key, value in {**stated, "names": json.dumps(detector.names), "end2end": "False"}.items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(written, str(path))
    place = f"/model.{len(model.model) - 1}/"
    return [node.name for node in written.graph.node if place in node.name and node.op_type != "Conv"]


def quantize(exported: Path, inputs: Sequence[np.ndarray], as_float: Sequence[str], out: Path) -> None:
    """Quantize an ONNX file by the ranges of its activations on inputs (uint8 [h, w, 3] each). Write `out` whole."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._left, None)
            return None if image is None else {"images": image.transpose(2, 0, 1)[None].astype(np.float32) / 255}

    prepared, partial = exported.with_suffix(".prepared"), out.with_name(f".{out.name}.{os.getpid()}")
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    try:
        quantization.quantize_static(
            str(prepared),
            str(partial),
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=list(as_float),
        )
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def loss(truth: Sequence[Detections], found: Sequence[Detections]) -> dict[str, float]:
    """Return average precisions of boxes against others as the truth, over all classes, and the share that is lost."""
    count = sum(int((one.confidence >= TRUE).sum()) for one in truth)
    precisions = []
    for iou in IOUS:
        hits = [hit for pair in zip(truth, found, strict=True) for hit in _hits(*pair, float(iou))]
        hits.sort(key=lambda one: -one[0])
        precisions.append(_average_precision(np.array([hit for _, hit in hits], bool), count))
        if iou == IOUS[0]:
            lost = 1 - sum(hit for _, hit in hits) / max(count, 1)
    return {
        "boxes": count,
        "ap50": round(precisions[0], 3),
        "ap50_95": round(float(np.mean(precisions)), 3),
        "lost": round(lost, 4),
    }


def _hits(truth: Detections, found: Detections, iou: float) -> Iterator[tuple[float, bool]]:
    """Yield the confidence of each found box, and whether it is one of the true boxes that is not taken yet."""
    true = truth.confidence >= TRUE
    overlap = box_iou(found.boxes, truth.boxes[true]) * (found.classes[:, None] == truth.classes[true][None])
    for i in np.argsort(-found.confidence, kind="stable"):
        best = int(overlap[i].argmax()) if overlap.shape[1] else -1
        hit = best >= 0 and bool(overlap[i, best] >= iou)
        if hit:
            overlap[:, best] = 0
        yield float(found.confidence[i]), hit


def _average_precision(hits: np.ndarray, count: int) -> float:
    """Return the mean precision at 101 recalls, as COCO does, of boxes in falling order of confidence."""
    if not count:
        return 1.0 if not len(hits) else 0.0
    recall = hits.cumsum() / count
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.append(precision, 0.0)[places].mean())


def exported_and_measured(args: argparse.Namespace) -> dict[str, Any]:
    """Export, measure, and write the file. Return the report."""
    torch.set_num_threads(args.threads)
    config = TracksConfig(weights=args.weights, image_size=args.image_size, confidence=LOWEST, batch_size=16)
    exact = Detector(config.model_copy(update={"backend": "pytorch"}), "cpu")
    calibration, measuring = frames_of(args.videos, args.frames)
    truth, pt_ms = _timed(exact, measuring)
    inputs = [exact.letterbox(frame) for frame in calibration]
    exported = args.out.with_name(f".{args.out.stem}.{os.getpid()}.onnx")
    try:
        as_float = export(exact, inputs[0].shape[:2], exported)
        if args.precision == "int8":
            quantize(exported, inputs, as_float, args.out)
        else:
            os.replace(exported, args.out)
    finally:
        exported.unlink(missing_ok=True)
        exported.with_suffix(".prepared").unlink(missing_ok=True)
    found, export_ms = _timed(Detector(config.model_copy(update={"weights": str(args.out)}), "cpu"), measuring)
    return {
        **loss(truth, found),
        "frames": {"calibration": len(calibration), "measured": len(measuring)},
        "processor_ms_per_frame": {"pt": pt_ms, "export": export_ms},
    }


def _timed(detector: Detector, frames: Sequence[np.ndarray]) -> tuple[list[Detections], float]:
    """Return the detections in frames, and the processor time per frame, ms, without the first call's."""
    detector(frames[:1])
    begun = time.process_time()
    found = detector(frames)
    return found, round((time.process_time() - begun) / len(frames) * 1e3, 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="an Ultralytics .pt of a detector with the head `Detect`")
    parser.add_argument("videos", help="folder, glob or manifest; like those that will be tracked")
    parser.add_argument("out", type=Path, help=".onnx")
    parser.add_argument("--precision", choices=["int8", "float32"], default="int8")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--frames", type=int, default=64, help="to calibrate with, and as many to measure with")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    try:
        report = exported_and_measured(args)
    except (ConfigError, StageError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
