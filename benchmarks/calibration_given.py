"""Check whether cells of a person's own clips reject true nulls at their nominal rate.

    python benchmarks/calibration_given.py                  2,000 null cells per setting
    python benchmarks/calibration_given.py --setting 0      only this one, added to those in the file

The pool is named as the stage `clips` names it: a concept of own clips, its own random clips, those of the corpus or
the partners of its clips, and its motion controls. `plan_cavs` and `find_cells` decide what is compared with what, and
`family_tests` gives p, as in the stage `scores`. In a null cell, the concept's clips are draws like its random clips'.
The share of cells with p <= alpha must not exceed alpha beyond its own interval (Clopper & Pearson).

The last setting is no null of the test, but one of the reader: the concept says nothing, and the random clips come from
other footage. It shows what the mark `unmatched` warns of.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from null_cells import World, rate

from vtcav_ray.cavs import train_cavs
from vtcav_ray.cavs.plan import RANDOM, CavJob, Pool, plan_cavs
from vtcav_ray.clips.pools import corpus_pool, is_paired, own_pool, pair_pool
from vtcav_ray.scores.cells import Cell, find_cells
from vtcav_ray.scores.families import Labels, Projections, family_tests
from vtcav_ray.scores.layer_data import ScoreOptions
from vtcav_ray.tcav import empirical_test, round_robin_test, score

ALPHAS = (0.05, 0.01)
RESULTS = Path(__file__).parent / "results"
PERMUTATIONS, RANDOM_SETS, CLASS_VIDEOS = 999, 19, 20


@dataclass(frozen=True)
class Setting:
    """What a concept of own clips is compared with.

    Attributes:
        own: random clips of its own; else of the corpus.
        n, m: source videos of the concept, and of the random clips.
        clips: clips of each of the concept's source videos.
        twins: compare with the motion control instead.
        pairs: the random clips are the partners of the concept's own.
        shift: of the random clips, in SDs along each axis: other footage.
    """

    own: bool
    n: int = 20
    m: int = 100
    clips: int = 1
    twins: bool = False
    pairs: bool = False
    shift: float = 0.0


SETTINGS = {
    "own random clips": Setting(own=True),
    "own random clips, few": Setting(own=True, n=8, m=24),
    "own random clips, enough for disjoint sets": Setting(own=True, n=8, m=8 * RANDOM_SETS),
    "own random clips, 3 clips of each source": Setting(own=True, clips=3),
    "random clips of the corpus, the same footage": Setting(own=False),
    "against its own motion control": Setting(own=True, twins=True),
    "in pairs": Setting(own=True, pairs=True),
    "in pairs, few": Setting(own=True, n=8, pairs=True),
    "in pairs, 3 of each source": Setting(own=True, clips=3, pairs=True),
    "UNMATCHED: random clips of other footage": Setting(own=False, shift=0.25),
}


def pool_of(setting: Setting) -> tuple[Pool, list[str]]:
    """Return the pool's rows, and their clip ids; the rows of another, unused pool come last."""
    pool = own_pool("null", "given") if setting.own else corpus_pool("given")
    if setting.pairs:
        pool = pair_pool("null", "given")
    other = corpus_pool("given") if setting.own else own_pool("another", "given")
    rows = []
    for kind in ("given", "given_frozen") if setting.twins else ("given",):
        rows += [("concept", "null", kind, f"source {i}", f"concept/null/{kind}/{i}#{c}")
                 for i in range(setting.n) for c in range(setting.clips)]  # fmt: skip
        name = pool.replace("/given", f"/{kind}")
        if setting.pairs:
            rows += [(RANDOM, name, kind, f"source {i}", f"{name}/{i}#{c}")
                     for i in range(setting.n) for c in range(setting.clips)]  # fmt: skip
            continue
        rows += [(RANDOM, name, kind, f"random {i}", f"{name}/{i}") for i in range(setting.m)]
    rows += [(RANDOM, other, "given", f"other {i}", f"{other}/{i}") for i in range(40)]
    role, name_, kind_, video, clip_ids = (list(column) for column in zip(*rows, strict=True))
    full = [f"{n}/{k}" if r == "concept" else n for r, n, k in zip(role, name_, kind_, strict=True)]
    return Pool(role, full, kind_, video), clip_ids


@dataclass(frozen=True)
class Places:
    """Which source video each row of the pool is of, [N], which of its clips, and which rows lie elsewhere."""

    videos: int
    video_N: np.ndarray
    clip_N: np.ndarray
    other_N: np.ndarray
    random_N: np.ndarray

    @classmethod
    def of(cls, pool: Pool) -> Places:
        names = np.array(pool.video_id)
        _, video_N = np.unique(names, return_inverse=True)
        seen: dict[int, int] = {}
        clip_N = []
        for video in video_N.tolist():
            clip_N.append(seen.get(video, 0))
            seen[video] = clip_N[-1] + 1
        other_N, random_N = (np.char.startswith(names, word) for word in ("other", "random"))
        return cls(len(seen), video_N, np.array(clip_N), other_N, random_N)


def vectors_of(setting: Setting, places: Places, world: World, rng: np.random.Generator) -> np.ndarray:
    """Draw a vector for each row of the pool. Clips of one source video share a part; the unused pool lies far away."""
    out = world.activations(rng, places.videos)[places.video_N, places.clip_N % world.clips]
    way = np.sign(rng.normal(size=world.dim)) * world.spread
    out = out + 10 * world.spread * places.other_N[:, None] + setting.shift * way * places.random_N[:, None]
    return np.asarray(out, np.float32)


def tested_cell(cells: list[Cell], setting: Setting) -> Cell:
    against = "null/given_frozen" if setting.twins else RANDOM
    return next(cell for cell in cells if (cell.concept, cell.against) == ("null/given", against))


def rejections(setting: Setting, cells: int, seed: int) -> dict[str, Any]:
    """Return the rejection rates of the effect's test and, if random sets can be disjoint, of the score's."""
    pool, clip_ids = pool_of(setting)
    jobs = plan_cavs(pool, RANDOM_SETS, ("pairs",), seed).jobs
    cell = tested_cell(find_cells(pool, clip_ids, jobs), setting)
    world = World(clips=setting.clips * (2 if setting.twins or setting.pairs else 1))
    places = Places.of(pool)
    effects, scores = [], []
    for number in range(cells):
        rng = np.random.default_rng([seed, number, 7])
        vectors = vectors_of(setting, places, world, rng)
        mean = world.direction(rng)
        values = (vectors @ mean)[:, None].astype(np.float32)
        projected = Projections([("class", "layer")], values, np.zeros(1), np.ones(1))
        options = ScoreOptions(2, PERMUTATIONS, number)
        effects.append(family_tests(cell, projected, pool, Labels.of(pool, {}), options)[0].p)
        if setting.pairs or (not setting.twins and setting.m >= setting.n * RANDOM_SETS):
            scores.append(_score_p(jobs, pool, vectors, world.gradients(rng, mean, CLASS_VIDEOS), number))
    of_scores = "score, swapped pairs" if setting.pairs else "score, round robin"
    found = {"concept effect (permutation)": effects} | ({of_scores: scores} if scores else {})
    return {
        name: {str(alpha): rate(np.array(values) <= alpha + 1e-12) for alpha in ALPHAS}
        for name, values in found.items()
    }


def _score_p(jobs: list[CavJob], pool: Pool, vectors: np.ndarray, gradients: np.ndarray, seed: int) -> float:
    own = [job for job in jobs if job.is_null or (job.concept, job.against) == ("null/given", RANDOM)]
    is_null = np.array([job.is_null for job in own])
    sides = [job.rows() for job in own]
    cavs = train_cavs(
        vectors, [s.positive for s in sides], [s.negative for s in sides], groups=pool.video_id, solver="pattern",
        seed=seed,
    )  # fmt: skip
    counts = score(gradients, cavs.vectors).sign_count
    test = empirical_test if is_paired(own[0].pool) else round_robin_test
    return float(test(counts[~is_null], counts[is_null]).p[0])


def markdown(report: dict[str, Any]) -> str:
    """Return the table for RESULTS.md."""
    lines = [
        "| setting | test | rate at 0.05 | 95 % interval | rate at 0.01 | cells |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, tests in report["rejection"].items():
        for test, rates in tests.items():
            at, low = rates["0.05"], rates["0.01"]
            lines.append(
                f"| {name} | {test} | {at['rate']:.4f} | {at['low']:.4f} to {at['high']:.4f} | {low['rate']:.4f} | "
                f"{at['cells']:,} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "calibration_given.json")
    parser.add_argument("--setting", type=int, help="only this one of the settings, by number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(SETTINGS) if options.setting is None else [list(SETTINGS)[options.setting]]
    there = json.loads(options.out.read_text()) if options.setting is not None and options.out.exists() else {}
    made = {name: rejections(SETTINGS[name], options.cells, options.seed) for name in names}
    either = there.get("rejection", {}) | made
    found = {name: either[name] for name in SETTINGS if name in either}
    report = {"rejection": found, "settings": {"cells": options.cells, "seed": options.seed}}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    main()
