"""Result cells of one layer: which CAVs and which clips each (concept, against) compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs.mix import Mix, matched_rows
from vtcav_ray.cavs.plan import RANDOM, CavJob, Pool
from vtcav_ray.clips.pools import IN_PAIRS, UNMATCHED, is_paired, is_unmatched
from vtcav_ray.text.label_sets import has_label

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """The two sides of a comparison, for every class of a layer.

    Attributes:
        concept, against, kind: as in the `scores` table.
        cavs: rows of the `cavs` table, by run.
        null: rows of the random-against-random CAVs of the same kind and profile, in the order of `null_pairs`.
        concept_rows, other_rows: rows of the pool, for the concept effect.
        paired: `other_rows[i]` is the twin of `concept_rows[i]`.
        mark: for the column `note`: why the comparison is not a fair one, or that it is one of pairs.
    """

    concept: str
    against: str
    kind: str
    cavs: Rows
    null: Rows
    concept_rows: Rows
    other_rows: Rows
    paired: bool
    mark: str = ""

    def among(self, there_N: NDArray[np.bool_] | None) -> Cell:
        """Return the comparison of only some rows of the pool, for the effect; None: all. A pair needs both clips."""
        if there_N is None:
            return self
        own, other = there_N[self.concept_rows], there_N[self.other_rows]
        if self.paired:
            own = other = own & other
        return dataclasses.replace(self, concept_rows=self.concept_rows[own], other_rows=self.other_rows[other])


def find_cells(pool: Pool, clip_ids: Sequence[str], jobs: Sequence[CavJob]) -> list[Cell]:
    """Return the cells that `jobs` belong to, in the order of their first job."""
    runs: dict[tuple[str, str], list[int]] = {}
    nulls: dict[tuple[str, Mix], list[int]] = {}
    null_of: dict[str, tuple[str, Mix]] = {}
    for i, job in enumerate(jobs):
        if job.is_null:
            nulls.setdefault((job.pool, job.mix), []).append(i)
            continue
        runs.setdefault((job.concept, job.against), []).append(i)
        if job.against == RANDOM:
            null_of[job.concept] = (job.pool, job.mix)
    videos, randoms = pool.rows("concept"), pool.rows(RANDOM)
    concepts = {name: np.concatenate(list(by_video.values())) for name, by_video in videos.items()}
    cells = []
    for (concept, against), members in runs.items():
        kind = jobs[members[0]].kind
        own = concepts[concept]
        of_pool = null_of[concept][0]
        paired = against in concepts or (against == RANDOM and is_paired(of_pool))
        if against in concepts:
            own, other = _twins(clip_ids, own, concepts[against], concept, f"concept/{against}/")
        elif paired:
            of_partners = np.concatenate(list(randoms[of_pool].values()))
            own, other = _twins(clip_ids, own, of_partners, concept, f"{of_pool}/")
        elif against == RANDOM:
            other = _randoms(pool, concept, videos[concept], randoms[of_pool])
        else:
            other = _rest(pool, jobs, concept, kind, concepts)
        members.sort(key=lambda i: jobs[i].run)
        null = sorted(nulls.get(null_of[concept], []), key=lambda i: jobs[i].run)
        mark = ""
        if against == RANDOM:
            mark = UNMATCHED if is_unmatched(of_pool) else IN_PAIRS if paired else ""
        rows = (np.array(members), np.array(null, np.int64), own, other)
        cells.append(Cell(concept, against, kind, *rows, paired, mark))
    return cells


def without_class(cell: Cell, labels_N: NDArray[np.str_], class_name: str) -> Cell:
    """Return a cell without the videos of a class, on both sides.

    The other side loses them too: else the concept would be compared with random clips of which some are of the class,
    and these alone would give every concept a negative effect.

    Args:
        cell: of any comparison.
        labels_N: labels of each row of the pool (`vtcav_ray.text.label_sets`); a video with several is of each class.
        class_name: in any spelling.
    """
    names, place_N = np.unique(labels_N, return_inverse=True)
    keep_N = np.array([not has_label(name, class_name) for name in names.tolist()], bool)[place_N]
    own, other = keep_N[cell.concept_rows], keep_N[cell.other_rows]
    if cell.paired:  # a clip and its twin are of one video
        other = own
    return dataclasses.replace(cell, concept_rows=cell.concept_rows[own], other_rows=cell.other_rows[other])


def lost_a_side(cell: Cell, left: Cell) -> bool:
    """Return whether a side of a comparison has no clips left (`without_class`)."""
    sides = ((cell.concept_rows, left.concept_rows), (cell.other_rows, left.other_rows))
    return any(len(before) > 0 and len(after) == 0 for before, after in sides)


def _randoms(pool: Pool, concept: str, own: dict[str, Rows], by_video: dict[str, Rows]) -> Rows:
    """Return the random clips of a concept's kind: all, or those that match its labels."""
    if pool.matching is None:
        return np.concatenate(list(by_video.values()))
    return matched_rows(own, by_video, pool.matching, concept)


def _twins(clip_ids: Sequence[str], own: Rows, other: Rows, concept: str, place: str) -> tuple[Rows, Rows]:
    """Return the rows of clips that have a twin, and of the twins: their ids differ only in where they begin.

    Twins are cut from the same track at the same frames, or are the two own clips of a pair.

    Args:
        place: where the ids of the other side begin.
    """
    twin_of = {clip_ids[i].removeprefix(place): i for i in other}
    pairs = [(i, twin_of.get(clip_ids[i].removeprefix(f"concept/{concept}/"))) for i in own]
    both = [(i, j) for i, j in pairs if j is not None]
    return np.array([i for i, _ in both], np.int64), np.array([j for _, j in both], np.int64)


def _rest(pool: Pool, jobs: Sequence[CavJob], concept: str, kind: str, concepts: Mapping[str, Rows]) -> Rows:
    """Return the rows of the kind's other concepts, without the concept's own videos."""
    others = {job.concept for job in jobs if job.kind == kind and not job.is_null and job.concept != concept}
    own = {pool.video_id[i] for i in concepts[concept]}
    # One clip may belong to several concepts (the same track). In "rest" its video counts once, through the mean.
    return np.array([i for o in sorted(others) for i in concepts[o] if pool.video_id[i] not in own], np.int64)
