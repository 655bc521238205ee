"""Check recipes on worlds with planted answers: does a recipe report what is true, and nothing else?

    python benchmarks/truth.py                    5 seeds of every world; some minutes of one core
    python benchmarks/truth.py --size smoke       1 seed, fewer clips
    python benchmarks/truth.py --clips 60         more clips per concept and random set; writes results/truth_n60.json
    python benchmarks/truth.py --check            the worlds `motion` and `untrained` at that size; fails on bad figures

Every clip shows an object of one of two kinds with one of two motions on one of two backdrops, all crossed
(`worlds/clips.py`). A world's label is made from these factors, and a tiny MMAction2 recogniser is trained on it:

- **motion**: the label is the motion; kind and backdrop are independent of it;
- **kind**: the label is the object's kind;
- **shortcut**: the label is the backdrop's texture, which an action recogniser should not use; kind and motion are
  independent of it, so a network can use only the texture;
- **both**: class 1 is the ball that moves left, class 0 everything else: it takes object AND motion;
- **untrained**: weights from a seed.

The verdicts are in `worlds/scoring.py`, written before any result. The concepts' clips and the random clips have all
other factors crossed, so concepts are not confounded. Each run also has concepts that consist of random clips: the only
cells whose null is certainly true.

What is planted is what the DATA make useful. A separate measurement without CAVs shows whether the network uses that
and nothing else: how far the logit moves between two renderings of a clip that differ in one factor (`swap`, in
standard deviations of the logit). So a call where the verdict is `none` is one of two: `confirmed` if the network does
respond to the factor in that direction (|mean| above 3 standard errors), which means that the planted verdict was wrong
for this network; else a false alarm. A recogniser below 90 % on held-out clips is not scored.

A swap describes the network, but the planted verdict applies to every layer. Whether a LAYER carries the factor as a
direction is measured too, also without CAVs (`moves`): take the difference of the mean activations of all training
clips of the two levels, add half of it and subtract half of it at held-out clips, and run the rest of the network. If
that does not move the logit as planted (|mean| above 3 standard errors), no recipe that tests a direction of this layer
can correctly report an effect. Areas under ROC are given over all cells and over those where the logit moves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import RESULTS, write
from numpy.typing import NDArray
from worlds.clips import FACTORS, Pool, render, swapped
from worlds.recipes import RECIPES, Answers, ask
from worlds.recogniser import LAYERS, Trained, accuracy, flat_vectors, logits_of, moved_logits, train, untrained
from worlds.scoring import CONCEPTS, NULLS, WORLDS, cells_of, complaints, markdown, summary

from vtcav_ray.models import Recogniser

LEAST_ACCURACY = 0.9
SIZES = {  # training clips, held-out clips, steps, clips per concept, random sets, class videos, swapped pairs
    "full": {"train": 900, "held_out": 120, "steps": 200, "n": 30, "sets": 20, "videos": 30, "pairs": 60},
    "smoke": {"train": 500, "held_out": 100, "steps": 200, "n": 20, "sets": 20, "videos": 20, "pairs": 20},
}


def labels(world: str, pool: Pool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the pool that belong to the world (equally many per class), and their labels."""
    kind, motion, backdrop = (pool.levels[name] for name in FACTORS)
    pair = ((kind == 0) & (motion == 0)).astype(np.int64)
    # For untrained weights, any label will do.
    of = {"motion": motion, "kind": kind, "shortcut": backdrop, "both": pair, "untrained": motion}[world]
    sides = [np.flatnonzero(of == k) for k in (0, 1)]
    # `both` has three times as many clips without the pair: repeat those with it to balance the classes.
    most = max(len(side) for side in sides)
    rows = np.concatenate([np.resize(side, most) for side in sides])
    return rows, of[rows]


def one_run(world: str, seed: int, pools: dict[str, Pool], sizes: dict[str, int], permutations: int) -> dict[str, Any]:
    """Train (or not), extract, and run every recipe. Return the answers, or the reason why there are none."""
    recogniser, report = _recogniser(world, seed, pools, sizes)
    if recogniser is None:
        return report
    examples = pools["examples"]
    rng = np.random.default_rng([seed, 4])
    concepts, randoms = _sets(examples, sizes, rng)
    held_rows, held_labels = labels(world, pools["classes"])
    rows = [rng.permutation(np.unique(held_rows[held_labels == k]))[: sizes["videos"]] for k in (0, 1)]
    used = np.concatenate((*concepts.values(), *randoms))
    place = {row: i for i, row in enumerate(used)}
    pool, _, shapes = flat_vectors(recogniser, examples.clips[used])
    at = np.array([[place[row] for row in one] for one in (*concepts.values(), *randoms)])
    class_clips = pools["classes"].clips[np.concatenate(rows)]
    of = np.repeat((0, 1), [len(one) for one in rows])
    at_class_clips, gradients, _ = flat_vectors(recogniser, class_clips, [[0, 1]] * len(of))
    logits = logits_of(recogniser, examples.clips[used])
    swaps = _swaps(recogniser, pools["classes"], sizes["pairs"])
    moves = _moves(recogniser, pools, sizes["pairs"])
    answers = {}
    for layer in LAYERS:
        # [k][c]: gradients of class k's logit at the clips of class c; rows are ordered by (clip, class).
        slopes = [[gradients[layer][k::2][of == c] for c in (0, 1)] for k in (0, 1)]
        seen = [at_class_clips[layer][of == c] for c in (0, 1)]
        j = len(concepts)
        answers[layer] = ask(pool[layer], slopes, seen, logits, at[:j], at[j:], shapes[layer], seed, permutations)
    assert tuple(concepts) == CONCEPTS, "the order in which answers are written down"
    return report | {"swaps": swaps, "moves": moves, "answers": _rounded(answers)}


def _recogniser(
    world: str, seed: int, pools: dict[str, Pool], sizes: dict[str, int]
) -> tuple[Recogniser | None, dict[str, Any]]:
    report: dict[str, Any] = {"world": world, "seed": seed}
    if world == "untrained":
        return untrained(seed), report
    rows, targets = labels(world, pools["train"])
    held, held_targets = labels(world, pools["classes"])
    look = np.random.default_rng([seed, 5]).permutation(len(held))[: sizes["held_out"]]
    held_out = pools["classes"].clips[held[look]], held_targets[look]
    found: Trained = train(seed, pools["train"].clips[rows], targets, held_out, steps=sizes["steps"])
    # On all held-out clips, most of which were not used for early stopping.
    right = accuracy(found.recogniser, pools["classes"].clips[held], held_targets)
    report |= {"accuracy": right, "steps": found.steps}
    if right < LEAST_ACCURACY:
        return None, report | {"not_scored": f"{right:.3f} of held-out clips right, under {LEAST_ACCURACY}"}
    return found.recogniser, report


def _sets(
    pool: Pool, sizes: dict[str, int], rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Draw disjoint clips for the concepts and the random sets: no clip is in two of them."""
    left = list(rng.permutation(len(pool.clips)))
    concepts: dict[str, NDArray[np.int64]] = {}
    for factor, levels in FACTORS.items():
        for level, name in enumerate(levels):
            rows = [row for row in left if pool.levels[factor][row] == level][: sizes["n"]]
            concepts[name] = np.array(rows)
            left = [row for row in left if row not in set(rows)]
    # The concepts' clips are balanced over both levels of every factor, so the remaining clips are too.
    dealt = np.array(left[: (len(NULLS) + sizes["sets"]) * sizes["n"]]).reshape(-1, sizes["n"])
    return concepts | dict(zip(NULLS, dealt, strict=False)), list(dealt[len(NULLS) :])


def _swaps(recogniser: Recogniser, pool: Pool, pairs: int) -> dict[str, list[dict[str, float]]]:
    """Return factor -> for each class, the change of the logit from the factor's second level to its first."""
    rows = np.arange(min(pairs, len(pool.clips)))
    unit = _unit(recogniser, pool, pairs)
    out: dict[str, list[dict[str, float]]] = {}
    for factor in FACTORS:
        sides = [pool.clips[rows].copy() for _ in (0, 1)]
        for level, side in enumerate(sides):
            other = np.flatnonzero(pool.levels[factor][rows] != level)
            side[other] = swapped(pool, rows[other], factor, level)
        out[factor] = _means((logits_of(recogniser, sides[0]) - logits_of(recogniser, sides[1])) / unit)
    return out


def _moves(recogniser: Recogniser, pools: dict[str, Pool], clips: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return layer -> factor -> for each class, the change of the logit on clips that were not used for the means, when
    the layer's activation moves from the mean of the second level to that of the first."""
    known, _, shapes = flat_vectors(recogniser, pools["train"].clips)
    looked_at = pools["classes"].clips[:clips]
    unit = _unit(recogniser, pools["classes"], clips)
    out: dict[str, dict[str, list[dict[str, float]]]] = {}
    for layer in LAYERS:
        out[layer] = {}
        for factor in FACTORS:
            first, second = (known[layer][pools["train"].where(**{factor: level})].mean(axis=0) for level in (0, 1))
            half = ((first - second) / 2).reshape(shapes[layer])
            up, down = (moved_logits(recogniser, looked_at, layer, shift) for shift in (half, -half))
            out[layer][factor] = _means((up - down) / unit)
    return out


def _unit(recogniser: Recogniser, pool: Pool, pairs: int) -> NDArray[np.float32]:
    """Return the standard deviation of each class's logit."""
    return np.asarray(logits_of(recogniser, pool.clips[: 2 * pairs]).std(axis=0))


def _means(moved: NDArray[np.float32]) -> list[dict[str, float]]:
    """Return mean and standard error of each class over changes [n, K] of the logits."""
    error = moved.std(axis=0, ddof=1) / np.sqrt(len(moved))
    return [{"mean": _digits(m), "error": _digits(e)} for m, e in zip(moved.mean(axis=0), error, strict=True)]


def _rounded(answers: dict[str, dict[str, Answers]]) -> dict[str, dict[str, Any]]:
    """Return recipe -> z and p, [layer][class][concept], to four digits: enough for all figures, and small."""
    columns = {r: {"z": [answers[at][r].z for at in LAYERS], "p": [answers[at][r].p for at in LAYERS]} for r in RECIPES}
    return {
        recipe: {name: [[[_digits(v) for v in row] for row in one] for one in values] for name, values in own.items()}
        for recipe, own in columns.items()
    }


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the result. Results are saved after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="how many; default 5, for smoke 1")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--clips", type=int, help="clips a concept and a random set, other than the size's own")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--permutations", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--merge", nargs="+", type=Path, help="run nothing: join the JSON of runs with other seeds")
    parser.add_argument("--out", type=Path, help="JSON; default: benchmarks/results/truth.json (full size alone)")
    parser.add_argument("--check", action="store_true", help="a small run that fails on bad figures; writes nothing")
    options = parser.parse_args(arguments)
    if options.check:
        options.size, options.worlds = "smoke", ["motion", "untrained"]
    torch.set_num_threads(options.threads)
    count = options.seeds or (5 if options.size == "full" else 1)
    sizes = SIZES[options.size] | ({"n": options.clips} if options.clips else {})
    name = f"truth_n{options.clips}.json" if options.clips else "truth.json"
    out = options.out or (RESULTS / name if options.size == "full" else None)
    runs: list[dict[str, Any]] = []
    if options.merge:
        runs = [r for path in options.merge for r in json.loads(path.read_text(encoding="utf-8"))["runs"]]
        write(out or RESULTS / name, result(runs, sizes))
        print(markdown(runs))
        return
    for seed in range(options.first_seed, options.first_seed + count):
        pools = _pools(seed, sizes)
        for world in options.worlds:
            runs.append(one_run(world, seed, pools, sizes, options.permutations))
            reported = {name: value for name, value in runs[-1].items() if name not in ("answers", "swaps", "moves")}
            print(
                reported | {f: [round(s["mean"], 2) for s in v] for f, v in runs[-1].get("swaps", {}).items()},
                flush=True,
            )
        if out is not None:
            write(out, result(runs, sizes))
    print(markdown(runs))
    if options.check and (found := complaints(runs)):
        sys.exit("\n".join(found))


def _pools(seed: int, sizes: dict[str, int]) -> dict[str, Pool]:
    wanted = {"train": sizes["train"], "classes": 240, "examples": int((sizes["sets"] + 10) * sizes["n"] * 1.05)}
    return {name: render(1000 * seed + 10 * i + 7, number) for i, (name, number) in enumerate(wanted.items())}


def result(runs: list[dict[str, Any]], sizes: dict[str, int]) -> dict[str, Any]:
    """Return the result to store: figures by world, and every answer."""
    cells = [c for r in runs for c in cells_of(r)]
    return {
        "size": sizes,
        "summary": {world: summary([c for c in cells if c["world"] == world]) for world in WORLDS},
        "runs": runs,
    }


if __name__ == "__main__":
    main()
