"""Digests of the contents of videos' clips, with which a later stage recognises clips that it has seen before."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import tables

CONTENTS = "contents"  # a side table of the stage `clips`, one row per video


def contents_of(clips: pa.Table) -> pa.Table:
    """Return for each video the SHA-256 of its clips' rows, including frames, in the order of the table.

    Args:
        clips: CLIPS table; the rows of a video need not be consecutive.
    """
    rows = []
    for video_id in clips["video_id"].unique().to_pylist():
        digest = hashlib.sha256()
        for row in clips.filter(pc.equal(clips["video_id"], video_id)).to_pylist():
            encoded = row.pop("encoded")
            digest.update(repr(sorted(row.items())).encode() + b"\0" + (encoded or b"") + b"\0")
        rows.append({"video_id": video_id, "sha256": digest.hexdigest()})
    return pa.Table.from_pylist(rows, schema=tables.CONTENTS)
