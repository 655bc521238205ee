"""A user's arrays as rows of clips, like those of the table `clips`."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS
from vtcav_ray.runs.stage import shard_numbers, shard_size

Clips = np.ndarray | Sequence[np.ndarray]
RANDOM = "random"
GIVEN = "given"  # the kind of concepts that a person brings, if their name does not give one
Row = dict[str, Any]


class Groups(TypedDict, total=False):
    """The source video of each clip, with the names that the clips have in the call."""

    concepts: Mapping[str, Sequence[str]]
    random: Sequence[str] | Mapping[str, Sequence[str]]
    examples: Mapping[str, Sequence[str]]


@dataclass
class ClipSets:
    """Clips with their rows.

    Attributes:
        rows: `clip_id`, `set`, `name`, `kind`, `video_id` and `label` of each clip.
        clips: clip id -> `uint8 [T, H, W, 3]`.
    """

    rows: list[Row] = field(default_factory=list)
    clips: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        concepts: Mapping[str, Clips],
        random: Clips | Mapping[str, Clips],
        examples: Mapping[str, Clips],
        groups: Groups | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> ClipSets:
        """Check clips and name them. The arguments are those of `vtcav_ray.explain`.

        Raises:
            ValueError: clips of a wrong shape or type, an unknown name, or a source video in two sets.
        """
        given: Groups = groups or {}
        if unknown := sorted(set(given) - set(Groups.__optional_keys__)):
            raise ValueError(f"groups: no set `{unknown[0]}`. There are: concepts, random, examples.")
        found = cls()
        kinds = {}
        for name, clips, videos in _with_groups("concepts", concepts, given.get("concepts")):
            base, kinds[name] = split_name(name)
            found._add("concept", base, kinds[name], clips, videos, f"concepts[{name!r}]", labels)
        by_kind = _randoms(random, list(kinds.values()))
        of_random = given.get("random")
        if of_random is not None and not isinstance(of_random, Mapping):
            of_random = dict.fromkeys(by_kind, of_random)
        for kind, clips, videos in _with_groups(RANDOM, by_kind, of_random):
            found._add(RANDOM, f"{RANDOM}/{kind}", kind, clips, videos, f"random[{kind!r}]", labels)
        for name, clips, videos in _with_groups("examples", examples, given.get("examples")):
            found._add("class", name, "full", clips, videos, f"examples[{name!r}]", None)
        found._check()
        found._sort()
        return found

    def _add(
        self,
        role: str,
        name: str,
        kind: str,
        clips: Clips,
        videos: Sequence[str] | None,
        where: str,
        labels: Mapping[str, str] | None,
    ) -> None:
        full = f"concept/{name}/{kind}" if role == "concept" else f"class/{name}" if role == "class" else name
        checked = [_checked(clip, f"{where}[{i}]") for i, clip in enumerate(clips)]
        if len(checked) < 2:
            raise ValueError(f"{where}: {len(checked)} clip(s). A set needs at least 2, from different source videos.")
        if videos is None:
            videos = [f"{full}#{i}" for i in range(len(checked))]
            ids = videos
        else:
            # A clip's twin in another kind, such as its motion control, has the same id but for the kind.
            ids = [f"{full}/{video}/{place}" for video, place in _places(videos)]
        if len(videos) != len(checked):
            raise ValueError(f"groups: {where} has {len(checked)} clips and {len(videos)} source videos.")
        for clip, video, clip_id in zip(checked, map(str, videos), ids, strict=True):
            label = name if role == "class" else (labels or {}).get(video)
            self.rows.append(
                {"clip_id": clip_id, "set": role, "name": name, "kind": kind, "video_id": video, "label": label}
            )
            self.clips[clip_id] = clip

    def _sort(self) -> None:
        """Put the rows in the order of a run's tables: the splits of CAVs into two parts depend on it."""
        videos = [row["video_id"] for row in self.rows]
        numbers = shard_numbers(videos, shard_size(len(set(videos))))
        keyed = zip(numbers, videos, (row["clip_id"] for row in self.rows), self.rows, strict=True)
        self.rows = [row for *_, row in sorted(keyed, key=lambda one: one[:3])]

    def _check(self) -> None:
        """Check what all sets together have to fulfil.

        Raises:
            ValueError: clips of different lengths, or a source video that is in two sets.
        """
        lengths = Counter(len(clip) for clip in self.clips.values())
        if len(lengths) > 1:
            found = ", ".join(f"{count} of {length} frames" for length, count in sorted(lengths.items()))
            raise ValueError(f"All clips must have one number of frames, T. There are {found}.")
        roles: dict[str, str] = {}
        for row in self.rows:
            other = roles.setdefault(row["video_id"], row["set"])
            if other != row["set"]:
                raise ValueError(
                    f"groups: the source video {row['video_id']!r} is in the sets `{other}` and `{row['set']}`. The "
                    "tests need source videos that are in one of concepts, random and examples only."
                )


def _places(videos: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield each video with the number of its clips before this one."""
    seen: Counter[str] = Counter()
    for video in map(str, videos):
        yield video, seen[video]
        seen[video] += 1


def split_name(name: str) -> tuple[str, str]:
    """Split a concept's name: `cup/spatial` has a kind; any other name has the kind `given`.

    Raises:
        ValueError: there is no such kind.
    """
    base, slash, kind = name.rpartition("/")
    if not slash:
        return name, GIVEN
    known = [*CONCEPT_KINDS, *MOTION_CONTROLS]
    if not base or (kind not in known and kind != GIVEN):
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(
            f"concepts[{name!r}]: after a slash comes a kind: {', '.join(known)}.{hint} Leave the slash out otherwise."
        )
    return base, kind


def _randoms(random: Clips | Mapping[str, Clips], kinds: Sequence[str]) -> Mapping[str, Clips]:
    """Return kind -> random clips.

    Raises:
        ValueError: a kind of the concepts has none.
    """
    distinct = list(dict.fromkeys(kinds))
    if not isinstance(random, Mapping):
        if len(distinct) > 1:
            raise ValueError(
                f"random: the concepts are of the kinds {', '.join(distinct)}, and each is compared with random clips "
                f"of its own kind. Give a mapping: random={{{distinct[0]!r}: clips, ...}}."
            )
        return dict.fromkeys(distinct, random)
    if missing := [kind for kind in distinct if kind not in random]:
        raise ValueError(f"random: there are no clips of the kind `{missing[0]}`, and a concept has it.")
    return random


def _with_groups(
    what: str, sets: Mapping[str, Clips], groups: Mapping[str, Sequence[str]] | None
) -> Iterator[tuple[str, Clips, Sequence[str] | None]]:
    if not isinstance(sets, Mapping):
        raise TypeError(f"{what}: give a mapping, name -> clips, not {type(sets).__name__}.")
    if not sets:
        raise ValueError(f"{what}: there is none. Give at least one name with its clips.")
    if unknown := [name for name in groups or () if name not in sets]:
        raise ValueError(f"groups: {what} have no {unknown[0]!r}. There are: {', '.join(sets)}.")
    for name, clips in sets.items():
        yield name, clips, None if groups is None else groups.get(name)


def _checked(clip: Any, where: str) -> np.ndarray:
    array = np.asarray(clip)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"{where}: a clip is uint8 [T, H, W, 3], RGB, and this one is {array.dtype} {array.shape}.")
    return array
