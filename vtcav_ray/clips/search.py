"""The search of `videos.enough`: rounds of videos in, counts of the sets out, until every set is full.

`vtcav_ray.clips.enough` has the rule. This module applies it to a list of videos and to the shards of the stage
`tracks`. `vtcav_ray.engine.rounds` runs the shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.clips.classes import plan_classes
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.enough import (
    CLASS,
    ROUND,
    Asked,
    Drawn,
    Look,
    Order,
    SetCount,
    all_full,
    count_sets,
    needs,
    reserved,
)
from vtcav_ray.clips.offers import offers_of
from vtcav_ray.clips.spans import with_times
from vtcav_ray.config import Config
from vtcav_ray.runs.stage import Shard, make_shards, shard_size
from vtcav_ray.store.commits import StageFolder

FULL, EXHAUSTED, LIMIT = "full", "exhausted", "limit"  # why a search ended


def round_size(config: Config) -> int:
    """Return the number of videos of a round: a whole number of shards."""
    wanted = config.videos.round or ROUND
    size = shard_size(wanted, config.shard_videos)
    return -(-wanted // size) * size


@dataclass(frozen=True)
class Progress:
    """How a set was filled: after how many videos of how many that could have been looked at."""

    count: SetCount
    looked: int
    of: int

    def as_json(self) -> dict[str, Any]:
        count = self.count
        name = f"{count.kind}/{count.name}" if count.name else count.kind
        facts = {"set": name, "found": count.found, "wanted": count.wanted, "full": count.found >= count.wanted}
        return {**facts, "looked_at": self.looked, "of": self.of}


class Search:
    """The search in one corpus.

    Args:
        config: of the run.
        videos: VIDEOS table of the whole corpus.
        class_names: the model's classes; None: only the checkpoint has them.
        own_sources: source videos of a person's own clips, which give no other clips.

    Attributes:
        size: videos per shard.
        looks: source video -> what it could give, of the rounds that were seen.
        ended: why the search ended: `full`, `exhausted` or `limit`; empty: it goes on.
    """

    def __init__(
        self, config: Config, videos: pa.Table, class_names: Sequence[str] | None, own_sources: Collection[str] = ()
    ) -> None:
        self.config, self.videos, self._class_names = config, videos, class_names
        self.size = shard_size(config.videos.round or ROUND, config.shard_videos)
        self.most = min(config.videos.limit or videos.num_rows, videos.num_rows)
        corpus = Corpus.of(videos).without(own_sources)
        self._listed = {row[0]: row for row in corpus.listed}
        classes = plan_classes(corpus.listed, config.clips, config.seed, class_names)
        self._label = {unit: classes.turn_of.get(unit, "") for unit in corpus.examples}
        self._in_corpus = Counter(self._label.values())
        self._files = self._places()
        sizes = {name: len(ids) for name, ids in classes.examples.items()}
        self.asked = _asked(config, sizes, len(self._in_corpus))
        self._order = Order.of(self._label, config.seed)
        self._drawn: list[Drawn] = []
        self._rows: list[int] = []  # of `videos`, in the order of the rounds
        self._ends: list[int] = []  # number of rows after each round
        self._reserved: set[str] = set()
        self._seen = 0  # rounds
        self._copies: set[str] = set()
        self._counts: list[SetCount] = []
        self._filled: dict[tuple[str, str], tuple[int, Counter[str]]] = {}
        self.looks: dict[str, Look] = {}
        self.ended = ""

    def _places(self) -> dict[str, list[int]]:
        """Return the rows of each source video's files."""
        found: dict[str, list[int]] = {}
        ids = self.videos["video_id"].to_pylist()
        sources = self.videos["source"].to_pylist() if "source" in self.videos.column_names else [None] * len(ids)
        for row, (video_id, source) in enumerate(zip(ids, sources, strict=True)):
            found.setdefault(source or video_id, []).append(row)
        return found

    def choose(self) -> list[Shard]:
        """Choose the next round from what was seen so far, and return its shards; none if no video is left."""
        begin = self._ends[-1] if self._ends else 0
        whole = begin + round_size(self.config)
        sets = needs(self.looks, self._counts, self._order.counts_left(), self.asked.labels)
        explore = not self._counts or any(not count.full for count in self._counts if count.kind != CLASS)
        while len(self._rows) < whole and len(self._order):
            for drawn in self._order.draw_round(whole - len(self._rows), sets, explore=explore):
                self._drawn.append(drawn)
                self._rows += self._files[drawn.video_id]
                if drawn.in_turn and reserved(self.config.seed, drawn.video_id):
                    self._reserved.add(drawn.video_id)
        # A limit cuts the last round off, so that a higher one adds videos and changes none.
        end = min(whole, self.most, len(self._rows))
        if end <= begin:
            return []
        self._ends.append(end)
        return _shards_of(self.videos, self._rows[:end], self.size, begin)

    def look(self, output: StageFolder, shard: Shard) -> None:
        """Note what the videos of a committed shard could give."""
        tables = {path.split("/", 1)[0]: path for path in output.shard_files(shard.name)}
        failures = output.read_file(tables["failures"], ["video_id", "error_kind"]) if "failures" in tables else None
        failed = set()
        if failures is not None:  # a video without one of its segments has others
            failed = set(failures.filter(pc.not_equal(failures["error_kind"], "segment"))["video_id"].to_pylist())
        segments = output.read_file(tables["segments"]) if "segments" in tables else None
        corpus = Corpus.of(shard.rows, failed, segments)
        tracks = output.read_file(tables["tracks"])
        if "times" in tables:
            tracks = with_times(tracks, output.read_file(tables["times"]))
        offers = offers_of(corpus, tracks, self.config.clips)
        for unit in Corpus.of(shard.rows).examples:
            if unit not in self._label:  # the source of an own clip
                continue
            before = self.looks.get(unit)
            look = Look(self._label[unit], reserved=unit in self._reserved, usable=unit in corpus.examples)
            if (offer := offers.get(unit)) is not None:
                look = replace(look, concepts=offer.concepts, moving=offer.moving)
            if before is not None:  # a source video of several files
                look = replace(
                    look,
                    concepts=look.concepts | before.concepts,
                    moving=look.moving or before.moving,
                    usable=look.usable or before.usable,
                )
            self.looks[unit] = look

    def end_round(self, output: StageFolder) -> bool:
        """Count the sets after a round whose shards were all looked at. Return whether the search has ended.

        Args:
            output: of the stage `tracks`, with the signatures by which copies are found.
        """
        self._seen += 1
        self._count()
        if all_full(self._counts) and self._find_copies(output):
            self._count()
        looked, of_label = self.looked, Counter(look.label for look in self.looks.values())
        for count in self._counts:
            key = (count.kind, count.name)
            if not count.full:
                self._filled.pop(key, None)
            else:
                self._filled.setdefault(key, (looked, of_label))
        if all_full(self._counts):
            self.ended = FULL
        elif looked >= self.most or (not len(self._order) and looked >= len(self._rows)):
            self.ended = EXHAUSTED if looked >= self.videos.num_rows else LIMIT
        return bool(self.ended)

    def _count(self) -> None:
        config, usable = self.config, [u for u, look in sorted(self.looks.items()) if look.usable]
        listed = [self._listed[unit] for unit in usable]
        examples = plan_classes(listed, config.clips, config.seed, self._class_names, len(self._label)).examples
        left = self._in_corpus - Counter(look.label for look in self.looks.values())
        self._counts = count_sets(self.looks, examples, left, self.asked)

    def _find_copies(self, output: StageFolder) -> bool:
        """Mark copies of other videos as unusable. Return whether there are any."""
        distance = self.config.clips.quality.copy_distance
        if distance is None:
            return False
        from vtcav_ray.tracks.copies import copies_among

        videos = self.looked_at()
        names = [shard.name for shard in self.shards_so_far()]
        parts = (output.read_file(path) for name in names if (path := _signatures(output, name)) is not None)
        unit_of = dict(zip(videos["video_id"].to_pylist(), _units(videos), strict=True))
        copies = {unit_of[video] for video in copies_among(videos, parts, distance)}
        for unit in copies & set(self.looks):
            self.looks[unit] = replace(self.looks[unit], usable=False)
        return bool(copies)

    @property
    def looked(self) -> int:
        """Number of files in the rounds that were seen."""
        return self._ends[self._seen - 1] if self._seen else 0

    def shards_so_far(self) -> list[Shard]:
        """Return the shards of the rounds that were seen."""
        return _shards_of(self.videos, self._rows[: self.looked], self.size, 0)

    def looked_at(self) -> pa.Table:
        """Return the VIDEOS table of the rounds that were seen, in their order.

        If every set is full, the column `reserved` marks the videos that are kept for random clips.
        """
        found = self.videos.take(pa.array(self._rows[: self.looked], pa.int64())).combine_chunks()
        if self.ended != FULL:
            return found
        return found.append_column("reserved", pa.array([unit in self._reserved for unit in _units(found)]))

    def notes(self) -> dict[str, Any]:
        """Return the facts for the manifest and run.json: how many videos of how many were looked at, by set."""
        of_label = Counter(look.label for look in self.looks.values())
        sets = []
        for count in self._counts:
            looked, labels = self._filled.get((count.kind, count.name), (self.looked, of_label))
            if count.kind == CLASS:
                sets.append(Progress(count, labels[count.name], self._in_corpus[count.name]).as_json())
            else:
                sets.append(Progress(count, looked, self.videos.num_rows).as_json())
        return {
            "looked_at": self.looked,
            "of": self.videos.num_rows,
            "source_videos": len(self._label),
            "rounds": self._seen,
            "ended": self.ended,
            "shard_videos": self.size,
            "sets": sets,
        }


def sentence(notes: Mapping[str, Any]) -> str:
    """Return a sentence on a search, from its notes."""
    looked, of = notes["looked_at"], notes["of"]
    short = [one["set"] for one in notes["sets"] if not one["full"]]
    why = {
        FULL: "then every set of clips was full",
        EXHAUSTED: "which are all there are",
        LIMIT: "then videos.limit was reached",
    }[notes["ended"]]
    missing = f" Not filled: {', '.join(short[:5])}{', ...' if len(short) > 5 else ''}." if short else ""
    return (
        f"Adaptive sampling (videos.enough): {looked:,} of {of:,} videos were looked at, in {notes['rounds']:,} "
        f"rounds; {why}.{missing}"
    )


def _asked(config: Config, classes: Mapping[str, int], labels: int) -> Asked:
    clips = config.clips
    auto = clips.concepts == "auto"
    names = None if auto else tuple(concept.name for concept in clips.tracked)
    return Asked(classes, names, clips.max_concepts, clips.per_concept, clips.random_pool, max(labels, 1))


def _units(videos: pa.Table) -> list[str]:
    ids: list[str] = videos["video_id"].to_pylist()
    if "source" not in videos.column_names:
        return ids
    return [source or video for video, source in zip(ids, videos["source"].to_pylist(), strict=True)]


def _shards_of(videos: pa.Table, rows: Sequence[int], size: int, begin: int) -> list[Shard]:
    """Return the shards of some rows, from the row `begin` on. A shard's number counts from the first row."""
    assert begin % size == 0, "rounds are whole numbers of shards"
    part = videos.take(pa.array(rows[begin:], pa.int64())).combine_chunks()
    shards = make_shards(part, size)
    first = begin // size
    return [Shard(f"{first + i:05d}-{shard.name.split('-')[1]}", shard.rows) for i, shard in enumerate(shards)]


def _signatures(output: StageFolder, shard: str) -> str | None:
    return next((path for path in output.shard_files(shard) if path.startswith("signatures/")), None)
