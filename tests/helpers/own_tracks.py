"""Tracks in the formats that other programs write, as small as they are published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, object]


def parquet_of_truth(world: Path, file: Path) -> None:
    """Write the planted world's truth as our minimal Parquet: a row per box."""
    rows = []
    for row in pq.read_table(world / "truth.parquet").to_pylist():
        for frame, box in zip(row["frames"], row["boxes"], strict=True):
            names = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
            about = {"video_id": row["video_id"], "track_id": row["object_id"], "label": row["object"]}
            rows.append({**about, "frame": frame, **names})
    pq.write_table(pa.Table.from_pylist(rows), file)


def mot_sequence(folder: Path, lines: Sequence[str], *, file: str = "gt/gt.txt", **info: object) -> None:
    """Write a sequence of MOTChallenge; `info` are the values of seqinfo.ini, None: no such file."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("".join(f"{line}\n" for line in lines))
    values = {"name": folder.name, "imDir": "img1", "frameRate": 25, "imExt": ".jpg", **info}
    body = "".join(f"{name}={value}\n" for name, value in values.items() if value is not None)
    (folder / "seqinfo.ini").write_text(f"[Sequence]\n{body}")


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id>
      <name>{name}</name>
      <size>24</size>
      <mode>interpolation</mode>
      <overlap>5</overlap>
      <start_frame>0</start_frame>
      <stop_frame>23</stop_frame>
      <frame_filter></frame_filter>
      <labels>
        <label><name>square</name><color>#c06060</color><type>any</type><attributes></attributes></label>
      </labels>
      <original_size><width>{width}</width><height>{height}</height></original_size>
      <source>{source}</source>
    </task>
    <dumped>2026-01-01 00:00:00.000000+00:00</dumped>
  </meta>
{tracks}
</annotations>
"""


def cvat_xml(
    tracks: Sequence[tuple[str, Sequence[Row]]],
    *,
    name: str = "task",
    source: str = "",
    size: tuple[int, int] = (128, 96),
) -> str:
    """Return `CVAT for video 1.1`: (label, boxes with `frame`, `box` and, optionally, `outside`) for each track."""
    parts = []
    for number, (label, boxes) in enumerate(tracks):
        parts.append(f'  <track id="{number}" label="{label}" source="manual">')
        for row in boxes:
            sides = " ".join(f'{k}="{v}"' for k, v in zip(("xtl", "ytl", "xbr", "ybr"), row["box"], strict=True))  # type: ignore[call-overload]
            parts.append(
                f'    <box frame="{row["frame"]}" keyframe="1" outside="{int(bool(row.get("outside")))}" '
                f'occluded="0" {sides} z_order="0">\n    </box>'
            )
        parts.append("  </track>")
    return CVAT.format(name=name, source=source, width=size[0], height=size[1], tracks="\n".join(parts))
