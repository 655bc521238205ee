"""Part `stage`: the stage `activations` beside the model loop of the same work, and what decoding takes.

The stage's own worker reads a Parquet shard of stored clips, decodes, resizes, extracts four layers and writes Parquet.
The model loop has one batch on the device already, and goes forward, and backward down to the earliest layer.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import environment as machine
import extraction_core
import numpy as np
import throughput_parts
import throughput_swin
import torch

from gpu_parts.part import PRECISIONS, Part, free_memory, in_turns, middle, numbers, ratio
from gpu_parts.targets import STAGE_OF_MODEL_LOOP
from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.video.codec import decode_clip, encode_clip

CASES = (("swin-tiny", "bf16", 20.0), ("swin-tiny", "fp32", 25.0), ("swin-base", "bf16", 25.0))
WAYS = ("model loop", "extract", "stage")
CLIPS_A_SHARD = 256


def run(part: Part) -> None:
    """Measure and note."""
    part.attempt("decoding", lambda: decoding(part))
    for model, precision, needs in CASES[:1] if part.options.tiny else CASES:
        part.attempt(f"{model}, {precision}", lambda m=model, p=precision: whole(part, m, p), needs=needs)  # type: ignore[misc]


def sizes(part: Part) -> tuple[int, int]:
    """Return the frames, and the pixels per side."""
    return (4, 56) if part.options.tiny else (32, 224)


def decoding(part: Part) -> None:
    """Measure CPU seconds per clip, and clips per second by threads, from stored clip to pixels as in the stage."""
    frames, size = sizes(part)
    stream = np.random.RandomState(0)
    stored = [encode_clip(throughput_parts.drawn_clip(stream, frames, size)) for _ in range(4)]
    recogniser = load_recogniser(ModelConfig(config=extraction_core.MODELS["swin-tiny"], checkpoint="untrained"), "cpu")

    def one(number: int) -> None:
        recogniser.pixels(decode_clip(*stored[number % len(stored)]), "center")

    one(0)
    a_clip = machine.cpu_seconds(lambda: [one(i) for i in range(8)]) / 8
    part.note("processor seconds a clip", a_clip)
    part.row("decoding a stored clip", a_clip * 1e3, "ms of a core")
    by_threads = {}
    cores = machine.environment()["cpus"]
    for threads in sorted({1, 2, 4, 8, cores} if not part.options.tiny else {1, cores}):
        with ThreadPoolExecutor(threads) as pool:
            count = 8 * threads
            began = time.perf_counter()
            list(pool.map(one, range(count)))
            by_threads[threads] = count / (time.perf_counter() - began)
    part.note("clips a second decoded, by threads", by_threads)
    part.row(f"decoding, {cores} threads", by_threads[cores], "clips/s")


def whole(part: Part, model: str, precision: str) -> None:
    """The stage, the extraction alone, and the model loop, in turns, at the batch of the stage's own trial."""
    tiny, device = part.options.tiny, part.options.torch_device
    frames, size = sizes(part)
    with numbers(precision):
        batch = 2 if tiny else batch_of(part, model, precision)
        options = SimpleNamespace(
            config=extraction_core.MODELS[model],
            device=part.options.device,
            precision=PRECISIONS[precision],
            clips=batch,
            shard=2 if tiny else max(2, CLIPS_A_SHARD // batch),
            frames=frames,
            size=size,
            threads=machine.environment()["cpus"],
        )
        ways, _, stored, _ = throughput_swin.ways_of(options)
        # One run of the stage is a whole shard, so few passes of the others match it.
        taken = in_turns({name: ways[name] for name in WAYS}, device, 2 if tiny else 3)
    taken["stage"] = [each / options.shard for each in taken["stage"]]
    rates = {name: batch / middle(found) for name, found in taken.items()}
    share = ratio(taken["model loop"], taken["stage"])
    cores = rates["model loop"] * part.figures.get("processor seconds a clip", float("nan"))
    part.note(
        f"{model}, {precision}",
        {
            "batch": batch,
            "batches a shard": options.shard,
            "stored bytes of raw": stored,
            "clips a second": rates,
            "stage of the model loop": share,
            "extraction of the model loop": ratio(taken["model loop"], taken["extract"]),
            "cores that decode for one device": cores,
        },
    )
    name = f"{model}, {precision}, batch {batch}"
    part.row(f"{name}, model loop", rates["model loop"], "clips/s")
    part.row(f"{name}, whole stage", rates["stage"], "clips/s")
    part.row(f"{name}, stage of the model loop", share["median"], "", STAGE_OF_MODEL_LOOP)
    part.row(f"{name}, cores that decode for one device", cores, "cores")


def batch_of(part: Part, model: str, precision: str) -> int:
    """Find the batch size by trial, as the stage does."""
    frames, size = sizes(part)
    recogniser = load_recogniser(
        ModelConfig(config=extraction_core.MODELS[model], checkpoint="untrained"), part.options.device
    )
    extractor = Extractor(recogniser, extraction_core.LAYERS, precision=PRECISIONS[precision])  # type: ignore[arg-type]
    found = extractor.choose_batch_size(np.zeros((frames, size, size, 3), np.uint8), gradients=True)
    del recogniser, extractor
    free_memory(torch.device(part.options.device))
    return found
