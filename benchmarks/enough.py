"""Simulate `videos.enough` on a Kinetics-400 of 240,000 videos: videos tracked, GPU hours, time.

    python benchmarks/enough.py                   about two minutes of one core
    python benchmarks/enough_calibration.py       whether its sets are as random as those of the whole corpus

The search itself is the real one (`vtcav_ray.clips.search`), with the real list of labels. What a video shows is drawn
instead of tracked, and a simulated clock runs the pool: rounds are chosen and ended as `vtcav_ray.engine.rounds` does
it, and shards that are running when the search ends cost their whole time.

What videos show is fitted to real clips (`enough_fit.py` writes `enough_fitted.json`): 39 labels of tennis strokes and
of gestures in colour and depth. Every label draws the rate of each concept from a beta distribution. Its concentration
is that of the five fitted concepts in turn; most concepts are then in few labels. Those five are in 54 % to 8 % of the
clips. To include rare ones, the 20 concepts of most searches have means from 30 % to 1 %, falling geometrically. A
label's share of videos with a span for a random clip is drawn from the fitted distribution, too.

Assumptions that are not measured: the 20 means; that Kinetics' labels differ as those of the real clips do; 250 to 950
videos of each label; 2 % of the videos can't be read; a GPU tracks one video in 0.22 s (`scaling.py projection`), and a
shard's time varies by a factor of up to 1.5.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from enough_fit import FITTED
from environment import RESULTS, read, write

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.enough import Look
from vtcav_ray.clips.search import Search
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.stage import Shard
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import VIDEOS

VIDEOS_IN_ALL = 240_000
SECONDS_A_VIDEO = 0.22  # of one GPU
CONCEPTS = 20
MOST, LEAST = 0.3, 0.01  # mean share of the videos that show the most and the least frequent concept
READABLE = 0.98
AHEAD = 2
NOWHERE = StageFolder("tracks", "none", Folder("memory://none"))
Shows = Callable[[str, str], tuple[frozenset[str], bool, bool]]  # (video, label) -> concepts, moving, usable


class Drawn(Search):
    """A search in which the content of a video is drawn instead of tracked."""

    shows: Shows

    def look(self, output: StageFolder, shard: Shard) -> None:
        for video in shard.rows["video_id"].to_pylist():
            label = self._label[video]
            concepts, moving, usable = self.shows(video, label)
            self.looks[video] = Look(label, concepts, moving, video in self._reserved, usable)


@dataclass
class Clock:
    """A simulated pool: `actors` work on shards in order, one at a time each.

    Attributes:
        now: seconds since the first shard began.
        worked: seconds of all actors.
        idle: seconds that actors waited while the search went on.
    """

    actors: int
    seed: int
    now: float = 0.0
    worked: float = 0.0
    idle: float = 0.0

    def seconds(self, shard: Shard) -> float:
        return SECONDS_A_VIDEO * shard.rows.num_rows * (0.75 + 0.75 * draw(self.seed, "time", shard.name))

    def run(self, search: Search) -> None:
        """Run the search as the engine does, and stop when it ends; running shards are finished."""
        rounds, free = [search.choose() for _ in range(AHEAD)], [0.0] * self.actors
        waiting = [shard for shards in rounds for shard in shards]
        running: list[tuple[float, str]] = []
        done: set[str] = set()
        ended = 0
        while True:
            while waiting and free:
                begun = heapq.heappop(free)
                self.idle += max(0.0, self.now - begun)
                shard = waiting.pop(0)
                seconds = self.seconds(shard)
                self.worked += seconds
                heapq.heappush(running, (max(begun, self.now) + seconds, shard.name))
            self.now, name = heapq.heappop(running)
            heapq.heappush(free, self.now)
            done.add(name)
            while ended < len(rounds) and all(shard.name in done for shard in rounds[ended]):
                for shard in rounds[ended]:
                    search.look(NOWHERE, shard)
                ended += 1
                if search.end_round(NOWHERE):
                    self.now = max([self.now, *(end for end, _ in running)])
                    return
                if following := search.choose():
                    rounds.append(following)
                    waiting += following


def labels_of_kinetics() -> list[str]:
    return Path(resolve_asset("asset:kinetics400.txt")).read_text(encoding="utf-8").split("\n")[:400]


def kinetics(seed: int) -> pa.Table:
    """Return the VIDEOS table of a simulated Kinetics-400."""
    rng, labels = np.random.default_rng(seed), labels_of_kinetics()
    share = rng.uniform(250, 950, len(labels))
    counts = np.floor(share / share.sum() * VIDEOS_IN_ALL).astype(int)
    counts[: VIDEOS_IN_ALL - counts.sum()] += 1
    return listed({label: int(count) for label, count in zip(labels, counts, strict=True)})


def listed(counts: Mapping[str, int]) -> pa.Table:
    ids = [f"{label}/{i:05d}.mp4" for label, count in counts.items() for i in range(count)]
    columns = {"video_id": ids, "uri": ids, "label": [video.rpartition("/")[0] for video in ids]}
    return pa.table({name: columns.get(name, pa.nulls(len(ids), VIDEOS.field(name).type)) for name in VIDEOS.names})


def contents(seed: int, concepts: int, labels: list[str], *, as_fitted: bool = False) -> Shows:
    """Return what videos show: concept `c0` is the most frequent one.

    Args:
        seed: of all draws.
        concepts: number of concepts.
        labels: of the corpus.
        as_fitted: take the fitted means, too, not only the concentrations.
    """
    fitted = json.loads(FITTED.read_text(encoding="utf-8"))
    rng, rows = np.random.default_rng([seed, 1]), fitted["concepts"]
    some = [rows[i % len(rows)] for i in range(concepts)]
    if not as_fitted:
        means = np.geomspace(MOST, LEAST, concepts).tolist()
        some = [{**row, "mean": mean} for row, mean in zip(some, means, strict=True)]
    rates = dict(zip(labels, np.column_stack([rates_of(row, len(labels), rng) for row in some]), strict=True))
    tracked = dict(zip(labels, rates_of(fitted["tracked"], len(labels), rng), strict=True))

    def shows(video: str, label: str) -> tuple[frozenset[str], bool, bool]:
        own = np.random.default_rng(int(draw(seed, "content", video) * 2**62))
        hit = own.random(concepts) < rates[label]
        usable, moving = own.random() < READABLE, own.random() < tracked[label]
        names = frozenset(f"c{i}" for i in np.flatnonzero(hit)) if usable else frozenset[str]()
        return names, usable and (moving or bool(names)), usable

    return shows


def rates_of(fitted: Mapping[str, float], labels: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the rates of a fitted concept in new labels, [labels]."""
    mean, concentration = fitted["mean"], fitted["concentration"]
    return rng.beta(mean * concentration, (1 - mean) * concentration, labels)


def config_of(seed: int, names: list[str], **clips: Any) -> Config:
    settings: dict[str, Any] = {
        "concepts": [{"name": name, "object": name, "kinds": ["spatial"]} for name in names],
        "quality": {"copy_distance": None},
        **clips,
    }
    return parse_config({"seed": seed, "videos": {"uri": "videos"}, "clips": settings})


def one_search(videos: pa.Table, config: Config, shows: Shows, actors: int) -> dict[str, Any]:
    search, clock = Drawn(config, videos, None), Clock(actors, config.seed)
    search.shows = shows
    clock.run(search)
    notes = search.notes()
    whole = videos.num_rows * SECONDS_A_VIDEO * 1.125 / 3600  # the mean of a shard's factor
    slowest = sorted(notes["sets"], key=lambda one: -one["looked_at"])
    return {
        "videos": notes["looked_at"],
        "of": notes["of"],
        "rounds": notes["rounds"],
        "ended": notes["ended"],
        "gpu_hours": round(clock.worked / 3600, 3),
        "gpu_hours_whole": round(whole, 3),
        "hours": round(clock.now / 3600, 4),
        "hours_whole": round(whole / actors, 4),
        "busy": round(clock.worked / (clock.now * actors), 3),
        "discarded_videos": round(clock.worked / SECONDS_A_VIDEO / 1.125) - notes["looked_at"],
        "last_sets": [one["set"] for one in slowest if one["set"].startswith("concept")][:3],
    }


def searches(seed: int) -> dict[str, Any]:
    """Run searches for all classes and for five, with 1, 8 and 64 GPUs."""
    videos, labels = kinetics(seed), labels_of_kinetics()
    fitted = len(json.loads(FITTED.read_text(encoding="utf-8"))["concepts"])
    five, large = labels[:5], {"round": 2048, "shard_videos": 16}
    found: dict[str, Any] = {}
    for title, classes, concepts, asked, actors, sizes in (
        ("5 classes, 20 concepts, 1 GPU", five, CONCEPTS, CONCEPTS, 1, {}),
        ("5 classes, 20 concepts, 8 GPUs", five, CONCEPTS, CONCEPTS, 8, {}),
        ("5 classes, 20 concepts, 64 GPUs, rounds of 2,048, shards of 16", five, CONCEPTS, CONCEPTS, 64, large),
        ("5 classes, the 10 most frequent concepts, 8 GPUs", five, CONCEPTS, CONCEPTS // 2, 8, {}),
        ("5 classes, the fitted concepts, 8 GPUs", five, fitted, fitted, 8, {}),
        ("400 classes, 20 concepts, 8 GPUs", None, CONCEPTS, CONCEPTS, 8, {}),
        ("400 classes, 20 concepts, 64 GPUs, rounds of 2,048, shards of 16", None, CONCEPTS, CONCEPTS, 64, large),
    ):
        shows = contents(seed, concepts, labels, as_fitted=concepts == fitted)
        config = config_of(seed, [f"c{i}" for i in range(asked)], **({"classes": classes} if classes else {}))
        if sizes:
            rounds = config.videos.model_copy(update={"round": sizes["round"]})
            config = config.model_copy(update={"videos": rounds, "shard_videos": sizes["shard_videos"]})
        found[title] = one_search(videos, config, shows, actors)
        print(title, found[title], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = searches(args.seed)
    write(RESULTS / "enough.json", read(RESULTS / "enough.json") | {"search": found})


if __name__ == "__main__":
    main()
