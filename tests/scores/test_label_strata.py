"""Labels of source videos with several: which strata they make, and whose effects leave them out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray.cavs.mix import NO_LABEL
from vtcav_ray.cavs.plan import Pool
from vtcav_ray.cavs.stage import labels_of, labels_of_rows
from vtcav_ray.scores.cells import Cell, without_class
from vtcav_ray.scores.families import Labels, composition

VIDEOS = ["two", "two", "same two", "one", "none", "random"]
LABELS = ["drinking", "sitting", "drinking; sitting", "drinking", None, "sitting"]


@pytest.fixture
def label_of() -> dict[str, str]:
    clips: Any = SimpleNamespace(read=lambda name, columns: pa.table({"video_id": VIDEOS, "label": LABELS}))
    return labels_of(clips)


def test_a_video_has_the_labels_of_all_its_clips(label_of: dict[str, str]) -> None:
    assert label_of == {
        "two": "drinking; sitting", "same two": "drinking; sitting", "one": "drinking", "none": NO_LABEL,
        "random": "sitting",
    }  # fmt: skip


def cell() -> Cell:
    none = np.empty(0, np.int64)
    return Cell("c/full", "random", "full", none, none, np.arange(5), np.arange(5, 6), False)


def test_effects_on_each_of_its_classes_leave_a_video_out(label_of: dict[str, str]) -> None:
    """A video of two classes is never on a side of a comparison for either of them (`clips.concept_labels: other`)."""
    rows = labels_of_rows(label_of, VIDEOS)
    left = {name: without_class(cell(), rows, name) for name in ("drinking", "Sitting", "waving")}
    assert [VIDEOS[i] for i in left["drinking"].concept_rows] == ["none"]
    assert [VIDEOS[i] for i in left["Sitting"].concept_rows] == ["one", "none"]
    assert len(left["Sitting"].other_rows) == 0
    assert len(left["waving"].concept_rows) == 5


def test_the_same_labels_are_one_stratum(label_of: dict[str, str]) -> None:
    pool = Pool(["concept"] * 5 + ["random"], ["c/full"] * 5 + ["random/full"], ["full"] * 6, VIDEOS, None)
    labels = Labels.of(pool, label_of)
    assert labels.of_rows[0] == labels.of_rows[1]
    counts = {row.label: (row.n_concept, row.n_random) for row in composition(cell(), pool, labels)}
    assert counts == {
        "drinking; sitting": (2, 0), "drinking": (1, 0), NO_LABEL: (1, 0), "sitting": (0, 1),
    }  # fmt: skip
