"""Which checks of `vtcav faithful` tell true concepts from false ones, in worlds with planted answers?

    python benchmarks/faithful_truth.py                  seeds 1 and 2 of every world; about two minutes of a core each
    python benchmarks/faithful_truth.py --size smoke     1 network of `motion`, fewer clips; fails on bad figures
    python benchmarks/faithful_truth.py --merge A B      join the JSON of several runs
    python benchmarks/faithful_truth.py --summarise A    compute the areas of a JSON again

Worlds, networks, concepts, random sets and verdicts are those of `truth.py`. Each check runs as in the command
(`worlds/checks.py`), at its default sizes: 60 random directions, 8 clips per class. Each figure ranks the concepts of a
network; the area under ROC is the chance that a true one ranks above a false one (`worlds/telling.py`, with the bar for
"tells", which was written before any result). A layer has three columns (`mean`, `moving`, `still`): its figure is the
surest of them, as in `truth.py`.

Figures of a cell (layer, class, concept):

- **effect**, **effect within**, **patch**, **patch within**, **paper**, **captum**, **logits**: as in `truth.py`, by p,
  then by |z|, without the sign; **sign count**: the TCAV score and its p by round robin;
- **necessity p**: the fall of the class's logit without the concept's direction, ranked by its p, then by its z among
  random directions; **necessity z**, **necessity fall**: by z alone, by logits alone; **CAV p**, ...: along the mean
  logistic CAV;
- **real change**: the size of the logit's change under the concept's whole shift; **real change clear**: over the half
  width of its interval; **same sign**, **same sign at columns**: at one of the layer's columns, and at what
  share of them, its sign is that of first order;
- **shuffled whole**, **shuffled after ...**: |z| of the effect with shuffled weights. It should tell nothing.

Of a curve (layer, class, factor): erase both levels of one factor (or two concepts of random clips); **area beyond
random**: its mean; **area p**: rank among curves of random directions; **insertion area**. Of a pair (class, concept):
**first decisive**: how early the effect is significant, **decisive layers**: at how many columns. Of a concept:
**halves r**, **halves verdict**, **halves verdict, called**: correlation of effects, same verdict, same verdict where a
half calls.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import truth
from environment import RESULTS, write
from numpy.typing import NDArray
from worlds import checks, telling
from worlds.checks import ALL_COLUMNS, CLASSES, Asked
from worlds.figures import (
    COLUMN_OF,
    GROUPS,
    IN_CURVES,
    cell_figures,
    cells,
    concepts,
    curves,
    level_rows,
    order_rows,
    pairs,
)
from worlds.recipes import Answers, Sets
from worlds.recogniser import LAYERS, untrained
from worlds.scoring import CONCEPTS, VERDICTS, WORLDS

from vtcav_ray.faithful.effects import Tested

OUT = RESULTS / "faithful_truth.json"
# As in truth.py, and the checks' own sizes.
SIZES = {
    "full": truth.SIZES["full"] | {"clips": 8, "random_sets": 60, "permutations": 10_000, "recipes": 1},
    # Without the recipes, which `truth.py --check` runs, and with few erasures, which no limit is about.
    "smoke": truth.SIZES["smoke"] | {"clips": 2, "random_sets": 9, "permutations": 1000, "recipes": 0},
}
LEVELS = (None, "late", "middle", "early")  # of shuffled weights
LEAST_SMOKE, MOST_SMOKE = 0.8, 0.05  # area of `halves r`, and share of effects called with all weights shuffled


def one_network(world: str, seed: int, pools: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Train, run every check and every recipe. Return the figures, or the reason why there are none."""
    recogniser, report = truth._recogniser(world, seed, pools, sizes)
    if recogniser is None:
        return report
    asked = ask(world, seed, pools, sizes)
    ending = " together" if world == "together" else ""
    report["moves"] = truth._moves(recogniser, pools["train"], pools["classes" + ending], sizes)
    answers: dict[str, Answers] = {}
    if sizes["recipes"]:
        answers = truth._answers(
            recogniser, asked.pool, list(asked.own), asked.sets, seed, sizes["permutations"], sizes["patched"]
        )
    found = checks.measured(recogniser, asked)
    effects = checks.run_effects(found, asked)
    counts = checks.sign_counts(recogniser, found, asked)
    orders = orders_of(world, effects, counts, answers.get("paper"), np.random.default_rng([seed, 9]))
    erased = checks.erased(recogniser, found, asked, orders)
    shuffled = checks.with_shuffled_weights(lambda: checks.copied(recogniser, untrained(seed)), found, asked, LEVELS)
    by_column = cell_figures(erased, counts, shuffled)
    report["cells"] = cells(report, answers, by_column)
    report["curves"] = curves(world, erased)
    report["pairs"] = pairs(world, effects)
    report["concepts"] = concepts(world, checks.split_halves(found, asked))
    report["orders"] = order_rows(world, erased, orders)
    report["levels"] = level_rows(effects, shuffled)
    return report


def ask(world: str, seed: int, pools: dict[str, Any], sizes: dict[str, int]) -> Asked:
    """Draw the clips of a network as `truth.py` does."""
    ending = " together" if world == "together" else ""
    examples, explained = pools["examples" + ending], pools["classes" + ending]
    rng = np.random.default_rng([seed, 4])
    drawn, randoms = truth._sets(examples, sizes["n"] * (2 if ending else 1), sizes, rng)
    held_rows, held_labels = truth.labels(world, explained)
    rows = [rng.permutation(np.unique(held_rows[held_labels == k]))[: sizes["videos"]] for k in (0, 1)]
    used = np.concatenate((*drawn.values(), *randoms))
    place = {row: i for i, row in enumerate(used)}
    of_concepts, of_randoms = (
        np.array([[place[row] for row in one] for one in some]) for some in (drawn.values(), randoms)
    )
    labels = None if examples.labels is None else examples.labels[used]
    own = [explained.clips[one] for one in rows]
    half = -(-sizes["videos"] // 2)
    return Asked(
        concepts=tuple(drawn),
        sets=Sets(of_concepts, of_randoms, labels),
        pool=examples.clips[used],
        own=own,
        reference=truth._reference(own, sizes["videos"]),
        reference_classes=np.repeat([0, 1], [half, sizes["videos"] - half]),
        clips=sizes["clips"],
        random_sets=sizes["random_sets"],
        permutations=sizes["permutations"],
        seed=seed,
    )


def orders_of(
    world: str,
    effects: Sequence[Tested],
    counts: tuple[NDArray[Any], NDArray[Any]],
    paper: Answers | None,
    rng: np.random.Generator,
) -> dict[str, dict[tuple[str, str], list[str]]]:
    """Return the orders of curves: each factor alone, and the first concepts by each way of ranking."""
    size = {(one.class_, one.layer, one.concept): abs(one.z) for one in effects}
    out: dict[str, dict[tuple[str, str], list[str]]] = {}
    everywhere = [(name, column) for name in CLASSES for column in ALL_COLUMNS]
    for group, names in GROUPS.items():
        out[group] = {at: [f"{name}/{checks.KIND}" for name in names] for at in everywhere}
    true = [name for name in CONCEPTS if name in VERDICTS[world]]
    false = [name for name in CONCEPTS if name not in true]
    half = IN_CURVES // 2
    scores, ps = counts
    ways: dict[str, Callable[[str, str], Sequence[str]]] = {
        "effect": lambda name, column: _first([(-size[name, column, f"{one}/{checks.KIND}"],) for one in CONCEPTS]),
        "sign count": lambda name, column: _first(
            _by_p((scores - 0.5, ps), ALL_COLUMNS.index(column), CLASSES.index(name))
        ),
        "random": lambda *_: list(rng.permutation(np.array(CONCEPTS))[:IN_CURVES]),
    }
    if paper is not None:
        ranked = (paper.z, paper.p)
        ways["paper"] = lambda name, column: _first(_by_p(ranked, LAYERS.index(COLUMN_OF[column]), CLASSES.index(name)))
    if true:
        ways["truth"] = lambda *_: [*rng.permutation(np.array(true))[:half], *rng.permutation(np.array(false))[:half]]
    for way, order in ways.items():
        out[f"by {way}"] = {at: [f"{name}/{checks.KIND}" for name in order(*at)] for at in everywhere}
    return out


def _by_p(ranked: tuple[NDArray[Any], NDArray[Any]], layer: int, k: int) -> list[tuple[float, ...]]:
    sizes, ps = (one[layer, k] for one in ranked)
    return [(float(p), -abs(float(size))) for size, p in zip(sizes, ps, strict=True)]


def _first(keys: Sequence[tuple[float, ...]]) -> list[str]:
    return [CONCEPTS[j] for j in sorted(range(len(CONCEPTS)), key=lambda j: keys[j])][:IN_CURVES]


def result(runs: list[dict[str, Any]], sizes: dict[str, int]) -> dict[str, Any]:
    """Return the result to store."""
    return {
        "commit": truth._commit(),
        "size": sizes,
        "networks": {world: sum(r["world"] == world and "cells" in r for r in runs) for world in WORLDS},
        "summary": telling.summary(runs),
        "orders": telling.orders([run for run in runs if run["world"] != "untrained"]),
        "levels": telling.levels(runs),
        "runs": runs,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the result. Results are saved after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, help="default 1, for smoke 0")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--worlds", nargs="+", choices=telling.TRAINED, default=list(telling.TRAINED))
    parser.add_argument("--merge", "--summarise", nargs="+", type=Path, help="run nothing: join the JSON of runs")
    parser.add_argument("--out", type=Path, help=f"JSON; default: {OUT.name} (full size alone)")
    options = parser.parse_args(arguments)
    sizes = SIZES[options.size]
    if options.merge:
        runs = [r for path in options.merge for r in json.loads(path.read_text(encoding="utf-8"))["runs"]]
        found = result(runs, sizes)
        write(options.out or OUT, found)
        print(telling.markdown(found))
        return
    smoke = options.size == "smoke"
    torch.set_num_threads(1)
    worlds, seeds = (["motion"], 1) if smoke else (options.worlds, options.seeds)
    first = (0 if smoke else 1) if options.first_seed is None else options.first_seed
    out = options.out or (None if smoke else OUT)
    runs = []
    for seed in range(first, first + seeds):
        pools = truth._pools(seed, sizes, worlds)
        for world in worlds:
            runs.append(one_network(world, seed, pools, sizes))
            print(world, seed, runs[-1].get("not_scored", "scored"), flush=True)
            if out is not None:
                write(out, result(runs, sizes))
    found = result(runs, sizes)
    print(telling.markdown(found))
    if smoke and (wrong := complaints(found)):
        sys.exit("\n".join(wrong))


def complaints(found: dict[str, Any]) -> list[str]:
    """Return what is wrong with a smoke run; empty: all is well."""
    if not found["networks"]["motion"]:
        return [f"faithful_truth: {found['runs'][0]['not_scored']}"]
    area, shuffled = found["summary"]["halves r"]["all"]["auc"], found["levels"]["whole"]
    wrong = [] if area >= LEAST_SMOKE else [f"faithful_truth: area of `halves r` {area}, under {LEAST_SMOKE}"]
    if shuffled["called"] > MOST_SMOKE * shuffled["cells"]:
        wrong.append(
            f"faithful_truth: {shuffled['called']} of {shuffled['cells']} effects called with shuffled weights"
        )
    return wrong


if __name__ == "__main__":
    main()
