"""Part `networks`: Video Swin-T and Swin-B, this package's and MMAction2's own code, by number type.

Weights are random, which changes no timing. The stage's own trial finds the batch size. Operations are counted in a
forward pass of ours and doubled (with frozen weights, backward has one product for each of forward's). MMAction2's own
code, which needs about as many, is given the same number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import extraction_core
import numpy as np
import throughput_parts
import throughput_swin
import torch
from torch import nn

from gpu_parts.part import PRECISIONS, Part, free_memory, in_turns, matmul_rate, middle, numbers, ratio
from gpu_parts.targets import OF_MATMUL, OVER_MMACTION
from vtcav_ray.activations import Extractor
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser
from vtcav_ray.models.compiled import compile_blocks
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.mmaction import build_mmaction

# In order of importance, each with its approximate seconds on an H100.
CASES = (
    ("swin-tiny", "bf16", 8.0),
    ("swin-tiny", "fp32", 10.0),
    ("swin-tiny", "tf32", 8.0),
    ("swin-base", "bf16", 12.0),
    ("swin-base", "tf32", 14.0),
    ("swin-base", "fp32", 20.0),
)
# Compiled and channels-last, after all others: compiling may take longer than the time left, and ends the part.
VARIANTS = (("swin-tiny", "bf16", 30.0), ("swin-base", "bf16", 30.0))
FIRST = CASES[0][:2]
OURS, THEIRS = "ours", "MMAction2's own"


def run(part: Part) -> None:
    """Measure and note."""
    models: dict[str, Pair] = {}
    batches: dict[tuple[str, str], int] = {}
    tiny = part.options.tiny

    def pair(model: str) -> Pair:
        if model not in models:
            models.clear()  # so that only one model is in memory
            models[model] = Pair(part, model)
        return models[model]

    def measured(model: str, precision: str) -> None:
        batches[model, precision] = measure(part, pair(model), precision)

    def varied(model: str, precision: str) -> None:
        variants(part, pair(model), precision, batches[model, precision])
        models.clear()  # now they are compiled

    for model, precision, needs in CASES[:1] if tiny else CASES:
        part.attempt(f"{model}, {precision}", partial(measured, model, precision), needs=needs)
        if (model, precision) == FIRST:
            part.attempt("kernels", lambda: kernels(part, pair(model), batches[FIRST]), needs=5)  # noqa: B023
            part.attempt("attention", lambda: attention(part), needs=5)
    for model, precision, needs in VARIANTS[:1] if tiny else VARIANTS:
        part.attempt(f"variants, {model}, {precision}", partial(varied, model, precision), needs=needs)


class Pair:
    """One network twice with the same weights, ours and MMAction2's, and a clip."""

    def __init__(self, part: Part, model: str) -> None:
        self.model, self.device = model, part.options.torch_device
        self.frames, self.size = (4, 56) if part.options.tiny else (32, 224)
        self.recogniser = load_recogniser(
            ModelConfig(config=extraction_core.MODELS[model], checkpoint="untrained"), part.options.device
        )
        self.own: Any = build_mmaction(
            read_config(extraction_core.MODELS[model]), extraction_core.MODELS[model], seed=None
        )
        self.own.requires_grad_(False).to(self.device).load_state_dict(self.recogniser.module.state_dict())
        shape = (self.frames, self.size, self.size, 3)
        self.clip = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def inputs(self, batch: int) -> torch.Tensor:
        """Return clips `[B, 3, T, H, W]`, normalised, on the device."""
        return self.recogniser.preprocess([self.clip])[:, 0].expand(batch, *[-1] * 4).contiguous()

    def extractor(self, precision: str, batch: int | None = None) -> Extractor:
        """Return the extractor as the stage builds it."""
        return Extractor(
            self.recogniser, extraction_core.LAYERS, precision=PRECISIONS[precision], batch_size=batch, threads=8
        )  # type: ignore[arg-type]


def forward(module: nn.Module, x: torch.Tensor, precision: str) -> None:
    """Return only logits, without a graph."""
    name = PRECISIONS[precision]
    half = name != "float32"
    with torch.no_grad(), torch.autocast(x.device.type, dtype=getattr(torch, name), enabled=half):
        module.cls_head(module.backbone(x))  # type: ignore[operator]


def measure(part: Part, pair: Pair, precision: str) -> int:
    """Measure all figures of one network and number type. Return the batch size of the trial."""
    tiny, device = part.options.tiny, pair.device
    with numbers(precision):
        batch = 2 if tiny else pair.extractor(precision).choose_batch_size(pair.clip, gradients=True)
        free_memory(device)
        fits, taken, memory = passes(pair, precision, batch, 2 if tiny else 5)
        one = pair.inputs(1)
        operations = 2 * extraction_core.counted(lambda: pair.recogniser.logits(one))
        limit = matmul_rate(device, precision, 256 if tiny else 8192 if device.type == "cuda" else 1536)
        clips = [pair.clip] * batch
        extractor = pair.extractor(precision, batch)
        extract = in_turns({"": lambda: extractor.extract(clips, [[0]] * batch)}, device, 2 if tiny else 5)[""]
    name = f"{pair.model}, {precision}"
    rates = {way: fits / middle(found) for way, found in taken.items()}
    times = ratio(taken[f"forward and backward, {THEIRS}"], taken[f"forward and backward, {OURS}"])
    share = operations * rates[f"forward and backward, {OURS}"] / limit
    part.note(
        name,
        {
            "input": [pair.frames, pair.size, pair.size],
            "batch by trial": batch,
            "batch of the passes": fits,
            "clips a second": {**rates, "extraction, ours": batch / middle(extract)},
            "times MMAction2's own, forward and backward": times,
            "times MMAction2's own, forward": ratio(taken[f"forward, {THEIRS}"], taken[f"forward, {OURS}"]),
            "operations a clip, forward and backward": operations,
            "operations a second of a large product": limit,
            "share of that": share,
            "peak memory, GB": memory,
        },
    )
    for way in (f"forward, {OURS}", f"forward and backward, {OURS}", f"forward and backward, {THEIRS}"):
        part.row(f"{name}, {way}, batch {fits}", rates[way], "clips/s")
    part.row(f"{name}, extraction from uint8 clips, batch {batch}", batch / middle(extract), "clips/s")
    part.row(f"{name}, ours over MMAction2's own, forward and backward", times["median"], "times", OVER_MMACTION)
    part.row(f"{name}, share of the {precision} product's rate", share, "", OF_MATMUL if precision == "bf16" else None)
    part.row(f"{name}, peak memory of ours", memory[OURS], "GB")
    return batch


def passes(
    pair: Pair, precision: str, batch: int, repeats: int
) -> tuple[int, dict[str, list[float]], dict[str, float]]:
    """Measure seconds per batch of each way, and peak memory of both; halve the batch until MMAction2's own fits."""
    while True:
        try:
            return batch, *_passes(pair, precision, batch, repeats)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        free_memory(pair.device)
        batch //= 2


def _passes(pair: Pair, precision: str, batch: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    x = pair.inputs(batch)
    modules = {OURS: pair.recogniser.module, THEIRS: pair.own}
    backward = {
        name: lambda module=module: throughput_swin.to_the_input(module, x, PRECISIONS[precision])
        for name, module in modules.items()
    }
    memory = {name: extraction_core.peak_memory(way, pair.device) / 1e9 for name, way in backward.items()}
    ways = {f"forward and backward, {name}": way for name, way in backward.items()}
    ways |= {f"forward, {name}": lambda module=m: forward(module, x, precision) for name, m in modules.items()}
    ways["model loop, to the earliest layer"] = lambda: throughput_parts.to_the_earliest_layer(
        pair.recogniser, x, PRECISIONS[precision]
    )
    return in_turns(ways, pair.device, repeats), memory


def variants(part: Part, pair: Pair, precision: str, batch: int) -> None:
    """Measure ours and MMAction2's own: unchanged, channels-last, and compiled block by block.

    Leaves the networks compiled.
    """
    tiny, device = part.options.tiny, pair.device
    name = f"{pair.model}, {precision}"
    x = pair.inputs(batch)
    modules: dict[str, nn.Module] = {OURS: pair.recogniser.module, THEIRS: pair.own}
    rates: dict[str, float] = {}

    def rate(title: str, module: nn.Module, x: torch.Tensor) -> None:
        way = lambda: throughput_swin.to_the_input(module, x, PRECISIONS[precision])  # noqa: E731
        rates[title] = batch / middle(in_turns({"": way}, device, 2 if tiny else 5)[""])
        part.note(f"{name}, variants, clips a second", dict(rates))
        part.row(f"{name}, {title}, batch {batch}", rates[title], "clips/s")

    with numbers(precision):
        rate("ours as it is", modules[OURS], x)
        with channels_last(modules[OURS]):
            rate("ours, channels-last", modules[OURS], x.contiguous(memory_format=torch.channels_last_3d))
        for whose, module in modules.items():
            # At the tiny size without the code generator, which takes a minute on a CPU.
            blocks = compile_blocks(module, backend="eager" if tiny else "inductor")
            part.note(f"{name}, {whose}, compiled blocks", blocks)
            rate(f"{whose}, compiled", module, x)


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Set the convolutions' weights to channels-last: Swin has one, in its patch embedding."""
    convolutions = [each for each in module.modules() if isinstance(each, nn.Conv3d)]
    for each in convolutions:
        each.to(memory_format=torch.channels_last_3d)
    yield
    for each in convolutions:
        each.to(memory_format=torch.contiguous_format)


def kernels(part: Part, pair: Pair, batch: int) -> None:
    """Note the largest kernels by device time, in one forward and backward pass of ours in bf16."""
    x = pair.inputs(batch)
    way = lambda: throughput_parts.to_the_earliest_layer(pair.recogniser, x, "bfloat16")  # noqa: E731
    way()
    on_gpu = pair.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CPU, kind.CUDA] if on_gpu else [kind.CPU]) as profiler:
        way()
        if on_gpu:
            torch.cuda.synchronize(pair.device)
    # On a GPU, only kernels: the operations that start them are listed again with the same time.
    wanted = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [e for e in profiler.key_averages() if e.device_type == wanted]
    found = sorted(((getattr(e, field), e.count, e.key) for e in events), reverse=True)
    total = sum(us for us, _, _ in found)
    part.note(
        f"kernels, {pair.model}, bf16, batch {batch}",
        [
            {"name": key[:120], "ms": us / 1e3, "calls": calls, "share": us / max(total, 1e-9)}
            for us, calls, key in found[:25]
        ],
    )


def attention(part: Part) -> None:
    """Measure window attention with a bias, forward and backward, by torch's backend and the bias's alignment.

    The sizes are a whole window (392 places) and a part beside a seam (196), where an unpadded bias is not aligned.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import pad, scaled_dot_product_attention

    device, tiny = part.options.torch_device, part.options.tiny
    kinds = [SDPBackend.MATH] + ([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION] * (device.type == "cuda"))
    found: dict[str, float] = {}
    for places in (20, 28) if tiny else (392, 196):
        windows, heads = (2, 1) if tiny else (1024, 3)
        q, k, v = torch.randn(3, windows, heads, places, 32, device=device, dtype=torch.bfloat16).unbind()
        q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
        plain = torch.randn(heads, places, places, device=device, dtype=torch.bfloat16)
        for title, bias in {"as it is": plain, "padded": pad(plain, (0, -places % 8))[..., :places]}.items():
            mask = bias.expand(windows, -1, -1, -1)

            def way(mask: torch.Tensor = mask, q: Any = q, k: Any = k, v: Any = v) -> None:
                torch.autograd.grad(scaled_dot_product_attention(q, k, v, attn_mask=mask).sum(), (q, k, v))

            for kind in kinds:
                name = f"{places} places, bias {title}, {kind.name}"
                try:
                    with sdpa_kernel(kind):
                        found[name] = middle(in_turns({"": way}, device, 2 if tiny else 5)[""])
                except RuntimeError as error:  # this backend does not accept these arguments
                    part.note(f"attention, {name}", str(error).strip().splitlines()[0])
            found[f"{places} places, bias {title}, torch's choice"] = middle(in_turns({"": way}, device, 2)[""])
    part.note("attention, seconds forward and backward", found)
