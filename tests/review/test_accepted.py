"""The clips that are left out, and why; reading a stage's folder leaves them out."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.helpers.review_run import NASTY, all_rows
from vtcav_ray import tables
from vtcav_ray.clips.decisions import Decisions, Subject
from vtcav_ray.clips.usable import AcceptedRows, leave_out
from vtcav_ray.runs.run import Run

CLIPS = pa.Table.from_pylist(all_rows(), schema=tables.CLIPS)
BALL = Subject("concept", "ball/spatiotemporal")


def ids(name: str, kind: str) -> list[str]:
    return [r["clip_id"] for r in all_rows() if (r["name"], r["kind"]) == (name, kind)]


def test_nothing_decided_leaves_nothing_out() -> None:
    found = leave_out(CLIPS, {}, Decisions())
    assert (found.reasons, found.warnings) == ({}, [])


def test_controls_go_with_their_twins() -> None:
    first, *rest = ids("ball", "spatiotemporal")
    decisions = Decisions().changed([(BALL, "reject"), (Subject("concept", BALL.name, first), "accept")])
    found = leave_out(CLIPS, {}, decisions, min_videos=4)
    assert set(found.reasons) == {*rest, *ids("ball", "frozen")[1:]}
    assert any("keeps 1 of its 6 source videos, fewer than 4" in w for w in found.warnings)


def test_a_control_can_be_rejected_alone_by_hand() -> None:
    found = leave_out(CLIPS, {}, Decisions().changed([(Subject("concept", "ball/frozen"), "reject")]))
    assert set(found.reasons) == set(ids("ball", "frozen"))


def test_only_accepted_clips_where_that_is_asked_for() -> None:
    accepted = Decisions().changed([(BALL, "accept"), (Subject("class", "lift"), "accept")])
    found = leave_out(CLIPS, {}, accepted, undecided_count=False)
    left = {r["clip_id"] for r in all_rows()} - set(found.reasons)
    used = {r["clip_id"] for r in all_rows() if r["set"] == "random" or r["name"] in ("lift",)}
    assert left == used | set(ids("ball", "spatiotemporal")) | set(ids("ball", "frozen"))
    assert set(found.reasons.values()) == {"undecided"}


def test_a_duplicate_takes_the_place_of_a_rejected_original() -> None:
    a, b, c, *_ = ids(NASTY, "spatial")
    repeats = {b: a, c: a}
    assert leave_out(CLIPS, repeats, Decisions()).reasons == {b: "duplicate", c: "duplicate"}
    rejected = Decisions().changed([(Subject("concept", "", a), "reject")])
    assert leave_out(CLIPS, repeats, rejected).reasons == {a: "rejected", c: "duplicate"}


def test_decisions_about_what_is_not_there_are_reported() -> None:
    found = leave_out(CLIPS, {}, Decisions().changed([(Subject("concept", "bal/spatial"), "reject")]))
    assert found.reasons == {}
    assert "Did you mean 'ball/spatial'" in found.warnings[0]


@pytest.mark.parametrize("columns", [None, ["name"], ["clip_id", "kind"]])
def test_a_folder_is_read_without_the_rows(run: Run, columns: list[str] | None) -> None:
    out = ids("ball", "spatial")
    part = AcceptedRows.of(run.stage("clips"), out).read("clips", columns=columns)
    assert part is not None
    assert part.column_names == (columns or tables.CLIPS.names)
    assert part.num_rows == CLIPS.num_rows - len(out)
    if columns != ["name"]:
        assert set(part["clip_id"].to_pylist()) == set(CLIPS["clip_id"].to_pylist()) - set(out)
    assert AcceptedRows.of(run.stage("clips"), CLIPS["clip_id"].to_pylist()).read("clips") is None
