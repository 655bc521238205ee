"""When to stop tracking, and which videos to track next: the rule of `videos.enough`. Pure, and without any clock.

Videos are looked at in rounds. Their order is random (seeded) inside each label. A round takes labels in turn. From the
third round on, half of a round goes to the labels in which an unfilled set was found more often than in the corpus, and
to classes that lack examples. Labels that gave less than their share of a concept come first. A round is chosen from
the results of all rounds but the one before it, which still runs then. So the chosen videos depend on the seed, the
corpus and the config alone.

A concept's clips must not come from a few labels where the whole corpus would give clips of many. The model's
activations differ between labels, so two sets with other labels differ without the concept, and a permutation test
calls that an effect. So the rule also looks at the candidates' labels: a concept needs more videos if its clips, with
labels in turn, are less like the random clips in their labels than two sets drawn by chance would be (`is_clumped`).
A concept that belongs to few labels can't get there. It ends when no other label seems to have it, when the labels that
have it are exhausted, or with `MOST` times the candidates, as many as a plan of the whole corpus keeps.

Random clips must show what the corpus shows. If concepts took what they need from every video, a rare concept would
vanish from the random clips; and rounds that look for a concept hold too much of it. So half of the videos taken in
turn are reserved for random clips before anything in them is seen, and concepts use only the others.

The rule counts videos that could give a clip, after the quality filters. It never sees an activation, a score or a p.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vtcav_ray.clips.candidates import FACTOR
from vtcav_ray.clips.classes import draw

ROUND = 512  # videos; a smaller corpus is looked at whole
AHEAD = 2  # rounds that are chosen before the first one ends: one runs, one waits
MARGIN = 0.1  # more candidates than clips: some are lost when clips are cut, and to near-duplicates
MOST = FACTOR  # times the candidates that are wanted: with these, a concept is full whatever their labels
NONE = 3.0  # a label lacks a concept if it shows none where the corpus's rate would give 3 (a chance of 5 %)
RESERVED = 0.5  # share of the videos taken in turn that only random clips use
CLASS, CONCEPT, RANDOM = "class", "concept", "random"


@dataclass(frozen=True)
class Look:
    """What one source video could give.

    Attributes:
        label: the one label for which it counts; empty: none.
        concepts: names of the concepts that it shows, after the quality filters.
        moving: whether a random clip that follows a track could be cut from it.
        reserved: it is kept for random clips.
        usable: it could be read, and is no copy of another video.
    """

    label: str
    concepts: frozenset[str] = frozenset()
    moving: bool = False
    reserved: bool = False
    usable: bool = True


@dataclass(frozen=True)
class Asked:
    """The sets that a config asks for.

    Attributes:
        classes: class -> number of examples that the whole corpus gives.
        concepts: names; None: the `most` concepts that the most videos show.
        most: maximum number of concepts that are proposed.
        per_concept: clips of each concept, from different videos.
        random: random clips of each kind, from different videos.
        labels: number of labels of the corpus; videos without one count as a label.
    """

    classes: Mapping[str, int]
    concepts: tuple[str, ...] | None
    most: int
    per_concept: int
    random: int
    labels: int = 1


@dataclass(frozen=True)
class SetCount:
    """One set after some rounds.

    Attributes:
        kind: class, concept or random.
        name: of the class or concept; empty for random clips.
        wanted: number of candidates that fill it, including the margin.
        found: number of candidates.
        full: it needs no more videos: it has what it wants, or no video of its label is left.
        by_label: label -> number of candidates, of a concept.
        possible: labels of which more candidates would spread a concept's clips over more labels.
    """

    kind: str
    name: str
    wanted: int
    found: int
    full: bool
    by_label: Mapping[str, int] = field(default_factory=dict, compare=False)
    possible: tuple[str, ...] = field(default=(), compare=False)


def with_margin(count: int) -> int:
    """Return the number of candidates that are wanted for a number of clips."""
    return count + math.ceil(MARGIN * count)


def in_turns(by_label: Mapping[str, int], clips: int) -> list[int]:
    """Return the number of clips of each label, if labels take turns until there are `clips`.

    Args:
        by_label: label -> number of candidates.
        clips: number of clips; fewer if there are fewer candidates.
    """
    counts, level = sorted(by_label.values()), 0
    for place, count in enumerate(counts):
        some = len(counts) - place  # labels with at least `count` candidates
        if (count - level) * some >= clips:
            break
        clips -= (count - level) * some
        level = count
    else:
        return counts
    turns, rest = divmod(clips, some)
    taken = [level + turns] * (some - rest) + [level + turns + 1] * rest
    return counts[:place] + taken


def is_clumped(by_label: Mapping[str, int], asked: Asked) -> bool:
    """Return whether a concept's clips have labels that differ from the random clips' more than chance explains.

    Let c_l and r_l be the shares of the label l among n concept clips and m random clips, and p_l its share of the
    corpus. For two sets drawn by chance, the sum over l of (c_l - r_l)^2 is expected to be (1/n + 1/m) (1 - sum of
    p_l^2). If activations have a part that a label's videos share, the variance that it adds to the difference of the
    sets' means is proportional to that sum, and a permutation test allows for the expected one. Labels take turns, so
    r_l = p_l = 1 / L.
    """
    n, m, labels = asked.per_concept, asked.random, asked.labels
    counts = in_turns(by_label, n)
    distance = sum((count / n) ** 2 for count in counts) - 1 / labels
    return distance > (1 / n + 1 / m) * (1 - 1 / labels) + 1e-9


def reserved(seed: int, video_id: str) -> bool:
    """Return whether a video that is taken in turn is kept for random clips."""
    return draw(seed, "reserved", video_id) < RESERVED


def count_sets(
    looks: Mapping[str, Look], examples: Mapping[str, Sequence[str]], left: Mapping[str, int], asked: Asked
) -> list[SetCount]:
    """Count the candidates of every set.

    If all sets are full, `vtcav_ray.clips.select` gives each of them as many clips as it would with the whole corpus.
    A concept whose clips are clumped is full only if it has `MOST` times the candidates that are wanted, or if more
    videos would hardly spread its clips.

    Args:
        looks: source video -> what it could give, of all that were looked at.
        examples: class -> the usable videos that are its examples.
        left: label -> number of its source videos that were not looked at.
        asked: the sets.
    """
    counts = []
    for name, wanted in sorted(asked.classes.items()):
        found = len(examples.get(name, ()))
        counts.append(SetCount(CLASS, name, wanted, found, found >= wanted or not left.get(name)))
    taken = {video for ids in examples.values() for video in ids}
    free = [look for video, look in looks.items() if look.usable and video not in taken]
    seen, hits = Counter(look.label for look in free), _by_label(free)
    shown = _by_label(look for look in free if not look.reserved)
    names = asked.concepts
    if names is None:
        ranked = sorted(shown, key=lambda name: (-shown[name].total(), name))[: asked.most]
        names = (*ranked, *(f"(proposal {i + 1})" for i in range(len(ranked), asked.most)))
    none = Counter[str]()
    counts += [_count_concept(name, shown.get(name, none), hits.get(name, none), seen, left, asked) for name in names]
    # The planner leaves up to half of the free videos to random clips. With this number, concepts need not share.
    room = asked.random + len(names) * asked.per_concept
    wanted = with_margin(asked.random)
    moving = sum(look.moving and look.reserved for look in free)
    return [
        *counts,
        SetCount(RANDOM, "", wanted, moving, moving >= wanted and len(free) >= max(room, 2 * asked.random)),
    ]


def _by_label(looks: Iterable[Look]) -> dict[str, Counter[str]]:
    """Return concept -> label -> number of videos that show it."""
    found: dict[str, Counter[str]] = {}
    for look in looks:
        for name in look.concepts:
            found.setdefault(name, Counter())[look.label] += 1
    return found


def _count_concept(
    name: str, by_label: Counter[str], hits: Counter[str], seen: Counter[str], left: Mapping[str, int], asked: Asked
) -> SetCount:
    """Count a concept's candidates.

    Args:
        name: of the concept.
        by_label: label -> number of candidates.
        hits: label -> number of videos that show it, also reserved ones.
        seen: label -> number of videos that were looked at.
        left: label -> number of source videos that were not.
        asked: the sets.
    """
    wanted, found = with_margin(asked.per_concept), by_label.total()
    # A label with as many candidates as the level can give no further clip.
    level = max(in_turns(by_label, wanted), default=0)
    enough = NONE * seen.total() / max(hits.total(), 1)  # videos without it, after which a label lacks it
    possible = tuple(
        label
        for label, videos in sorted(left.items())
        if videos and by_label[label] < level and (hits[label] or seen[label] < enough)
    )
    full = found >= wanted and (
        found >= MOST * wanted
        or not possible
        or not any(left.get(label) for label in by_label)
        or not is_clumped(by_label, asked)
    )
    return SetCount(CONCEPT, name, wanted, found, full, by_label, possible)


def all_full(counts: Iterable[SetCount]) -> bool:
    """Return whether no set needs more videos."""
    return all(count.full for count in counts)


def richer_labels(looks: Iterable[Look], concept: str) -> list[str]:
    """Return the labels whose videos show a concept more often than all videos together, the richest first."""
    seen: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for look in looks:
        seen[look.label] += 1
        hits[look.label] += concept in look.concepts
    if not (total := sum(hits.values())):
        return []
    usual = total / sum(seen.values())
    rich = [label for label in seen if hits[label] / seen[label] > usual]
    return sorted(rich, key=lambda label: (-hits[label] / seen[label], label))


def needs(
    looks: Mapping[str, Look], counts: Sequence[SetCount], left: Mapping[str, int], labels: int
) -> list[dict[str, int | None]]:
    """Return, for each unfilled class and concept, the labels to take videos from: label -> how many, None: any number.

    A concept that no label is known to have needs no label in particular.

    Args:
        looks: source video -> what it could give.
        counts: from `count_sets`.
        left: label -> number of source videos that were not looked at.
        labels: number of labels of the corpus.
    """
    found: list[dict[str, int | None]] = []
    for count in counts:
        if count.full or count.kind == RANDOM:
            continue
        if count.kind == CLASS:
            found.append({count.name: count.wanted - count.found})
        else:
            found += [dict.fromkeys(some) for some in _labels_for(looks.values(), count, left, labels) if some]
    return found


def _labels_for(looks: Iterable[Look], count: SetCount, left: Mapping[str, int], labels: int) -> list[list[str]]:
    """Return lists of labels for an unfilled concept, which divide its part of a round; an empty list has no part."""
    rich = [label for label in richer_labels(looks, count.name) if left.get(label)]
    if count.found < count.wanted:
        share = math.ceil(count.wanted / max(labels, 1))
        return [[label for label in rich if count.by_label.get(label, 0) < share] or rich]
    # It lacks labels, not videos.
    return [[label for label in count.possible if label in count.by_label] or rich, list(count.possible)]


@dataclass(frozen=True)
class Drawn:
    """One source video of a round, and whether it was taken in turn, or for a set that needs its label."""

    video_id: str
    in_turn: bool


@dataclass
class Order:
    """The videos that were not looked at yet, by label, each label in random order. Drawing changes it.

    Args:
        left: label -> source videos, the last one first.
        seed: of ties between labels.
        taken: label -> number of videos drawn.
        turns: label -> number of videos drawn in turn. Videos drawn for a set count as no turn: else a label would get
            fewer reserved videos if its first ones show a concept, and the random clips would show it too often.
    """

    left: dict[str, list[str]]
    seed: int
    taken: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, labels: Mapping[str, str], seed: int) -> Order:
        """Return the order of a corpus.

        Args:
            labels: source video -> its label; empty: none.
        """
        left: dict[str, list[str]] = {}
        for video in sorted(labels, key=lambda v: (draw(seed, "look", v), v), reverse=True):
            left.setdefault(labels[video], []).append(video)
        return cls(left, seed)

    def __len__(self) -> int:
        return sum(map(len, self.left.values()))

    def counts_left(self) -> dict[str, int]:
        """Return label -> number of videos that are left."""
        return {label: len(videos) for label, videos in self.left.items()}

    def draw_round(
        self, size: int, wanted: Sequence[Mapping[str, int | None]] = (), *, explore: bool = True
    ) -> list[Drawn]:
        """Take the next round.

        Args:
            size: number of videos; fewer if fewer are left.
            wanted: from `needs`. Half of the round is divided among these.
            explore: whether the other half is taken from all labels in turn; False: the needs come first, and may take
                the whole round.
        """
        share = size - size // 2 if explore or not wanted else 0
        drawn = self._in_turn(share if wanted else size)
        room = size - len(drawn)
        for place, labels in enumerate(wanted):
            drawn += self._for_set(-(-room // (len(wanted) - place)), labels)
            room = size - len(drawn)
        return drawn + self._in_turn(room)

    def _in_turn(self, size: int) -> list[Drawn]:
        """Take videos of every label in turn."""
        found = self._take(size, self.left, self.turns)
        self.turns.update(label for label, _ in found)
        return [Drawn(video, True) for _, video in found]

    def _for_set(self, size: int, labels: Mapping[str, int | None]) -> list[Drawn]:
        """Take videos of some labels in turn, no more of each than `labels` allows."""
        most = {label: len(self.left.get(label, ())) if some is None else some for label, some in labels.items()}
        return [Drawn(video, False) for _, video in self._take(size, labels, Counter(), most)]

    def _take(
        self, size: int, labels: Iterable[str], turns: Mapping[str, int], most: Mapping[str, int] | None = None
    ) -> list[tuple[str, str]]:
        """Take up to `size` videos, each time of the label with the fewest turns; ties by chance.

        Return each with its label.
        """
        found: list[tuple[str, str]] = []
        waiting = [self._turn(label, turns.get(label, 0)) for label in labels if self.left.get(label)]
        heapq.heapify(waiting)
        begun = {label: turn for turn, _, label in waiting}
        while waiting and len(found) < size:
            turn, _, label = heapq.heappop(waiting)
            if most is not None and turn - begun[label] >= most[label]:
                continue
            found.append((label, self.left[label].pop()))
            self.taken[label] += 1
            if self.left[label]:
                heapq.heappush(waiting, self._turn(label, turn + 1))
        return found

    def _turn(self, label: str, turn: int) -> tuple[int, float, str]:
        return turn, draw(self.seed, "turn", self.left[label][-1]), label
