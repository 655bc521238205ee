"""Measure how fast CAVs are trained and scored, beside Captum's classifier and scikit-learn in a loop, in one run.

    python benchmarks/cavs.py            about as long as 24,000 CAVs take twice
    python benchmarks/cavs.py --small    a twentieth of it

Times on a busy machine are noisy, but all of one run suffer alike: read the ratios. Processor seconds are given beside
wall seconds, since other processes affect them less.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from vtcav_ray.cavs import Gram, gram, train_cavs
from vtcav_ray.cavs.train import Solver
from vtcav_ray.tcav import concept_effects, score, score_intervals

Array = NDArray[np.float32]
N_SIDE = 50


def activations(rows: int, dim: int, seed: int = 0) -> Array:
    """Draw activations of unit variance with a power-law spectrum and a common offset, [rows, d]."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, dim + 1) ** -0.5
    spread *= np.sqrt(dim / np.square(spread).sum())
    return (rng.standard_normal((rows, dim), dtype=np.float32) * spread.astype(np.float32)) + np.float32(1)


def sets(rows: int, cavs: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return concepts of 50 rows from the pool's first half and random sets of 50 from the second, [cavs, 50] each."""
    rng = np.random.default_rng(seed)
    half = rows // 2
    concepts = half // N_SIDE
    positives = np.arange(N_SIDE) + N_SIDE * (np.arange(cavs) % concepts)[:, None]
    keys = rng.random((min(cavs, 400), rows - half)).argpartition(N_SIDE, axis=1)[:, :N_SIDE]
    return positives, np.sort(half + keys[np.arange(cavs) % len(keys)], axis=1)


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the result, wall seconds and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}


def per_cav(seconds: dict[str, float], count: int) -> dict[str, float]:
    """Return microseconds per CAV."""
    return {"wall_us": seconds["wall_s"] / count * 1e6, "cpu_us": seconds["cpu_s"] / count * 1e6}


def ours(matrix: Gram, cavs: int, solver: Solver = "logistic", *, vectors: bool = True) -> dict[str, float]:
    """Train (and form the vectors of) `cavs` CAVs; return microseconds per CAV."""
    positives, negatives = sets(matrix.num_rows, cavs)

    def run() -> None:
        trained = train_cavs(matrix, positives, negatives, solver=solver)
        if vectors:
            assert len(trained.vectors) == cavs, "vectors are formed when they are asked for"

    run_small = sets(matrix.num_rows, 64)
    train_cavs(matrix, *run_small, solver=solver)  # warm up
    return per_cav(timed(run)[1], cavs)


def captum(pool: Array, cavs: int) -> dict[str, float]:
    """Train with Captum's DefaultClassifier, one CAV at a time."""
    from captum.concept._utils.classifier import DefaultClassifier  # not installed where `gpu.py` runs

    positives, negatives = sets(len(pool), cavs)

    def run() -> None:
        for left, right in zip(positives, negatives, strict=True):
            data = torch.from_numpy(pool[np.concatenate((left, right))])
            labels = torch.tensor([0] * len(left) + [1] * len(right))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                classifier = DefaultClassifier()
            loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data, labels), batch_size=len(data))
            classifier.train_and_eval(loader)
            classifier.weights()

    with threadpool_limits(1):  # on small matrices, more threads would only be slower
        return per_cav(timed(run)[1], cavs)


def scikit_learn(pool: Array, cavs: int) -> dict[str, float]:
    """Train LogisticRegression on a train part of the same size, one CAV at a time."""
    from sklearn.linear_model import LogisticRegression

    positives, negatives = sets(len(pool), cavs)
    train = round(N_SIDE * 0.67)
    labels = np.repeat([1, -1], train)

    def run() -> None:
        for left, right in zip(positives, negatives, strict=True):
            rows = pool[np.concatenate((left[:train], right[:train]))]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                LogisticRegression(max_iter=1000).fit(rows, labels)

    with threadpool_limits(1):
        return per_cav(timed(run)[1], cavs)


def audit(cavs: Array, classes: int, videos: int, runs: int) -> dict[str, Any]:
    """Measure scores and intervals of every CAV for every class."""
    rng = np.random.default_rng(1)
    dim = cavs.shape[1]
    report: dict[str, Any] = {"classes": classes, "cavs": len(cavs), "videos": videos}
    gradients = rng.standard_normal((classes, videos, dim), dtype=np.float32)
    gradients += rng.standard_normal((classes, 1, dim), dtype=np.float32) * 2
    report["scores"] = timed(lambda: [score(one, cavs) for one in gradients])[1]
    some = gradients[: max(1, classes // 10)]

    def intervals() -> None:
        for one in some:
            kept = score(one, cavs, sensitivities=True).sensitivities
            assert kept is not None, "they were asked for"
            score_intervals(kept, runs)

    report["score_intervals"] = _scaled(timed(intervals)[1], classes / len(some))
    return report


def effects(classes: int, videos: int, concepts: int, dim: int) -> dict[str, Any]:
    """Measure all concepts' effects for all classes at one layer: 10,000 permutations, intervals with B = 2,000."""
    rng = np.random.default_rng(2)
    pool = activations(concepts * N_SIDE + 2500, dim)
    rows = np.arange(concepts * N_SIDE).reshape(concepts, N_SIDE)
    random = [concepts * N_SIDE + rng.choice(2500, N_SIDE, replace=False) for _ in range(concepts)]
    gradients = list(rng.standard_normal((classes, videos, dim), dtype=np.float32) + np.float32(0.5))
    _, seconds = timed(lambda: concept_effects(gradients, pool, rows, random))
    _, without = timed(lambda: concept_effects(gradients, pool, rows, random, bootstrap=2))
    return {"cells": classes * concepts, "with_intervals": seconds, "permutations_alone": without}


def _scaled(seconds: dict[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cavs.json")
    options = parser.parse_args(arguments)
    size = 20 if options.small else 1
    report: dict[str, Any] = {
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    }

    def note(name: str, value: Any) -> None:
        report[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)

    pool = activations(5000, 768)
    matrix, seconds = timed(lambda: gram(pool))
    note("gram, 5,000 rows, d = 768", seconds)
    note("ours, logistic, 2,000 CAVs with vectors, d = 768", ours(matrix, 2000 // min(size, 4)))
    note("scikit-learn's LogisticRegression in a loop", scikit_learn(pool, 200 // min(size, 4)))
    note("Captum's DefaultClassifier in a loop", captum(pool, 100 // min(size, 4)))
    note("ours again", ours(matrix, 2000 // min(size, 4)))
    mine = (report["ours again"]["cpu_us"] + report["ours, logistic, 2,000 CAVs with vectors, d = 768"]["cpu_us"]) / 2
    note(
        "times faster by processor time",
        {
            "than Captum": report["Captum's DefaultClassifier in a loop"]["cpu_us"] / mine,
            "than scikit-learn": report["scikit-learn's LogisticRegression in a loop"]["cpu_us"] / mine,
        },
    )
    for solver in ("ridge", "svm", "pattern", "sgd"):
        note(f"ours, {solver}", ours(matrix, 1000 // min(size, 4), solver))
    wide = gram(activations(500, 100_000))
    narrow = gram(activations(500, 768))
    for _ in range(2):
        near, far = ours(narrow, 2000 // size, vectors=False), ours(wide, 2000 // size, vectors=False)
    note("d = 100,000 against d = 768, time a CAV once the Gram matrix is there", far["cpu_us"] / near["cpu_us"])

    count = 24_000 // size
    positives, negatives = sets(5000, count)
    trained, seconds = timed(lambda: train_cavs(matrix, positives, negatives))
    note(f"{count} CAVs, d = 768", seconds)
    vectors, seconds = timed(lambda: trained.vectors)
    note(f"{count} vectors", seconds)
    note("scores and intervals", audit(vectors, 400 // size, 50, 50))
    note("concept effects, one layer", effects(400 // size, 50, 160 // min(size, 4), 768))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
