"""Check the concept effect's tests on cells with known truth: false positives, coverage, power.

    python benchmarks/calibration_effect.py                 every part, about ten minutes on one core
    python benchmarks/calibration_effect.py --part null     one part: null, spreads, skew, labels, pairs, coverage,
                                                             families or power
    python benchmarks/calibration_effect.py --cells 50      a quick look

A simulated cell is one column of projections: one number per source video, n of the concept and m of its random clips.
The tests are those of the stage `scores`: `effect_family`, and `holm_over_families` over the concepts. Rates come with
their 95 % interval (Clopper & Pearson). Results go to `results/calibration_effect.json`.

The parts `null`, `families` and `power` also use real projections: those of the quickstart's motion concepts and random
clips (`results/planted_projections.npz`; `dump_projections.py` makes it).

Legend: n, m source videos, C cells (columns), F families (concepts) of a run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from null_cells import Array, rate

from vtcav_ray.tcav import adjust, concept_effect, effect_family, holm_over_families, paired_effect_family
from vtcav_ray.tcav.family import EffectFamily

RESULTS = Path(__file__).parent / "results"
PROJECTIONS = RESULTS / "planted_projections.npz"
ALPHA = 0.05
PERMUTATIONS = 1999  # of single cells; p is valid at any number
RUN_PERMUTATIONS = 9999  # of whole runs, where p must fall below alpha over the number of families
_COLUMNS = 250  # cells that share their arrangements
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]  # (rng, (videos, cells)) -> projections
Report = dict[str, Any]


def _mixture(rng: np.random.Generator, size: tuple[int, int], share: float = 0.25) -> Array:
    """Draw videos of which a share shows something that raises the logit by four spreads."""
    return rng.normal(size=size) + 4.0 * (rng.random(size) < share)


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "t, 3 degrees of freedom": lambda rng, size: rng.standard_t(3, size=size),
    "log-normal, sigma 1": lambda rng, size: rng.lognormal(size=size),
    "a quarter of the pool 4 spreads higher": _mixture,
}


def simulated(
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]],
    cells: int,
    seed: int,
    strata: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Test simulated cells, and return `p`, `p_symmetric`, `spread_ratio` and `p_within` of each: [cells].

    Args:
        draw: (rng, C) -> projections of the concept, [n, C], and of the random videos, [m, C].
        cells: number of cells.
        seed: of all draws.
        strata: label of each of the n + m videos.
    """
    found: list[EffectFamily] = []
    for start in range(0, cells, _COLUMNS):
        rng = np.random.default_rng([seed, start])
        concept, random = draw(rng, min(_COLUMNS, cells - start))
        family = effect_family(concept, random, strata=strata, permutations=PERMUTATIONS, seed=seed + start)
        found.append(family)
    names = ("p", "p_symmetric", "spread_ratio", "p_within")
    return {name: np.concatenate([getattr(family, name) for family in found]) for name in names}


def rejections(p: Array, alpha: float = ALPHA) -> Report:
    return rate(p <= alpha + 1e-12)


def sizes() -> Iterator[tuple[int, int]]:
    """Yield (n, m): as many random videos as the concept has, and ten times as many, the default's proportion."""
    for n in (10, 20, 30):
        yield n, n
        yield n, 10 * n


def null(cells: int, seed: int) -> Report:
    """Concept and random videos from the same distribution. Target: at most 5 %."""
    found: Report = {}
    for name, one in DISTRIBUTIONS.items():
        for n, m in sizes():
            got = simulated(lambda rng, c, one=one, n=n, m=m: (one(rng, (n, c)), one(rng, (m, c))), cells, seed)
            found[f"{name}, {n} and {m} videos"] = {"equal tails": rejections(got["p"])}
    planted = Planted.read()
    for n in (10, 20):

        def split(rng: np.random.Generator, c: int, n: int = n) -> tuple[Array, Array]:
            columns = planted.random[:, rng.integers(planted.random.shape[1], size=c)]
            mixed = rng.permuted(columns, axis=0)
            return mixed[:n], mixed[n:]

        got = simulated(split, cells, seed)
        found[f"real projections, {n} and {len(planted.random) - n} videos"] = {"equal tails": rejections(got["p"])}
    return found


def spreads(cells: int, seed: int) -> Report:
    """Equal means, and a concept that is wider or narrower than its random videos: not the null of a permutation test.

    The statistic's own standard error corrects for it with many videos. Reported: both kinds of tails.
    """
    found: Report = {}
    for name in ("normal", "exponential"):
        one, mean = DISTRIBUTIONS[name], 1.0 if name == "exponential" else 0.0
        for width in (0.25, 0.5, 2.0, 4.0):
            for n, m in sizes():

                def draw(
                    rng: np.random.Generator,
                    c: int,
                    one: Draw = one,
                    mean: float = mean,
                    width: float = width,
                    n: int = n,
                    m: int = m,
                ) -> tuple[Array, Array]:
                    return (one(rng, (n, c)) - mean) * width, one(rng, (m, c)) - mean

                got = simulated(draw, cells, seed)
                found[f"{name}, concept {width:g} times as wide, {n} and {m} videos"] = {
                    "equal tails": rejections(got["p"]),
                    "size of t": rejections(got["p_symmetric"]),
                    "marked": rate(got["spread_ratio"] > 2),
                }
    return found


def skew(cells: int, seed: int) -> Report:
    """Power where a quarter of the pool shows what raises the logit, and more, or none, of the concept's videos do.

    The pool's long upper tail gives the null of t a long LOWER tail: sets that got none of the high videos have a low
    mean and a small spread. The size of t counts it against positive effects; equal tails do not.
    """
    found: Report = {}
    for title, share in (("half of the concept's videos show it", 0.5), ("none of the concept's videos show it", 0.0)):
        for n, m in ((10, 100), (20, 200), (30, 300)):

            def draw(
                rng: np.random.Generator, c: int, share: float = share, n: int = n, m: int = m
            ) -> tuple[Array, Array]:
                return _mixture(rng, (n, c), share), _mixture(rng, (m, c))

            got = simulated(draw, cells, seed)
            found[f"{title}, {n} and {m} videos"] = {
                f"{name}, alpha {alpha}": rejections(got[column], alpha)
                for alpha in (0.05, 0.005)
                for name, column in (("equal tails", "p"), ("size of t", "p_symmetric"))
            }
    return found


def labels(cells: int, seed: int) -> Report:
    """Four labels whose videos differ by several spreads. Nothing beyond the label, or 3 standard errors beyond it."""
    level = np.array([6.0, 0.0, -3.0, -3.0])
    found: Report = {}
    for composition in ((16, 2, 1, 1), (8, 6, 4, 2), (5, 5, 5, 5)):
        for each in (5, 50):
            of_concept, of_random = np.repeat(np.arange(4), composition), np.repeat(np.arange(4), each)
            weights = np.array(composition) / 20
            error = np.sqrt((weights**2 * (1 / np.array(composition) + 1 / each)).sum())
            strata = [str(label) for label in (*of_concept, *of_random)]
            for shift in (0.0, 3.0):

                def draw(
                    rng: np.random.Generator,
                    c: int,
                    left: Array = level[of_concept],
                    right: Array = level[of_random],
                    added: float = shift * error,
                ) -> tuple[Array, Array]:
                    noise = rng.normal(size=(len(left) + len(right), c))
                    return noise[: len(left)] + left[:, None] + added, noise[len(left) :] + right[:, None]

                got = simulated(draw, cells, seed, strata)
                title = f"concept {'/'.join(map(str, composition))}, random {each} of each label, shift {shift:g}"
                found[title] = {"p": rejections(got["p"]), "p_within": rejections(got["p_within"])}
    return found


def coverage(cells: int, seed: int) -> Report:
    """Coverage of the effect's 95 % interval where labels differ by several spreads: drawn at random, or by design.

    The interval resamples videos with their labels, so it answers for new draws in which the labels vary, too. If the
    labels' numbers are fixed by design, it is too wide.
    """
    level, shift = np.array([6.0, 0.0, -3.0, -3.0]), 1.0
    found: Report = {}
    for composition in ((16, 2, 1, 1), (5, 5, 5, 5)):
        shares = np.array(composition) / 20
        truth = shares @ level + shift - level.mean()
        for title, drawn in (("drawn at random", True), ("by design", False)):
            hits = []
            for number in range(cells):
                rng = np.random.default_rng([seed, number])
                of_concept = rng.choice(4, 20, p=shares) if drawn else np.repeat(np.arange(4), composition)
                of_random = rng.choice(4, 200) if drawn else np.repeat(np.arange(4), 50)
                own, other = (rng.normal(size=len(of)) + level[of] for of in (of_concept, of_random))
                gradients = rng.normal(1.0, 0.2, size=(25, 1))  # of 25 class videos; their mean is 1
                one = concept_effect(
                    gradients, own[:, None] + shift, other[:, None], permutations=1, bootstrap=2000, seed=number
                )
                hits.append(one.ci_low <= truth <= one.ci_high)
            found[f"labels {'/'.join(map(str, composition))} and even, {title}"] = {"effect": rate(np.array(hits))}
    return found


def pairs(cells: int, seed: int) -> Report:
    """Differences between twins whose mean is 0: symmetric, which is the null, and strongly skewed, which is not."""
    found: Report = {}
    for name, skewed in (("t with 2 degrees of freedom", False), ("log-normal, sigma 1, mean 0", True)):
        for n in (10, 20, 60):
            rng = np.random.default_rng([seed, n])
            d = rng.lognormal(size=(n, cells)) - np.exp(0.5) if skewed else rng.standard_t(2, size=(n, cells))
            got = paired_effect_family(d, permutations=PERMUTATIONS, seed=seed)
            found[f"{name}, {n} pairs"] = {"equal tails": rejections(got.p), "size of t": rejections(got.p_symmetric)}
    return found


@dataclass(frozen=True)
class Planted:
    """The quickstart's projections.

    Attributes:
        random: of the random clips, [200, C].
        concepts: name -> projections of its clips, [20, C].
        cells: (class, layer) of each column.
    """

    random: Array
    concepts: dict[str, Array]
    cells: list[tuple[str, str]]

    @classmethod
    def read(cls) -> Planted:
        stored = np.load(PROJECTIONS, allow_pickle=False)
        names, values = stored["names"], stored["projections"].astype(np.float64)
        concepts = {str(one): values[names == one] for one in np.unique(names) if not one.startswith("random/")}
        cells = [tuple(str(cell).split("\t")) for cell in stored["cells"]]
        return cls(values[[name.startswith("random/") for name in names]], concepts, cells)  # type: ignore[arg-type]

    def own_cells(self, concept: str) -> Array:
        """Mark the class that the motion defines, at the layers where its effect is large: [C]."""
        own = {"moving up": "lift", "moving down": "put_down", "moving left": "push_left", "moving right": "push_right"}
        return np.array([name == own[concept] and layer != "early" for name, layer in self.cells])


@dataclass(frozen=True)
class RunErrors:
    """What three corrections call in one run: numbers of wrong and of right cells.

    `smallest`: the smallest step-down p of each family in which no cell has an effect.
    """

    wrong: dict[str, int]
    right: dict[str, int]
    smallest: list[float]


def one_run(planted: Planted, n: int, real: bool, seed: int) -> RunErrors:
    """Simulate a run of eight concepts with 16 cells each, which share 200 random clips.

    All projections are drawn from the quickstart's random clips, so cells depend on each other as real ones do. With
    `real`, four concepts get their measured effect in the cells of their own class at middle, late and head (12 cells);
    all other cells have none.
    """
    rng = np.random.default_rng([seed, n])
    random = planted.random[rng.integers(len(planted.random), size=200)]
    families, truths = [], []
    for concept in [*planted.concepts, *[None] * 4]:
        own = planted.random[rng.integers(len(planted.random), size=n)]
        truth = np.zeros(len(planted.cells), bool)
        if concept is not None and real:
            truth = planted.own_cells(concept)
            shift = planted.concepts[concept].mean(axis=0) - planted.random.mean(axis=0)
            own = own + np.where(truth, shift, 0.0)
        families.append(effect_family(own, random, permutations=RUN_PERMUTATIONS, seed=seed))
        truths.append(truth)
    true = np.concatenate(truths)
    q = {
        "step-down, equal tails": np.concatenate(holm_over_families([one.p_adjusted for one in families])),
        "Holm over all cells, equal tails": adjust(np.concatenate([one.p for one in families])),
        "Holm over all cells, size of t": adjust(np.concatenate([one.p_symmetric for one in families])),
    }
    called = {name: values <= ALPHA + 1e-12 for name, values in q.items()}
    return RunErrors(
        {name: int((one & ~true).sum()) for name, one in called.items()},
        {name: int((one & true).sum()) for name, one in called.items()},
        [float(one.p_adjusted.min()) for one, truth in zip(families, truths, strict=True) if not truth.any()],
    )


def families(runs: int, seed: int) -> Report:
    """Family-wise error and power of whole runs with real projections. Target: a wrong cell in at most 5 % of runs."""
    planted, found = Planted.read(), {}
    for start, (title, real) in enumerate((("global null", False), ("12 true cells", True))):
        first = seed + 1_000_000 * start  # other draws: else both would make the same errors
        got = [one_run(planted, 20, real, first + number) for number in range(runs)]
        found[title] = {
            name: {
                "family-wise error": rate(np.array([one.wrong[name] > 0 for one in got])),
                "true cells called, mean": float(np.mean([one.right[name] for one in got])),
            }
            for name in got[0].wrong
        }
        found[title]["step-down, equal tails"]["null families with a cell at 0.05"] = rejections(
            np.concatenate([one.smallest for one in got])
        )
    return found


def power(cells: int, seed: int) -> Report:
    """Power against the number of concept videos n, with 200 random ones; and the 12 true cells of a whole run."""
    found: Report = {}
    for n in (5, 10, 20, 30, 50):
        row: Report = {}
        for shift in (0.5, 0.8, 1.2):

            def draw(rng: np.random.Generator, c: int, n: int = n, shift: float = shift) -> tuple[Array, Array]:
                return rng.normal(size=(n, c)) + shift, rng.normal(size=(200, c))

            got = simulated(draw, cells, seed)
            row |= {f"shift {shift} spreads, alpha {alpha}": rejections(got["p"], alpha) for alpha in (0.05, 0.005)}
        found[f"normal, n = {n}"] = row
    planted = Planted.read()
    for n in (5, 10, 15, 20, 30, 50):
        runs = [one_run(planted, n, True, seed + number) for number in range(max(1, cells // 20))]
        found[f"real projections, n = {n}"] = {
            name: float(np.mean([one.right[name] for one in runs])) for name in runs[0].right
        }
    return found


PARTS: dict[str, Callable[[int, int], Report]] = {
    "null": null,
    "spreads": spreads,
    "skew": skew,
    "labels": labels,
    "pairs": pairs,
    "coverage": lambda cells, seed: coverage(max(1, cells // 2), seed),
    "families": lambda cells, seed: families(max(1, cells // 2), seed),
    "power": power,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, print and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=list(PARTS), action="append", help="may be repeated; default: all")
    parser.add_argument(
        "--cells", type=int, default=2000, help="simulated cells per setting; half as many intervals and whole runs"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "calibration_effect.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report: Report = json.loads(options.out.read_text()) if options.part and options.out.exists() else {}
    for name in options.part or PARTS:
        started = time.perf_counter()
        report[name] = PARTS[name](options.cells, options.seed)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        print(json.dumps(report[name], indent=1), flush=True)
        report.setdefault("settings", {})[name] = {"cells": options.cells, "seed": options.seed}
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
