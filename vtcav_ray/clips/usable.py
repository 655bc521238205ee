"""Which clips later stages may use: all except those that a person rejected, and those that repeat another one.

Where this is applied. Activations are computed for EVERY clip, so that a review costs no model time. The stage `cavs`
then decides once which clips are left out and writes them to its table `left_out`, which `scores` and `report` read. So
a review made during a run can't affect one stage and miss the next. `gradcam`, which needs no CAVs and takes seconds
per clip, decides for itself before it begins (`left_out_of`).

A motion control is left out together with its clip, and of a pair of own clips both (`pairs: by_name`).
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.clips.decisions import Decisions, Subject
from vtcav_ray.clips.pairs import NO_PARTNER, without_partner
from vtcav_ray.config import Config
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.tables import LEFT_OUT

TABLE = "left_out"
HEAD_COLUMNS = ("clip_id", "set", "name", "kind", "video_id", "control_of")


@dataclass(frozen=True)
class LeftOut:
    """The clips that are left out (clip_id -> reason), and sentences for the user."""

    reasons: dict[str, str]
    warnings: list[str]

    def table(self) -> pa.Table:
        rows = sorted(self.reasons.items())
        return pa.table({"clip_id": [c for c, _ in rows], "reason": [r for _, r in rows]}, schema=LEFT_OUT)


def full_name(set_: str, name: str, kind: str) -> str:
    """Return the full name: `<name>/<kind>` of a concept, the label of a class, `random/<kind>` of random clips."""
    return f"{name}/{kind}" if set_ == "concept" else name


def left_out_of(clips: StageFolder, decisions: Decisions, config: Config) -> LeftOut:
    """Apply `leave_out` to a complete stage `clips`, with the config's settings."""
    heads = clips.read("clips", columns=HEAD_COLUMNS)
    assert heads is not None, "the stage is complete and has clips"
    repeats = clips.read("duplicates")
    duplicates = {} if repeats is None else dict(zip(*(c.to_pylist() for c in repeats.columns), strict=True))
    return leave_out(
        heads,
        duplicates,
        decisions,
        undecided_count=config.review.undecided == "use",
        min_videos=config.clips.min_per_concept,
        in_pairs=config.clips.in_pairs,
    )


def leave_out(
    clips: pa.Table,
    duplicates: dict[str, str],
    decisions: Decisions,
    *,
    undecided_count: bool = True,
    min_videos: int = 0,
    in_pairs: Collection[str] = (),
) -> LeftOut:
    """Decide which clips are not used.

    Args:
        clips: CLIPS rows with `HEAD_COLUMNS`.
        duplicates: clip_id -> the clip that it repeats. If the original is rejected, its duplicate takes its place,
            unless it is rejected itself.
        decisions: a person's.
        undecided_count: whether undecided clips are used.
        min_videos: warn about concepts that keep fewer source videos.
        in_pairs: names of the concepts whose own clips have partners.
    """
    rows = [tuple(r.values()) for r in clips.select(list(HEAD_COLUMNS)).to_pylist()]
    reasons: dict[str, str] = {}
    for clip_id, set_, name, kind, _, control_of in rows:
        if control_of is not None:
            continue
        verdict = decisions.verdict(set_, full_name(set_, name, kind), clip_id)
        # Random clips are drawn without looking: a person is not asked to accept hundreds of them.
        if verdict == "reject" or (verdict is None and not undecided_count and set_ != "random"):
            reasons[clip_id] = "rejected" if verdict else "undecided"
    taken = Counter(first for first in duplicates.values() if first not in reasons)
    for clip_id, first in sorted(duplicates.items()):
        if clip_id not in reasons and taken[first]:
            reasons[clip_id] = "duplicate"
        taken[first] += clip_id not in reasons
    if in_pairs:
        reasons |= without_partner([row[:4] for row in rows if row[5] is None], reasons, in_pairs)
    twin_of = {clip_id: control_of for clip_id, _, _, _, _, control_of in rows if control_of is not None}
    own = {  # a decision about a control itself, written by hand
        clip_id: "rejected"
        for clip_id, set_, name, kind, _, twin in rows
        if twin is not None and decisions.verdict(set_, full_name(set_, name, kind), clip_id) == "reject"
    }
    reasons |= own | {clip_id: reasons[twin] for clip_id, twin in twin_of.items() if twin in reasons}
    return LeftOut(reasons, _warnings(rows, reasons, decisions, min_videos))


def _warnings(rows: list[tuple[str, ...]], reasons: dict[str, str], decisions: Decisions, min_videos: int) -> list[str]:
    warnings = []
    if reasons:
        counts = Counter(reasons.values())
        words = {
            "rejected": "rejected in review.csv",
            "undecided": "not accepted yet",
            "duplicate": "near-duplicates",
            NO_PARTNER: "without their partner",
        }
        shown = ", ".join(f"{counts[reason]} {text}" for reason, text in words.items() if counts[reason])
        warnings.append(f"{len(reasons)} of {len(rows)} clips are left out: {shown}.")
    left: dict[tuple[str, str], set[str]] = defaultdict(set)
    had: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip_id, set_, name, kind, video_id, control_of in rows:
        if control_of is None:
            key = (set_, full_name(set_, name, kind))
            had[key].add(video_id)
            left[key] |= {video_id} if clip_id not in reasons else set()
    for key, videos in sorted(had.items()):
        kept = len(left[key])
        if key[0] != "random" and kept < len(videos) and kept < max(min_videos, 1):
            warnings.append(
                f"{key[0].capitalize()} {key[1]!r} keeps {kept} of its {len(videos)} source videos"
                + (": it is left out." if not kept else f", fewer than {min_videos}: its figures will be weak.")
            )
    known_clips = {row[0] for row in rows}
    names = {(row[1], full_name(row[1], row[2], row[3])) for row in rows}
    strange = [d.subject for d in decisions.rows() if not _known(d.subject, known_clips, names)]
    if strange:
        first = strange[0]
        text = first.clip_id or first.name
        near = difflib.get_close_matches(text, sorted(known_clips if first.clip_id else {n for _, n in names}), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        warnings.append(
            f"review.csv has {len(strange)} decisions about what this run does not have, the first about {text!r}."
            f"{hint} They are kept, and change nothing."
        )
    return warnings


def _known(subject: Subject, clips: set[str], names: set[tuple[str, str]]) -> bool:
    return subject.clip_id in clips if subject.clip_id else (subject.set, subject.name) in names


@dataclass(frozen=True)
class AcceptedRows(StageFolder):
    """A stage's folder that hides the rows of clips that are left out."""

    left_out: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(cls, folder: StageFolder, left_out: Sequence[str]) -> AcceptedRows:
        return cls(folder.stage, folder.key, folder.folder, frozenset(left_out))

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        if not self.left_out:
            return super().read_file(path, columns)
        wanted = columns if columns is None or "clip_id" in columns else [*columns, "clip_id"]
        table = super().read_file(path, wanted)
        keep = pc.invert(pc.is_in(table["clip_id"], value_set=pa.array(sorted(self.left_out), pa.string())))
        table = table.filter(keep)
        return table if columns is None else table.select(list(columns))

    def read(self, table: str, *, columns: Sequence[str] | None = None, **partition: str) -> pa.Table | None:
        """Read like the folder itself; also None if every row is left out."""
        found = super().read(table, columns=columns, **partition)
        return found if found is not None and found.num_rows else None

    def iter_tables(
        self, table: str, *, columns: Sequence[str] | None = None, **partition: str
    ) -> Iterator[tuple[str, pa.Table]]:
        """Iterate like the folder itself, but skip shards with no rows left."""
        for name, part in super().iter_tables(table, columns=columns, **partition):
            if part.num_rows:
                yield name, part


def read_left_out(cavs: StageFolder) -> list[str]:
    """Return the ids of the clips that the stage `cavs` left out."""
    found = cavs.read(TABLE, columns=["clip_id"])
    return [] if found is None else found["clip_id"].to_pylist()
