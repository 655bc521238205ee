"""Part `cavs`: CAVs, permutations and scores on the GPU and on the same machine's cores, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cavs
import numpy as np
import torch

from gpu_parts.part import Part, Target, seconds
from gpu_parts.targets import CAVS_OVER_CPU
from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.cavs import train as training
from vtcav_ray.tcav import concept_effects, score, score_intervals

DIM = 768
# Both compute the same sums in another order, in float32 (Newton's steps, scores) and float64 (Gram matrix). Only
# rounding differs, 1e-6 relative, which Newton's stopping rule (1e-5 of the objective) lets grow to about its root.
COSINE = Target(0.9999)
RELATIVE = Target(1e-3, at_least=False)
# Both draw the same arrangements, so p differs only if a statistic ties with the observed one up to rounding.
SAME_P = Target(1e-3, at_least=False)


def run(part: Part) -> None:
    """Measure and note."""
    steps: dict[str, tuple[float, Callable[[], None]]] = {
        "training": (10, lambda: trained(part)),
        "effects": (10, lambda: effects(part)),
        "scores": (5, lambda: scores(part)),
        "solvers": (10, lambda: solvers(part)),
        "chunks": (10, lambda: chunks(part)),
    }
    for name, (needs, measure) in steps.items():
        part.attempt(name, measure, needs=needs)


def both(part: Part, name: str, way: Callable[[str], Any], repeats: int = 2) -> tuple[Any, Any]:
    """Run a way on the CPU and on the device, after an uncounted call; note seconds and their ratio.

    Returns:
        The results on the CPU and on the device.
    """
    device = part.options.device
    results: dict[str, Any] = {}

    def keep(where: str) -> None:
        results[where] = way(where)

    taken = {}
    for where in dict.fromkeys(("cpu", device)):
        keep(where)
        taken[where] = min(seconds(partial(keep, where), torch.device(where)) for _ in range(repeats))
    times = taken["cpu"] / taken[device]
    part.note(name, {"seconds": taken, "times as fast as the processor": times})
    part.row(f"{name}, {device}", taken[device], "s")
    part.row(f"{name}, {device} over the processor", times, "times", CAVS_OVER_CPU)
    return results["cpu"], results[device]


def problem(part: Part) -> tuple[Any, Any, Any]:
    """Return pool, positives and negatives as in benchmarks/cavs.py."""
    rows, count = (500, 100) if part.options.tiny else (5000, 24_000)
    return cavs.activations(rows, DIM), *cavs.sets(rows, count)


def trained(part: Part) -> None:
    """Measure the Gram matrix and the training of many CAVs."""
    pool, positives, negatives = problem(part)
    both(part, f"Gram matrix of {len(pool)} rows", lambda where: gram(pool, device=where).inner_NN)
    matrices = {where: gram(pool, device=where) for where in {"cpu", part.options.device}}
    here, there = both(
        part,
        f"{len(positives)} CAVs, d = {DIM}",
        lambda where: train_cavs(matrices[where], positives, negatives),
    )
    some = slice(0, 2000)
    cosine = np.einsum("md,md->m", here.vectors[some], there.vectors[some])
    part.note("CAVs, least cosine between the two", float(cosine.min()))
    part.row("CAVs, least cosine between processor and device", float(cosine.min()), "", COSINE)
    differ = int((here.held_out_accuracy != there.held_out_accuracy).sum())
    part.note("CAVs whose held-out accuracy differs", differ)


def effects(part: Part) -> None:
    """Measure concept effects with permutations and intervals, at the sizes of benchmarks/cavs.py, fewer classes."""
    classes, videos, concepts = (3, 20, 4) if part.options.tiny else (100, 50, 40)
    permutations = 200 if part.options.tiny else 10_000
    rng = np.random.default_rng(2)
    side = cavs.N_SIDE
    pool = cavs.activations(concepts * side + 500, DIM)
    rows = np.arange(concepts * side).reshape(concepts, side)
    random = [concepts * side + rng.choice(500, side, replace=False) for _ in range(concepts)]
    gradients = list(rng.standard_normal((classes, videos, DIM), dtype=np.float32) + np.float32(0.5))
    here, there = both(
        part,
        f"effects of {classes * concepts} cells, {permutations} permutations",
        lambda where: concept_effects(gradients, pool, rows, random, permutations=permutations, device=where),
    )
    off = float(np.abs(there.effect - here.effect).max() / here.null_sd.max())
    p = float(np.abs(there.p - here.p).max())
    ends = float(max(np.abs(there.ci_low - here.ci_low).max(), np.abs(there.ci_high - here.ci_high).max()))
    part.note(
        "effects, largest differences",
        {"effect, null standard deviations": off, "p": p, "interval, same": ends / float(here.null_sd.max())},
    )
    part.row("effects, largest difference, null standard deviations", off, "", RELATIVE)
    part.row("effects, largest difference of p", p, "", SAME_P)


def scores(part: Part) -> None:
    """Measure scores of many CAVs for many classes, and their intervals."""
    classes, count, runs = (2, 100, 10) if part.options.tiny else (50, 10_000, 50)
    rng = np.random.default_rng(1)
    gradients = rng.standard_normal((classes, 50, DIM), dtype=np.float32)
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def way(where: str) -> Any:
        found = [score(one, vectors, sensitivities=True, device=where) for one in gradients]
        kept = found[0].sensitivities
        assert kept is not None, "asked for"
        return np.stack([one.magnitude for one in found]), score_intervals(kept, runs, device=where)

    here, there = both(part, f"scores of {count} CAVs for {classes} classes", way)
    off = float(np.abs(there[0] - here[0]).max() / np.abs(here[0]).max())
    part.note("scores, largest relative difference", off)
    part.row("scores, largest relative difference", off, "", RELATIVE)


def solvers(part: Part) -> None:
    """Measure the other solvers on fewer CAVs."""
    pool, positives, negatives = problem(part)
    count = 20 if part.options.tiny else 4000
    matrices = {where: gram(pool, device=where) for where in {"cpu", part.options.device}}
    for solver in ("ridge", "svm", "pattern"):
        here, there = both(
            part,
            f"{count} CAVs by {solver}",
            lambda where, solver=solver: train_cavs(  # type: ignore[misc]
                matrices[where], positives[:count], negatives[:count], solver=solver
            ),
            repeats=1,
        )
        cosine = float(np.einsum("md,md->m", here.vectors, there.vectors).min())
        part.note(f"{solver}, least cosine between the two", cosine)
        part.row(f"{solver}, least cosine between processor and device", cosine, "", COSINE)


def chunks(part: Part) -> None:
    """Measure the training time by chunk size, to find the best size for this device."""
    pool, positives, negatives = problem(part)
    matrix = gram(pool, device=part.options.device)
    device = part.options.torch_device
    name = "_CHUNK_NUMBERS" if device.type == "cpu" else "_CHUNK_NUMBERS_GPU"
    before, found = getattr(training, name), {}
    try:
        for exponent in (18, 20) if part.options.tiny else (20, 22, 24, 26):
            setattr(training, name, 1 << exponent)
            way = lambda: train_cavs(matrix, positives, negatives)  # noqa: E731
            way()
            found[f"2^{exponent}"] = seconds(way, device)
    finally:
        setattr(training, name, before)
    part.note(f"{len(positives)} CAVs, seconds by numbers in a chunk", found)
