"""The plan: which clips to cut from which videos, decided from metadata alone.

How the videos are divided. A source video gives EITHER class examples OR concept clips OR random clips. (Several
concepts may share a video, and so may several kinds of random clip.) Everything is drawn by a hash of the seed and the
video's id, so the plan does not depend on any order, and changes little when videos are added. Files that are copies of
one video (`vtcav_ray.tracks.copies`) are one source video: one of them is used for planning.

1. Class examples come first, drawn from each class's videos without looking at their content: choosing them by content
   would bias what is explained. Their number is reduced if they would take more than two fifths of the videos.
2. Half of the rest is reserved for random clips (less if `random_pool` is less). Concepts choose from the other half:
   the concept with the fewest videos first, alternating over the classes. If videos are scarce, concepts prefer videos
   that another concept already uses.
3. The remaining videos give random clips, alternating over the classes, of every kind that a concept has, and of its
   controls.

Segments and files of one source video (`vtcav_ray.clips.corpus`) share its use: they never serve two. A video whose
segments have several labels is an example of one class only. A clip lies inside one segment.

Memory: the list of videos (with a signature of 440 bytes each during the search for copies), and a bounded sample of
candidates for each concept and each class, however many tracks there are.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from vtcav_ray.clips.candidates import FACTOR, Candidates, few_by_chance
from vtcav_ray.clips.classes import ClassPlan, draw, in_turn, labels_of, plan_classes
from vtcav_ray.clips.concept_candidates import ConceptCandidates
from vtcav_ray.clips.corpus import Corpus, Example
from vtcav_ray.clips.given import GivenPlan, plan_given
from vtcav_ray.clips.kinds import CONTROLLED, builder_of
from vtcav_ray.clips.offers import reserved_videos
from vtcav_ray.clips.plan_table import PlanRows
from vtcav_ray.clips.plan_warnings import of_copies, of_small_pool
from vtcav_ray.clips.pools import corpus_pool, own_pool
from vtcav_ray.clips.settled import settled, uncollected
from vtcav_ray.clips.span_filters import FILTERS, usable_spans_by_video
from vtcav_ray.clips.spans import Span, Spans, Track, iter_tracks, part_in
from vtcav_ray.config import ClipsConfig
from vtcav_ray.registry import MOTION_CONTROLS
from vtcav_ray.text.label_sets import split_labels
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.tracks.freed_memory import keep_some_freed_memory

RANDOM_CLIPS_A_VIDEO = 4  # maximum, if one per video does not fill the pool
SEGMENTS_A_VIDEO = 4  # maximum of segments of one source video that are examples of its class
_FEW = 2  # minimum number of videos for a concept to be possible
_FEW_CONCEPTS = 6


@dataclass(frozen=True)
class ClipPlan:
    """The clips to cut.

    Attributes:
        rows: table `PLAN` (`vtcav_ray.clips.plan_table`), sorted by video_id and clip_id: the CLIPS columns that are
            known before cutting, and what cutting needs.
        warnings: sentences for the user.
        counts: `filters` (number of tracks dropped by each quality filter; `clips_per_video` is counted separately for
            each concept), `videos` (by use; `copies` are unused because they repeat another video), `concepts` (videos
            available and used, clips), `random` (clips per kind), `tracks`.
    """

    rows: pa.Table
    warnings: list[str]
    counts: dict[str, Any]


def plan_clips(
    videos: pa.Table,
    tracks: Iterable[pa.Table],
    failed_video_ids: Collection[str],
    config: ClipsConfig,
    seed: int,
    recogniser_classes: Sequence[str] | None = None,
    *,
    copies: Mapping[str, str] | None = None,
    given: pa.Table | None = None,
    segments: pa.Table | None = None,
    corpus_videos: int | None = None,
) -> ClipPlan:
    """Choose the clips to cut.

    Args:
        videos: VIDEOS table.
        tracks: TRACKS tables, read one by one; all tracks of a video are in the same table.
        failed_video_ids: files that can't be used.
        seed: of every choice.
        recogniser_classes: the model's class names; labels that differ only in case, `_` and `-` are mapped to them.
        copies: video_id of a file -> the file that it repeats. Copies give no clips.
        given: the own clips of the concepts (table `given`); corpus videos that are their sources give no other clips.
        segments: the table SEGMENTS of the stage `tracks`, if files have segments.
        corpus_videos: number of source videos of the corpus, if `videos` has enough of them for every set
            (`vtcav_ray.clips.enough`); None: it has all.

    Raises:
        ConfigError: `clips.classes` names a class that the model does not have.
    """
    copies = copies or {}
    with uncollected():
        corpus = Corpus.of(videos, {*failed_video_ids, *copies}, segments)
        own = GivenPlan() if given is None else plan_given(given, Corpus.of(videos).examples, config, seed)
        corpus = corpus.without(own.sources)
        classes = plan_classes(corpus.listed, config, seed, recogniser_classes, corpus_videos)
        known = NameIndex(recogniser_classes) if recogniser_classes else None
        corpus = corpus.spelled(labels_of({text: text for text in corpus.texts}, known, []))
        planner = _Planner(config, seed, classes, corpus, reserved_videos(videos))
        labels = zip(videos["video_id"].to_pylist(), videos["label"].to_pylist(), strict=True)
        planner.note_copies(copies, dict(labels))
    planner.read(tracks)
    with uncollected():
        planner.choose_given(own)
        if config.need_tracks:
            planner.choose_concepts()
        planner.choose_random()
        return planner.result()


class _Planner:
    def __init__(
        self, config: ClipsConfig, seed: int, classes: ClassPlan, corpus: Corpus, reserved: Collection[str]
    ) -> None:
        self._config, self._seed, self._classes, self._reserved = config, seed, classes, reserved
        self._examples, self._of_file = corpus.examples, corpus.of_files()
        self._dropped: Counter[str] = Counter(dict.fromkeys((*FILTERS, "clips_per_video"), 0))
        self._auto = isinstance(config.concepts, str)
        self._offered = ConceptCandidates(config, seed, self._dropped)
        self._concepts, self._candidates = self._offered.concepts, self._offered.candidates
        capacity = FACTOR * config.random_pool // max(len(set(classes.turn_of.values())), 1) + 8
        self._random = defaultdict[str | None, Candidates](functools.partial(Candidates, capacity, "random", seed))
        # From all videos, whatever their label: if most labels are rare, the candidates per label are too few.
        self._random_any = Candidates(FACTOR * config.random_pool, "random", seed)
        self._tracks = self._copies = 0
        self._rows = PlanRows(seed, config.class_views)
        self._warnings = list(classes.warnings)
        self._concept_videos: set[str] = set()
        self._random_videos: set[str] = set()
        self._concept_counts: dict[str, dict[str, int]] = {}
        self._given = GivenPlan()
        self._random_sizes: dict[str, int] = {}
        self._kinds: list[str] = []
        for label, ids in sorted(classes.examples.items()):
            for example in (example for video_id in ids for example in self._of_class(video_id, label)):
                for view in range(config.class_views):
                    self._rows.add("class", label, "full", example, None, number=view)

    def _of_class(self, video_id: str, label: str) -> list[Example]:
        """Return the examples of a class that its source video gives, in random order."""
        return [one for one in self._in_random_order(video_id) if label in split_labels(one.own)][:SEGMENTS_A_VIDEO]

    def _in_random_order(self, video_id: str) -> list[Example]:
        return sorted(
            self._examples[video_id],
            key=lambda one: draw(self._seed, "segment", one.file, "" if one.segment is None else one.segment.name),
        )

    def _drawn_example(self, video_id: str, number: int) -> Example:
        """Return the example that the random clip with a number is cut from: another segment each time."""
        some = self._in_random_order(video_id)
        return some[number % len(some)]

    def note_copies(self, copies: Mapping[str, str], labels: Mapping[str, str | None]) -> None:
        """Count the videos that are unused because they repeat another one, and warn about them."""
        self._copies = len(copies)
        self._warnings += [of_copies(copies, labels)] if copies else []

    @settled()
    def read(self, tracks: Iterable[pa.Table]) -> None:
        """Collect from each video's tracks what concepts and random clips could use."""
        keep_some_freed_memory()
        taken = {v for ids in self._classes.examples.values() for v in ids}
        for video_id, spans in self._spans_by_video(tracks):
            if video_id in taken:
                continue
            if video_id not in self._reserved:
                self._offered.offer(video_id, spans)
                if self._reserved:
                    continue
            drawn = functools.partial(self._few_by_chance, video_id, spans), draw(self._seed, "random", video_id)
            self._random[self._classes.turn_of.get(video_id)].add(video_id, *drawn)
            self._random_any.add(video_id, *drawn)

    def _few_by_chance(self, video_id: str, spans: Spans) -> list[Span]:
        return few_by_chance(spans.at(range(len(spans))), RANDOM_CLIPS_A_VIDEO, self._seed, video_id)

    def _spans_by_video(self, tracks: Iterable[pa.Table]) -> Iterator[tuple[str, Spans]]:
        """Yield the source videos with spans. A video of several files comes last: its files are in several tables."""
        several = {unit for unit, some in self._examples.items() if len({example.file for example in some}) > 1}
        of_several: dict[str, list[Spans]] = defaultdict(list)
        for table in tracks:
            parts: list[tuple[Track, Example]] = []
            for track in iter_tracks(table):
                self._tracks += 1
                for example in self._of_file.get(track.video_id, ()):
                    if (part := part_in(track, example)) is not None:
                        parts.append((part, example))
            for video_id, spans in usable_spans_by_video(parts, self._config, self._dropped).items():
                if video_id in several:
                    of_several[video_id].append(spans)
                else:
                    yield video_id, spans
        yield from ((video_id, Spans.joined(some)) for video_id, some in of_several.items())

    def choose_given(self, given: GivenPlan) -> None:
        """Add the rows of own clips."""
        self._given = given
        self._warnings += given.warnings
        given.add_to(self._rows)

    def choose_concepts(self) -> None:
        """Pick the concepts that have enough videos, and their clips."""
        config = self._config
        refused = self._choose(config.min_per_concept, config.max_concepts)
        if not self._concept_counts:
            refused = self._choose(_FEW, _FEW_CONCEPTS if self._auto else len(self._concepts))
            if self._concept_counts:
                self._warnings.append(
                    f"No concept can have {config.min_per_concept} source videos (clips.min_per_concept). The "
                    f"{len(self._concept_counts)} with at least {_FEW} are kept so that there is something to see; "
                    "their figures will be weak."
                )
        self._warnings += refused
        few = {n: c["clips"] for n, c in self._concept_counts.items() if c["clips"] < config.per_concept}
        if few:
            shown = ", ".join(f"{n} {clips}" for n, clips in sorted(few.items()))
            self._warnings.append(f"Fewer than the {config.per_concept} clips wanted (clips.per_concept): {shown}.")
        if not self._concept_counts:
            self._warnings.append(
                "No concept could be built: too few videos with an object that was followed long enough, and passed "
                "the quality filters (counts: " + ", ".join(f"{k} {v}" for k, v in self._dropped.items()) + ")."
            )

    def _choose(self, least: int, most: int) -> list[str]:
        """Take the clips of every concept that gets `least` videos; return sentences about the others."""
        config = self._config
        there = {n: c.available for n, c in self._candidates.items()}
        enough = [n for n in self._concepts if there[n] >= least]
        refused = []
        if self._auto:
            enough = sorted(enough, key=lambda n: (-there[n], n))[:most]
        else:
            refused = [
                f"Concept {n!r} is left out: {there[n]} source videos show it, {least} are needed."
                for n in self._concepts
                if n not in enough
            ]
        free = len(self._examples) - sum(len(ids) for ids in self._classes.examples.values())
        budget = free - min(config.random_pool, -(-free // 2))
        scarce = sum(min(config.per_concept, there[n]) for n in enough) > budget
        # All concepts named by the user count, so the rare ones choose first; proposed ones choose in order of rank.
        for name in enough if self._auto else sorted(enough, key=lambda n: (there[n], n)):
            got = self._take(name, budget, scarce, least)
            if got < least:
                refused.append(
                    f"Concept {name!r} is left out: other sets need all but {got} of its {there[name]} source videos, "
                    f"and {least} are needed."
                )
        return refused

    def _take(self, name: str, budget: int, scarce: bool, least: int) -> int:
        """Choose one concept's clips, at most `per_concept`, one per video before a second of any video.

        Return how many source videos it could have. If there are fewer than `least`, nothing is taken.
        """
        config, found = self._config, self._candidates[name].kept
        order = in_turn({v: p for v, (p, _) in found.items()}, self._classes.turn_of)
        if scarce:
            order.sort(key=lambda v: v not in self._concept_videos)  # stable: videos in use first
        room = budget - len(self._concept_videos)
        chosen: list[str] = []
        for video_id in order:
            if len(chosen) == config.per_concept:
                break
            if video_id not in self._concept_videos:
                if room <= 0:
                    continue
                room -= 1
            chosen.append(video_id)
        if len(chosen) < least:
            return len(chosen)
        self._concept_videos |= set(chosen)
        spans = [
            found[v][1][k] for k in range(config.quality.max_clips_per_video) for v in chosen if k < len(found[v][1])
        ][: config.per_concept]
        concept = self._concepts[name]
        controls = config.controls if concept.controls is None else concept.controls
        for kind in concept.kinds:
            for span in spans:
                assert span.example is not None, "the planner has set it"
                self._rows.add_with_controls("concept", name, kind, span.example, span, controls)
        kinds: tuple[str, ...] = concept.kinds
        if CONTROLLED in kinds:
            kinds += controls
        self._kinds += [kind for kind in kinds if kind not in self._kinds]
        if concept.controls and CONTROLLED not in concept.kinds:
            self._warnings.append(f"Concept {name!r} has controls but no kind `{CONTROLLED}`; they are left out.")
        self._concept_counts[name] = {
            "videos_available": self._candidates[name].available,
            "videos": len(chosen),
            "clips": len(spans),
        }
        return len(chosen)

    def choose_random(self) -> None:
        """Fill a pool of matched random clips for each kind that a concept has, from the videos that are left."""
        config, reserved = self._config, self._reserved
        taken = self._concept_videos | {v for ids in self._classes.examples.values() for v in ids}
        free = {v: draw(self._seed, "random", v) for v in self._examples if v not in taken}
        # Reserved videos take turns among themselves: a search looks at more videos of some labels than it reserves.
        parts = ({v: p for v, p in free.items() if (v in reserved) is kept} for kept in (True, False))
        order = [video_id for part in parts for video_id in in_turn(part, self._classes.turn_of)]
        groups = (*self._random.values(), self._random_any)
        spans = {v: s for group in groups for v, (_, s) in group.kept.items() if v not in taken}
        controls, sizes = tuple(k for k in self._kinds if k in MOTION_CONTROLS), dict[str, int]()
        for kind in self._kinds:
            if kind in controls:
                continue
            by_track = builder_of(kind).negatives_need_tracks(config)
            picks: list[tuple[str, int]] = []
            for number in range(RANDOM_CLIPS_A_VIDEO):
                fit = ((v, number) for v in order if not by_track or number < len(spans.get(v, ())))
                picks += islice(fit, config.random_pool - len(picks))
                if number == 0:
                    sources = len(picks)
                if len(picks) == config.random_pool:
                    break
            sizes[kind] = len(picks)
            self._random_videos |= {v for v, _ in picks}
            for video_id, number in picks:
                if by_track:
                    span = spans[video_id][number]
                    assert span.example is not None, "the planner has set it"
                    self._rows.add_with_controls("random", f"random/{kind}", kind, span.example, span, controls)
                else:
                    example = self._drawn_example(video_id, number)
                    self._rows.add("random", f"random/{kind}", kind, example, None, number=number)
            self._warn_of_small_pool(kind, len(picks), sources)
        self._random_sizes = sizes
        for concept, kind, controls_of in self._given.from_corpus:
            named = corpus_pool if concept is None else functools.partial(own_pool, concept)
            every = ((v, number) for number in range(RANDOM_CLIPS_A_VIDEO) for v in order)
            picks = list(islice(every, config.random_pool))
            for video_id, number in picks:
                self._rows.add_from_corpus(named, kind, self._drawn_example(video_id, number), number, controls_of)
            sizes[named(kind).removeprefix("random/")] = len(picks)
            self._random_videos |= {v for v, _ in picks}
            self._warn_of_small_pool(kind, len(picks), min(len(order), len(picks)))

    def _warn_of_small_pool(self, kind: str, clips: int, sources: int) -> None:
        counts = (*self._concept_counts.values(), *self._given.counts.values())
        largest = max((c["clips"] for c in counts), default=0)
        self._warnings += of_small_pool(kind, clips, sources, largest, self._config.random_pool, RANDOM_CLIPS_A_VIDEO)

    def result(self) -> ClipPlan:
        examples = sum(len(ids) for ids in self._classes.examples.values())
        used = examples + len(self._concept_videos) + len(self._random_videos)
        counts = {
            "tracks": self._tracks,
            "filters": dict(self._dropped),
            "videos": {
                "class": examples,
                "concept": len(self._concept_videos),
                "random": len(self._random_videos),
                "unused": len(self._examples) - used,
                "copies": self._copies,
            },
            "classes": {label: len(ids) for label, ids in sorted(self._classes.examples.items())},
            "concepts": dict(sorted((self._concept_counts | self._given.counts).items())),
            "random": self._random_sizes,
        }
        return ClipPlan(self._rows.table(), self._warnings, counts)
