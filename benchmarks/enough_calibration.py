"""Calibration of `videos.enough`: true nulls that are rejected, with sets from a search and from the whole corpus.

    python benchmarks/enough_calibration.py          all corpora, about three minutes of one core
    python benchmarks/enough_calibration.py even     one of them

The search is the real one (`vtcav_ray.clips.search`). What videos show is drawn, and sets are chosen as the planner
chooses them (`tests/benchmarks/test_enough_calibration.py` compares the two). 20 concept and 100 random clips of a
corpus of 20 labels with 150 videos each, of which 6 % show the concept: `even`, with the same rate in every label;
`mild` and `fitted`, with rates from a beta distribution whose concentration is the largest and the median of
`enough_fitted.json` (5.7 and 1.4; the smaller, the fewer labels have the concept).

A cell is one concept effect. Vectors never depend on the concept. A share of their variance belongs to their label: 0,
0.3 or 0.8. If that share is 0, cells are exchangeable, and 5 % must be rejected. Every search (with its own corpus) has
several cells with independent vectors and gradients; intervals are from a bootstrap over searches.

`label_distance` is the squared distance between the two sets' shares of labels, relative to its expectation for sets
drawn by chance (`vtcav_ray.clips.enough.is_clumped`). The label's part of the variance of a difference of means is
proportional to it: above 1, a permutation test rejects too often; below 1, too seldom.

Ways to choose the sets:
    whole corpus              as without `videos.enough`
    whole corpus, no turns    the same, but labels do not take turns: clips are drawn from all videos
    search                    `videos.enough`
    search by number          the same, but only the number of candidates counts, not their labels
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from enough import Clock, Drawn, config_of, listed
from enough_fit import FITTED
from environment import RESULTS, read, write

from vtcav_ray.clips import enough as rule
from vtcav_ray.clips.candidates import FACTOR, Candidates
from vtcav_ray.clips.classes import draw, in_turn, plan_classes
from vtcav_ray.clips.enough import Look
from vtcav_ray.config import Config
from vtcav_ray.tcav import concept_effects

LABELS, OF_LABEL, SHARE = 20, 150, 0.06
SETTINGS = {"per_concept": 20, "random_pool": 100, "per_class": 5, "min_per_class": 5}
ROUND = 128
LABEL_VARIANCE = (0.0, 0.3, 0.8)
DIM, CLASS_VIDEOS, PERMUTATIONS, ALPHA = 4, 8, 999, 0.05
WAYS = ("whole corpus", "whole corpus, no turns", "search", "search by number")


@dataclass(frozen=True)
class Corpus:
    """A corpus of one search: which videos show the concept.

    Attributes:
        config: its seed is the corpus's.
        counts: label -> number of videos.
        showing: the videos that show the concept.
    """

    config: Config
    counts: Mapping[str, int]
    showing: frozenset[str]

    @classmethod
    def drawn(cls, seed: int, concentration: float | None) -> Corpus:
        """Draw a corpus. `concentration` is of the labels' rates; None: all labels have the same rate."""
        rng = np.random.default_rng([seed, 1])
        rates = np.full(LABELS, SHARE)
        if concentration is not None:
            rates = rng.beta(SHARE * concentration, (1 - SHARE) * concentration, LABELS)
        counts = {f"label {i:02d}": OF_LABEL for i in range(LABELS)}
        rate_of = dict(zip(counts, rates, strict=True))
        ids = listed(counts)["video_id"].to_pylist()
        showing = frozenset(v for v in ids if draw(seed, "null", v) < rate_of[label_of(v)])
        config = config_of(seed, ["null"], **SETTINGS)
        videos = config.videos.model_copy(update={"round": ROUND})
        return cls(config.model_copy(update={"videos": videos}), counts, showing)

    def shows(self, video: str, _: str) -> tuple[frozenset[str], bool, bool]:
        return frozenset({"null"} if video in self.showing else ()), True, True

    def all_looks(self) -> dict[str, Look]:
        """Return what every video shows."""
        ids = listed(self.counts)["video_id"].to_pylist()
        return {video: Look(label_of(video), *self.shows(video, "")[:2]) for video in ids}

    def searched(self) -> Drawn:
        """Return a search that has ended."""
        search = Drawn(self.config, listed(self.counts), None)
        search.shows = self.shows
        Clock(1, self.config.seed).run(search)
        return search


def label_of(video: str) -> str:
    return video.rpartition("/")[0]


def ordered(looks: Mapping[str, Look], priority: Mapping[str, float], turns: bool) -> list[str]:
    """Return videos by priority, as the planner does, or without turns of the labels."""
    return in_turn(priority, {video: looks[video].label if turns else "" for video in priority})


def chosen(
    looks: Mapping[str, Look], config: Config, corpus_videos: int, *, reserve: bool, turns: bool = True
) -> tuple[list[str], list[str]]:
    """Return the concept's and the random videos, as `vtcav_ray.clips.select` chooses them.

    Args:
        looks: of the videos that can be used.
        config: with one concept, `null`.
        corpus_videos: number of videos of the corpus.
        reserve: random clips come from reserved videos, and concepts do not.
        turns: whether labels take turns.
    """
    clips, seed = config.clips, config.seed
    rows = [(video, video, look.label) for video, look in looks.items() if look.usable]
    examples = plan_classes(rows, clips, seed, None, corpus_videos).examples
    taken = {video for ids in examples.values() for video in ids}
    free = [video for video, look in sorted(looks.items()) if look.usable and video not in taken]
    found = Candidates(FACTOR * clips.per_concept, "concept/null", seed)
    for video in free:
        if looks[video].concepts and not (reserve and looks[video].reserved):
            found.add(video, list)
    concept = ordered(looks, {v: hash_ for v, (hash_, _) in found.kept.items()}, turns)[: clips.per_concept]
    left = [v for v in free if v not in set(concept) and looks[v].moving]
    order = []
    for part in (True, False):
        priority = {v: draw(seed, "random", v) for v in left if (reserve and looks[v].reserved) is part}
        order += ordered(looks, priority, turns)
    return concept, order[: clips.random_pool]


@contextmanager
def by_number() -> Iterator[None]:
    """Let a search count candidates alone, whatever their labels."""
    with mock.patch.object(rule, "is_clumped", return_value=False):
        yield


def sets_of(corpus: Corpus) -> Iterator[tuple[str, int, list[str], list[str]]]:
    """Yield (way, number of videos that were looked at, concept's videos, random videos)."""
    whole = corpus.all_looks()
    for way in WAYS:
        if way.startswith("whole"):
            sets = chosen(whole, corpus.config, len(whole), reserve=False, turns="no turns" not in way)
            yield way, len(whole), *sets
            continue
        if way == "search":
            search = corpus.searched()
        else:
            with by_number():
                search = corpus.searched()
        yield way, search.looked, *chosen(search.looks, corpus.config, len(whole), reserve=search.ended == "full")


def label_distance(concept: Sequence[str], random: Sequence[str]) -> float:
    """Return the squared distance of the sets' shares of labels, relative to its expectation for sets by chance."""
    n, m = len(concept), len(random)
    one, other = (Counter(map(label_of, videos)) for videos in (concept, random))
    labels = one.keys() | other.keys()
    squares = sum((one[label] / n - other[label] / m) ** 2 for label in labels)
    same = sum(((one[label] + other[label]) / (n + m)) ** 2 for label in labels)
    # Of n + m given videos, dealt without replacement.
    return squares / ((1 / n + 1 / m) * (1 - same) * (n + m) / (n + m - 1))


def rejected(concept: Sequence[str], random: Sequence[str], share: float, cells: int, seed: int) -> float:
    """Return the share of cells with p <= 0.05: each has its own vectors and gradients.

    Args:
        share: of the vectors' variance that belongs to their label.
        cells: number of cells.
    """
    rng, videos = np.random.default_rng(seed), [*concept, *random]
    names = sorted(set(map(label_of, videos)))
    label_N = np.array([names.index(label_of(video)) for video in videos])
    # Each cell has its own DIM numbers of a vector, and its gradients are 0 in the others.
    pool_ND, gradients = np.zeros((len(videos), cells * DIM)), []
    for cell in range(cells):
        part = slice(cell * DIM, (cell + 1) * DIM)
        of_label = rng.normal(size=(len(names), DIM)) * np.sqrt(share)
        own = (rng.gamma(4.0, 0.5, size=(len(videos), DIM)) - 2.0) * np.sqrt(1 - share)
        pool_ND[:, part] = of_label[label_N] + own
        of_class = np.zeros((CLASS_VIDEOS, cells * DIM))
        of_class[:, part] = rng.normal(size=DIM) + rng.normal(size=(CLASS_VIDEOS, DIM)) * 0.5
        gradients.append(of_class)
    n = len(concept)
    rows = [np.arange(n)], [np.arange(n, len(videos))]
    found = concept_effects(gradients, pool_ND, *rows, permutations=PERMUTATIONS, bootstrap=2, seed=seed)
    return float(np.mean([found.cell(cell, 0).p <= ALPHA + 1e-12 for cell in range(cells)]))


def with_interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean over searches, with its 95 % interval from a bootstrap over searches."""
    rng, array = np.random.default_rng(0), np.asarray(values)
    means = rng.choice(array, (4000, len(array))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(array.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def calibration(searches: int, cells: int, seed: int, concentration: float | None) -> dict[str, Any]:
    """Return, for each way, the rates by the labels' share of the variance, the distance and the videos looked at."""
    values: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    for number in range(seed * 100_003, seed * 100_003 + searches):
        corpus = Corpus.drawn(number, concentration)
        for way, looked, concept, random in sets_of(corpus):
            of_way = values[way]
            of_way["looked_at"].append(looked)
            of_way["concept_clips"].append(len(concept))
            of_way["labels_of_concept"].append(len(set(map(label_of, concept))))
            of_way["label_distance"].append(label_distance(concept, random))
            of_way["random_clips_that_show_it"].append(float(np.mean([v in corpus.showing for v in random])))
            for place, share in enumerate(LABEL_VARIANCE):
                own = number * 10 + place  # the same vectors' seed for every way
                of_way[f"p<=0.05 at {share}"].append(rejected(concept, random, share, cells, own))
    return {way: {name: with_interval(some) for name, some in of_way.items()} for way, of_way in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", choices=("even", "mild", "fitted"))
    parser.add_argument("--searches", type=int, default=120)
    parser.add_argument("--cells", type=int, default=20, help="per search")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(FITTED.read_text(encoding="utf-8"))["concepts"]
    fitted = [float(row["concentration"]) for row in rows]
    result: dict[str, Any] = {}
    for name, concentration in (("even", None), ("mild", max(fitted)), ("fitted", median(fitted))):
        if args.corpus in (None, name):
            found = calibration(args.searches, args.cells, args.seed, concentration)
            facts = {"searches": args.searches, "cells_per_search": args.cells, "seed": args.seed}
            result[name] = {**facts, "concentration": concentration, **found}
            for way, figures in found.items():
                print(name, way, json.dumps(figures), flush=True)
    before = read(RESULTS / "enough.json")
    write(RESULTS / "enough.json", before | {"calibration": before.get("calibration", {}) | result})


if __name__ == "__main__":
    main()
