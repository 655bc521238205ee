"""The table of finished checkpoints: one record each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from vtcav_ray.store.commits import parquet_bytes
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import create_once
from vtcav_ray.watch.find import FoundCheckpoint

RECORDS = "records"
TABLE = "registry.parquet"

REGISTRY = pa.schema(
    [
        ("id", pa.string()),
        ("checkpoint", pa.string()),  # URL
        ("name", pa.string()),  # file name
        ("step", pa.int64()),  # last number in the name; null: no number
        ("fingerprint", pa.string()),
        ("size_bytes", pa.int64()),
        ("status", pa.string()),  # done or failed
        ("error", pa.string()),  # null: done
        ("run", pa.string()),  # path relative to the watch folder's parent; null: failed
        ("model", pa.string()),  # `<checkpoint>@<digest>`
        ("clips_key", pa.string()),  # runs with different keys used different clips
        ("scores_key", pa.string()),
    ]
)


@dataclass(frozen=True)
class CheckpointRecord:
    """The result of one checkpoint, determined by checkpoint and config. Its times are in the leases."""

    id: str
    checkpoint: str
    name: str
    step: int | None
    fingerprint: str
    size_bytes: int
    status: str
    error: str | None = None
    run: str | None = None
    model: str | None = None
    keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: FoundCheckpoint, status: str, **about: Any) -> CheckpointRecord:
        return cls(
            checkpoint.id,
            checkpoint.url,
            checkpoint.name,
            checkpoint.step,
            checkpoint.fingerprint,
            checkpoint.size,
            status,
            **about,
        )


class CheckpointRecords:
    """The records in a watch folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def ids(self) -> set[str]:
        """Return the IDs of the finished checkpoints."""
        return {n.removesuffix(".json") for n in self.folder.names(RECORDS) if n.endswith(".json")}

    def add(self, record: CheckpointRecord) -> bool:
        """Write a record unless it exists. Return whether it was written."""
        content = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
        return create_once(self.folder, f"{RECORDS}/{record.id}.json", content)

    def records(self) -> list[CheckpointRecord]:
        """Return all records in the order of training."""
        found = [CheckpointRecord(**self.folder.read_json(f"{RECORDS}/{name}.json")) for name in sorted(self.ids())]
        return sorted(found, key=lambda r: (r.step is None, r.step or 0, r.name, r.id))

    def write_table(self) -> list[CheckpointRecord]:
        """Rewrite the table and return its records. The same records give the same bytes."""
        records = self.records()
        rows = [{**asdict(r), "clips_key": r.keys.get("clips"), "scores_key": r.keys.get("scores")} for r in records]
        self.folder.write_bytes(TABLE, parquet_bytes(pa.Table.from_pylist(rows, schema=REGISTRY)))
        return records
