"""What is in a video's clips, in a few bytes: so that a later stage can tell whether it has seen the same before."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

CONTENTS = "contents"  # a side table of the stage `clips`, one row a video
SCHEMA = pa.schema([("video_id", pa.string()), ("sha256", pa.string())])


def contents_of(clips: pa.Table) -> pa.Table:
    """For each video, in the order in which the table names them, the SHA-256 of its clips' rows, frames included.

    Args:
        clips: CLIPS table; a video's rows need not lie together.
    """
    rows = []
    for video_id in clips["video_id"].unique().to_pylist():
        digest = hashlib.sha256()
        for row in clips.filter(pc.equal(clips["video_id"], video_id)).to_pylist():
            encoded = row.pop("encoded")
            digest.update(repr(sorted(row.items())).encode() + b"\0" + (encoded or b"") + b"\0")
        rows.append({"video_id": video_id, "sha256": digest.hexdigest()})
    return pa.Table.from_pylist(rows, schema=SCHEMA)
