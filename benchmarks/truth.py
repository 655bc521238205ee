"""Check recipes on worlds with planted answers: does a recipe report what is true, and nothing else?

    python benchmarks/truth.py                    10 seeds of every world; about a minute of one core for each network
    python benchmarks/truth.py --size smoke       1 seed, fewer clips
    python benchmarks/truth.py --clips 60         more clips per concept and random set; writes results/truth_n60.json
    python benchmarks/truth.py --first-seed 4     seeds 4 to 13; --merge A.json B.json joins the files of several runs
    python benchmarks/truth.py --check            the worlds `motion` and `untrained` at that size; fails on bad figures

Every clip shows an object of one of two kinds with one of two motions on one of two backdrops, all crossed
(`worlds/clips.py`). A world's label is made from these factors, and a tiny MMAction2 recogniser is trained on it:

- **motion**: the label is the motion; kind and backdrop are independent of it;
- **kind**: the label is the object's kind;
- **shortcut**: the label is the backdrop's texture, which an action recogniser should not use; kind and motion are
  independent of it, so a network can use only the texture;
- **both**: class 1 is the ball that moves left, class 0 everything else: it takes object AND motion;
- **together**: the network of `motion`, explained on videos as data have them: a video has a label, and both its motion
  and its backdrop go with the label in 80 % of the videos (independently of each other, given the label). The network
  uses the motion, and the backdrop only goes along. So clips with stripes raise the logit of the stripes' class: most
  of them also move its way. Within the label of the video they do not, and the motion still does. Concepts have twice
  as many clips here, which makes the first visible;
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
import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import RESULTS, write
from numpy.typing import NDArray
from worlds.clips import FACTORS, Pool, render, render_together, swapped
from worlds.recipes import Answers, Sets, ask_classical, ask_logits, mean_alone, tested
from worlds.recogniser import (
    COLUMNS,
    LAYERS,
    Trained,
    accuracy,
    default_vectors,
    effect_values,
    flat_vectors,
    logits_of,
    moved_logits,
    patch_values,
    train,
    untrained,
)
from worlds.scoring import CONCEPTS, NULLS, WORLDS, cells_of, complaints, markdown, summary

from vtcav_ray.models import Recogniser

LEAST_ACCURACY = 0.9
FOR_COMPARISON = 10_000  # permutations of the recipes that are there for comparison
# Training clips, held-out clips, steps, clips per concept, random sets (disjoint), class videos, swapped pairs, and
# reference clips of the patch effect. These take most of its time: `full` has those of `vtcav patch --reference 16`,
# and `--check` does not look at the patch effect. The reference set has as many clips as a class has videos. `full` has
# the clips, sets and videos of a config's defaults.
SIZES = {
    "full": {
        "train": 900,
        "held_out": 120,
        "steps": 200,
        "n": 30,
        "sets": 10,
        "videos": 30,
        "pairs": 60,
        "patched": 16,
    },
    "smoke": {
        "train": 500,
        "held_out": 100,
        "steps": 200,
        "n": 20,
        "sets": 10,
        "videos": 20,
        "pairs": 20,
        "patched": 4,
    },
}
SEEDS = {"full": 10, "smoke": 1}


def labels(world: str, pool: Pool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the pool that belong to the world (equally many per class), and their labels."""
    kind, motion, backdrop = (pool.levels[name] for name in FACTORS)
    pair = ((kind == 0) & (motion == 0)).astype(np.int64)
    # For untrained weights, any label will do.
    of = {"kind": kind, "shortcut": backdrop, "both": pair}.get(world, motion)
    if pool.labels is not None:
        of = pool.labels
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
    ending = " together" if world == "together" else ""
    examples, explained = pools["examples" + ending], pools["classes" + ending]
    rng = np.random.default_rng([seed, 4])
    concepts, randoms = _sets(examples, sizes["n"] * (2 if ending else 1), sizes, rng)
    assert tuple(concepts) == CONCEPTS, "the order in which answers are written down"
    held_rows, held_labels = labels(world, explained)
    rows = [rng.permutation(np.unique(held_rows[held_labels == k]))[: sizes["videos"]] for k in (0, 1)]
    used = np.concatenate((*concepts.values(), *randoms))
    place = {row: i for i, row in enumerate(used)}
    concepts_Jn, randoms_Rm = (
        np.array([[place[row] for row in one] for one in some]) for some in (concepts.values(), randoms)
    )
    sets = Sets(concepts_Jn, randoms_Rm, None if examples.labels is None else examples.labels[used])
    of_classes = [explained.clips[one] for one in rows]
    answers = _answers(recogniser, examples.clips[used], of_classes, sets, seed, permutations, sizes["patched"])
    swaps, moves = _swaps(recogniser, explained, sizes["pairs"]), _moves(recogniser, pools["train"], explained, sizes)
    return report | {"swaps": swaps, "moves": moves, "answers": {name: _rounded(one) for name, one in answers.items()}}


def _answers(
    recogniser: Recogniser,
    clips: NDArray[np.uint8],
    of_classes: list[NDArray[np.uint8]],
    sets: Sets,
    seed: int,
    permutations: int,
    patched: int,
) -> dict[str, Answers]:
    """Return the answers of every recipe.

    Args:
        clips: of the pool.
        of_classes: class clips, V of each.
        sets: rows of the pool.
        patched: reference clips of the patch effect.
    """
    size = len(of_classes[0])
    pool, reference = default_vectors(recogniser, clips), _reference(of_classes, size)
    values = effect_values(pool, default_vectors(recogniser, reference, [[0, 1]] * len(reference)))
    responses = patch_values(recogniser, pool, _reference(of_classes, min(size, patched)))
    answers = {}
    for name, one in (("effect", values), ("patch", responses)):
        found = tested(one, sets, permutations, seed)
        answers |= {f"{name} {part}".strip(): answer for part, answer in found.items()}
    fewer = min(permutations, FOR_COMPARISON)
    answers["effect mean"] = mean_alone(values, sets, fewer, seed)
    answers["logits"] = ask_logits(logits_of(recogniser, clips), sets, len(LAYERS), fewer, seed)
    flat, _, _ = flat_vectors(recogniser, clips)
    slopes = [flat_vectors(recogniser, one, [[k]] * len(one))[1] for k, one in enumerate(of_classes)]
    per_layer = [[one[layer] for one in slopes] for layer in LAYERS]
    return answers | ask_classical([flat[layer] for layer in LAYERS], per_layer, sets, seed)


def _reference(of_classes: list[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """Return `size` class clips, half of them of each class."""
    return np.concatenate([of_classes[0][: -(-size // 2)], of_classes[1][: size // 2]])


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
    pool: Pool, num_concept: int, sizes: dict[str, int], rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Draw disjoint clips for the concepts and the random sets: no clip is in two of them."""
    left = list(rng.permutation(len(pool.clips)))
    concepts: dict[str, NDArray[np.int64]] = {}
    for factor, levels in FACTORS.items():
        for level, name in enumerate(levels):
            rows = [row for row in left if pool.levels[factor][row] == level][:num_concept]
            concepts[name] = np.array(rows)
            left = [row for row in left if row not in set(rows)]
    # The concepts' clips are balanced over both levels of every factor, so the remaining clips are too.
    for name in NULLS:
        concepts[name], left = np.array(left[:num_concept]), left[num_concept:]
    dealt = np.array(left[: sizes["sets"] * sizes["n"]]).reshape(sizes["sets"], sizes["n"])
    return concepts, list(dealt)


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


def _moves(
    recogniser: Recogniser, train_pool: Pool, pool: Pool, sizes: dict[str, int]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return layer -> factor -> for each class, the change of the logit on clips that were not used for the means, when
    the layer's activation moves from the mean of the second level to that of the first."""
    known, _, shapes = flat_vectors(recogniser, train_pool.clips)
    looked_at = pool.clips[: sizes["pairs"]]
    unit = _unit(recogniser, pool, sizes["pairs"])
    out: dict[str, dict[str, list[dict[str, float]]]] = {}
    for layer in LAYERS:
        out[layer] = {}
        for factor in FACTORS:
            first, second = (known[layer][train_pool.where(**{factor: level})].mean(axis=0) for level in (0, 1))
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


def _rounded(answers: Answers) -> dict[str, Any]:
    """Return z, p, q and the surest column, [layer][class][concept], to four digits: enough for all figures."""
    columns: dict[str, Any] = {
        name: [[[_digits(v) for v in row] for row in one] for one in getattr(answers, name)] for name in ("z", "p", "q")
    }
    return columns if answers.column is None else columns | {"column": answers.column.tolist()}


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the result. Results are saved after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="how many; default 10, for smoke 1")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--clips", type=int, help="clips a concept and a random set, other than the size's own")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--permutations", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--merge", nargs="+", type=Path, help="run nothing: join the JSON of runs with other seeds")
    parser.add_argument("--out", type=Path, help="JSON; default: benchmarks/results/truth.json (full size alone)")
    parser.add_argument("--check", action="store_true", help="a small run that fails on bad figures; writes nothing")
    options = parser.parse_args(arguments)
    if options.check:
        options.size, options.worlds, options.permutations = "smoke", ["motion", "untrained"], FOR_COMPARISON
    torch.set_num_threads(options.threads)
    _commit()  # now: the files may be edited while this runs
    count = options.seeds or SEEDS[options.size]
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
        pools = _pools(seed, sizes, options.worlds)
        for world in options.worlds:
            runs.append(one_run(world, seed, pools, sizes, options.permutations))
            reported = {name: value for name, value in runs[-1].items() if name not in ("answers", "swaps", "moves")}
            print(
                reported | {f: [round(s["mean"], 2) for s in v] for f, v in runs[-1].get("swaps", {}).items()},
                flush=True,
            )
            if out is not None:  # after every network: a run that is stopped leaves what it has
                write(out, result(runs, sizes))
    print(markdown(runs))
    if options.check and (found := complaints(runs)):
        sys.exit("\n".join(found))


def _pools(seed: int, sizes: dict[str, int], worlds: Sequence[str]) -> dict[str, Pool]:
    wanted = {"train": sizes["train"], "classes": 240, "examples": int((sizes["sets"] + 10) * sizes["n"] * 1.05)}
    pools = {name: render(1000 * seed + 10 * i + 7, number) for i, (name, number) in enumerate(wanted.items())}
    if "together" in worlds:
        wanted["examples"] += 10 * sizes["n"]
        for i, name in enumerate(("classes", "examples")):
            number = -(-wanted[name] // 100) * 100  # the shares are exact
            pools[f"{name} together"] = render_together(1000 * seed + 10 * i + 507, number)
    return pools


def result(runs: list[dict[str, Any]], sizes: dict[str, int]) -> dict[str, Any]:
    """Return the result to store: figures by world, and every answer."""
    cells = [c for r in runs for c in cells_of(r)]
    return {
        "commit": _commit(),
        "size": sizes,
        "layers": [name for columns in COLUMNS.values() for name in columns],
        "networks": {world: sum(r["world"] == world and "answers" in r for r in runs) for world in WORLDS},
        "summary": {world: summary([c for c in cells if c["world"] == world]) for world in WORLDS},
        "runs": runs,
    }


@functools.cache
def _commit() -> str | None:
    """Return the commit of the code, with a + if files differ from it; None: not a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    found = subprocess.run([*git, "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


if __name__ == "__main__":
    main()
