"""Check whether the tests reject true nulls at their nominal rate, and the intervals have their nominal coverage.

    python benchmarks/calibration.py                 simulated vectors
    python benchmarks/calibration.py --unequal       only these: concept and pool with unequal clips per source video
    python benchmarks/calibration.py --scores        only these: coverage of the score's interval
    python benchmarks/calibration.py --npz FILE      the same on given activations and gradients of random clips

A null cell is one class, one layer and one "concept" that consists of random clips. Each test gives it a p. The share
of cells with p <= alpha is the test's false-positive rate, and must not exceed alpha beyond its own interval (Clopper &
Pearson). For comparison: the paper's test (P against 1 - P of the same CAVs) and Welch's t on dependent runs.

The FILE of --npz contains `activations` [N, d] of random clips, `groups` [N] (their source videos), `gradients` [K, d]
of one or more classes, `gradient_groups` [K] and `gradient_classes` [K].

Legend: C cells, R random sets, n clips of a set, V class videos, d numbers of an activation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from null_cells import Array, Cell, Draw, World, given, rate, simulated

from vtcav_ray.cavs import random_against_random, train_cavs
from vtcav_ray.cavs.plan import Pool, plan_cavs
from vtcav_ray.cavs.train import Solver
from vtcav_ray.tcav import (
    concept_effect,
    empirical_test,
    paired_concept_effect,
    paper_test,
    round_robin_test,
    score,
    score_intervals,
    welch_test,
)

ALPHAS = (0.05, 0.01)
_PAIRS_UP_TO = 50
RESULTS = Path(__file__).parent / "results"


def p_values(
    cell: Cell, num_sets: int, solver: Solver, permutations: int, seed: int, *, pairs: bool = True
) -> dict[str, float]:
    """Return p of every test for one cell. The concept's R sets come first, then the 2 R sets of the empirical null."""
    n, clips, dim = cell.concept.shape
    everything = np.concatenate((cell.concept[None], np.stack(cell.sets))).reshape(-1, dim)
    rows = np.arange(len(everything)).reshape(len(cell.sets) + 1, n * clips)
    groups = np.arange(len(everything)) // clips
    used = rows[1 : num_sets + 1]
    robin_left, robin_right = random_against_random(list(used))
    pair_left, pair_right = (rows[num_sets + 1 + k :: 2] for k in (0, 1)) if pairs else (rows[:0], rows[:0])
    cavs = train_cavs(
        everything,
        np.concatenate((np.tile(rows[0], (num_sets, 1)), robin_left, pair_left)),
        np.concatenate((used, robin_right, pair_right)),
        groups=groups,
        solver=solver,
        seed=seed,
    )
    counts = score(cell.gradients, cavs.vectors).sign_count
    own, robin, paired = np.split(counts, [num_sets, num_sets + len(robin_left)])
    flat = cell.concept.reshape(-1, dim)
    other = cell.sets[0].reshape(-1, dim)
    out = {
        "concept effect (permutation)": concept_effect(
            cell.gradients,
            flat,
            other,
            groups=np.arange(2 * n).repeat(clips),
            permutations=permutations,
            bootstrap=2,
            seed=seed,
        ).p,
        "score, round robin": float(round_robin_test(own, robin).p[0]),
    }
    if pairs:
        out |= {
            "score, empirical": float(empirical_test(own, paired).p[0]),
            "score, Welch's t (dependent runs)": float(welch_test(own, paired).p[0]),
        }
    return out | {"score, the paper's test (P against 1 - P)": float(paper_test(own)[0])}


def rejection(draw: Draw, cells: int, num_sets: int, solver: Solver, permutations: int, seed: int) -> dict[str, Any]:
    """Return the rejection rate with its interval for each test."""
    found: dict[str, list[float]] = {}
    for number in range(cells):
        rng = np.random.default_rng([seed, number])
        # With many random sets, skip the 2 R further sets that a null of disjoint pairs would need.
        pairs = num_sets <= _PAIRS_UP_TO
        cell = draw(rng, 3 * num_sets if pairs else num_sets)
        for name, p in p_values(cell, num_sets, solver, permutations, number, pairs=pairs).items():
            found.setdefault(name, []).append(p)
    return {
        name: {str(alpha): rate(np.array(values) <= alpha + 1e-12) for alpha in ALPHAS}
        for name, values in found.items()
    }


def planned_rejection(
    concept_clips: int, pool_clips: Sequence[int], n: int, videos: int, num_sets: int, cells: int, seed: int
) -> dict[str, Any]:
    """Return the rejection rate of the round robin on CAVs that the stage itself would plan and train (logistic).

    Args:
        concept_clips: clips per source video of the concept.
        pool_clips: clips per source video of the pool, in turn.
        n: source videos per set.
        videos: class videos.
        num_sets: R.
        cells: number of null cells.
        seed: seed of all draws.
    """
    pool_videos = num_sets * n + n // 2
    clips = np.array([concept_clips] * n + [pool_clips[i % len(pool_clips)] for i in range(pool_videos)])
    names = np.repeat([f"concept {i}" for i in range(n)] + [f"random {i}" for i in range(pool_videos)], clips).tolist()
    own = concept_clips * n
    pool = Pool(
        ["concept"] * own + ["random"] * (len(names) - own),
        ["null/spatial"] * own + ["random/spatial"] * (len(names) - own),
        ["spatial"] * len(names),
        names,
    )
    plan = plan_cavs(pool, num_sets, (), seed)
    is_null = np.array([job.is_null for job in plan.jobs])
    world = World(clips=int(clips.max()))
    values = []
    for number in range(cells):
        rng = np.random.default_rng([seed, number, 3])
        mean = world.direction(rng)
        drawn = world.activations(rng, len(clips))
        vectors = np.concatenate([drawn[i, :count] for i, count in enumerate(clips)])
        cavs = train_cavs(
            vectors,
            [job.rows().positive for job in plan.jobs],
            [job.rows().negative for job in plan.jobs],
            groups=names,
            seed=number,
        )
        counts = score(world.gradients(rng, mean, videos), cavs.vectors).sign_count
        values.append(round_robin_test(counts[~is_null], counts[is_null]).p[0])
    found = np.array(values)
    return {"score, round robin": {str(alpha): rate(found <= alpha + 1e-12) for alpha in ALPHAS}}


def effect_coverage(
    world: World, n: int, videos: int, z: float, cells: int, seed: int, pool: int | None = None
) -> dict[str, Any]:
    """Return how often the 95 % interval of the concept effect covers the population's effect; also for pairs.

    Args:
        world: of the vectors.
        n: source videos of the concept.
        videos: class videos.
        z: the effect, in SDs of the null with n random videos.
        cells, seed: number of cells, and seed of all draws.
        pool: random videos; None: n.
    """
    hits, paired_hits = [], []
    for number in range(cells):
        rng = np.random.default_rng([seed, number, 1])
        mean = world.direction(rng)
        gradients = world.gradients(rng, mean, videos)
        along = mean * world.spread**2
        shift = z * world.effect_sd(mean, n) * along / (along @ mean)
        concept, random = world.activations(rng, n) + shift, world.activations(rng, pool or n)
        groups = np.arange(n + len(random)).repeat(world.clips)
        flat = [one.reshape(-1, world.dim) for one in (concept, random)]
        got = concept_effect(gradients, *flat, groups=groups, permutations=1, seed=number)
        hits.append(got.ci_low <= shift @ mean <= got.ci_high)
        twin = 0.9 * (concept - shift - 2.0) + 2.0 + 0.3 * (world.activations(rng, n) - 2.0)
        pair_groups = np.arange(n).repeat(world.clips)
        both = paired_concept_effect(
            gradients, flat[0], twin.reshape(-1, world.dim), groups=pair_groups, permutations=1, seed=number
        )
        paired_hits.append(both.ci_low <= shift @ mean <= both.ci_high)
    return {"concept effect": rate(np.array(hits)), "paired concept effect": rate(np.array(paired_hits))}


def score_coverage(world: World, n: int, videos: int, runs: int, z: float, cells: int, seed: int) -> dict[str, Any]:
    """Return how often a score's 95 % interval covers the score over all videos and random sets.

    The concept's clips are fixed.

    Uses `pattern` CAVs, whose population needs no training: the CAV of a random set is the difference of two means.
    """
    hits: list[bool] = []
    inner: list[bool] = []
    ends: list[bool] = []
    for number in range(cells):
        rng = np.random.default_rng([seed, number, 2])
        mean = world.direction(rng)
        along = mean * world.spread**2
        shift = z * world.effect_sd(mean, n) * along / (along @ mean)
        own = (world.activations(rng, n) + shift).mean(axis=(0, 1))

        def cavs(count: int, rng: np.random.Generator = rng, own: Array = own) -> Array:
            return own - world.activations(rng, count * n).reshape(count, -1, world.dim).mean(axis=1)

        sensitivities = world.gradients(rng, mean, videos) @ cavs(runs).T
        low, high = score_intervals(sensitivities, runs, seed=number)
        truth = float((world.gradients(rng, mean, 1000) @ cavs(300).T > 0).mean())
        hit = bool(low[0] <= truth <= high[0])
        hits.append(hit)
        (inner if 0.05 <= truth <= 0.95 else ends).append(hit)
    parts = {"all": hits, "true score in 0.05 to 0.95": inner, "true score nearer to 0 or 1": ends}
    return {name: rate(np.array(part)) for name, part in parts.items() if part}


def markdown(report: dict[str, Any]) -> str:
    """Format the report as tables."""
    lines = []
    for title, tests in report["rejection"].items():
        lines += [f"\n{title}\n", "| test | rate at 0.05 | rate at 0.01 |", "| --- | --- | --- |"]
        lines += [f"| {name} | {_text(r['0.05'])} | {_text(r['0.01'])} |" for name, r in tests.items()]
    for title, parts in report.get("coverage", {}).items():
        lines += [f"\nCoverage of 95 % intervals: {title}\n", "| figure | coverage |", "| --- | --- |"]
        lines += [f"| {name} | {_text(r)} |" for name, r in parts.items()]
    return "\n".join(lines)


def _text(found: dict[str, float]) -> str:
    return f"{found['rate']:.4f} ({found['low']:.4f} to {found['high']:.4f}; {found['cells']} cells)"


def simulate(cells: int, seed: int) -> dict[str, Any]:
    """Run part (a): every configuration on simulated vectors."""
    report: dict[str, Any] = {"rejection": {}, "coverage": {}}
    plain, twice, scattered = World(), World(clips=2), World(collinear=0.3)
    few = max(cells // 4, 100)
    runs: list[tuple[str, Draw, int, int, Solver]] = [
        ("null, R = 19, logistic", simulated(plain, 10, 15), cells, 19, "logistic"),
        ("null, two clips a video, R = 19, logistic", simulated(twice, 10, 15), cells, 19, "logistic"),
        ("null, scattered gradients, R = 19, logistic", simulated(scattered, 10, 15), cells, 19, "logistic"),
        ("null, R = 99, pattern", simulated(plain, 8, 15), cells, 99, "pattern"),
        ("planted effect of 2 null SDs, R = 19, logistic", simulated(plain, 10, 15, 2.0), few, 19, "logistic"),
        ("planted effect of 4 null SDs, R = 19, logistic", simulated(plain, 10, 15, 4.0), few, 19, "logistic"),
        ("planted effect of 4 null SDs, R = 99, pattern", simulated(plain, 8, 15, 4.0), few, 99, "pattern"),
    ]
    for title, draw, number, num_sets, solver in runs:
        started = time.perf_counter()
        report["rejection"][title] = rejection(draw, number, num_sets, solver, 999, seed)
        _say(title, report["rejection"][title], started)
    report["rejection"] |= unequal(cells, seed)
    coverages: list[tuple[str, World, int, int, float, int | None]] = [
        ("n = 30, 30 class videos, no effect", plain, 30, 30, 0.0, None),
        ("n = 30, 30 class videos, effect of 4 null SDs", plain, 30, 30, 4.0, None),
        ("n = 10, 12 class videos, effect of 4 null SDs", plain, 10, 12, 4.0, None),
        ("n = 20, 200 random videos, 25 class videos, no effect", plain, 20, 25, 0.0, 200),
        ("n = 20, 200 random videos, scattered gradients, effect of 4 null SDs", scattered, 20, 25, 4.0, 200),
        (
            "n = 30, two clips a video, scattered gradients, effect of 4 null SDs",
            World(clips=2, collinear=0.3),
            30,
            30,
            4.0,
            None,
        ),
    ]
    for title, world, n, videos, z, pool in coverages:
        started = time.perf_counter()
        report["coverage"][title] = effect_coverage(world, n, videos, z, cells, seed, pool)
        _say(title, report["coverage"][title], started)
    report["coverage"] |= scores_covered(cells, seed)
    return report


def scores_covered(cells: int, seed: int) -> dict[str, Any]:
    """Measure coverage of the score's interval, from no effect to effects that make half of the true scores 0 or 1."""
    plain, scattered = World(), World(collinear=0.3)
    found = {}
    for world, n, videos, num_sets, z in (
        (plain, 20, 50, 50, 0.0),
        (scattered, 20, 50, 50, 0.0),
        (scattered, 20, 30, 20, 2.0),
        (scattered, 20, 25, 50, 3.0),
        (scattered, 20, 30, 20, 4.0),
        (scattered, 10, 25, 50, 4.0),
    ):
        started = time.perf_counter()
        kind = "scattered gradients, " if world is scattered else ""
        title = f"score, {kind}n = {n}, {videos} videos, R = {num_sets}, effect of {z:g} null SDs"
        found[title] = score_coverage(world, n, videos, num_sets, z, cells, seed)
        _say(title, found[title], started)
    return found


def unequal(cells: int, seed: int) -> dict[str, Any]:
    """Test null cells whose concept has more or fewer clips per source video than the pool of random clips."""
    found = {}
    for own, pool in ((1, (1,)), (1, (2,)), (1, (3,)), (1, (1, 2, 3, 4)), (2, (1, 2, 3, 4)), (3, (1,))):
        started = time.perf_counter()
        title = f"null, clips a video {own}, in the pool {' or '.join(map(str, pool))}, R = 19, logistic, planned"
        found[title] = planned_rejection(own, pool, 10, 15, 19, cells, seed)
        _say(title, found[title], started)
    return found


def _say(title: str, result: dict[str, Any], started: float) -> None:
    print(f"{title}: {time.perf_counter() - started:.0f} s  {json.dumps(result)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unequal", action="store_true", help="only the cells with unequal clips a source video")
    parser.add_argument("--scores", action="store_true", help="only the coverage of the score's interval")
    parser.add_argument("--npz", type=Path, help="stored activations and gradients instead of simulated ones")
    parser.add_argument("--n", type=int, default=20, help="with --npz: source videos in a set")
    parser.add_argument("--sets", type=int, default=19, help="with --npz: R")
    parser.add_argument("--solver", default="logistic", help="with --npz")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.npz:
        draw = given(options.npz, options.n)
        title = f"null, {options.npz.stem}, n = {options.n}, R = {options.sets}, {options.solver}"
        rates = rejection(draw, options.cells, options.sets, options.solver, 999, options.seed)
        report: dict[str, Any] = {"rejection": {title: rates}}
        part = f"_{options.npz.stem}"
    elif options.unequal:
        report, part = {"rejection": unequal(options.cells, options.seed)}, "_unequal"
    elif options.scores:
        report, part = {"rejection": {}, "coverage": scores_covered(options.cells, options.seed)}, "_scores"
    else:
        report, part = simulate(options.cells, options.seed), ""
    report["settings"] = {"cells": options.cells, "seed": options.seed}
    out = options.out or RESULTS / f"calibration{part}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    main()
