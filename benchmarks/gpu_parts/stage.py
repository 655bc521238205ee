"""Part `stage`: the stage `activations` beside the bare model loop of the same work, and the cost of decoding.

The stage's own worker reads a Parquet shard of stored clips, decodes, resizes, extracts four layers and writes Parquet.
The bare loop has one batch on the device, and runs forward, and backward down to the earliest layer.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import bare
import environment as machine
import numpy as np
import throughput_swin
import torch

from gpu_parts.part import PRECISIONS, Part, free_memory, in_turns, middle, numbers, ratio
from gpu_parts.targets import STAGE_OF_BARE
from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.video.codec import decode_clip, encode_clip

CASES = (("swin-tiny", "bf16", 20.0), ("swin-tiny", "fp32", 25.0), ("swin-base", "bf16", 25.0))
WAYS = ("bare", "extract", "stage")
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
    stored = [encode_clip(throughput_swin.drawn_clip(stream, frames, size)) for _ in range(4)]
    recogniser = load_recogniser(ModelConfig(config=bare.MODELS["swin-tiny"], checkpoint="untrained"), "cpu")

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
    """Measure the stage, the extraction alone, and the bare loop, in turns, at the batch size of the stage's trial."""
    tiny, device = part.options.tiny, part.options.torch_device
    frames, size = sizes(part)
    with numbers(precision):
        batch = 2 if tiny else batch_of(part, model, precision)
        options = SimpleNamespace(
            config=bare.MODELS[model],
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
    share = ratio(taken["bare"], taken["stage"])
    cores = rates["bare"] * part.figures.get("processor seconds a clip", float("nan"))
    part.note(
        f"{model}, {precision}",
        {
            "batch": batch,
            "batches a shard": options.shard,
            "stored bytes of raw": stored,
            "clips a second": rates,
            "stage of the bare loop": share,
            "extraction of the bare loop": ratio(taken["bare"], taken["extract"]),
            "cores that decode for one device": cores,
        },
    )
    name = f"{model}, {precision}, batch {batch}"
    part.row(f"{name}, bare loop", rates["bare"], "clips/s")
    part.row(f"{name}, whole stage", rates["stage"], "clips/s")
    part.row(f"{name}, stage of the bare loop", share["median"], "", STAGE_OF_BARE)
    part.row(f"{name}, cores that decode for one device", cores, "cores")


def batch_of(part: Part, model: str, precision: str) -> int:
    """Find the batch size by trial, as the stage does."""
    frames, size = sizes(part)
    recogniser = load_recogniser(ModelConfig(config=bare.MODELS[model], checkpoint="untrained"), part.options.device)
    extractor = Extractor(recogniser, bare.LAYERS, precision=PRECISIONS[precision])  # type: ignore[arg-type]
    found = extractor.choose_batch_size(np.zeros((frames, size, size, 3), np.uint8), gradients=True)
    del recogniser, extractor
    free_memory(torch.device(part.options.device))
    return found
