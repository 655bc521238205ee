"""Carry over results from an earlier output of the same stage, and compute only what is new or failed there.

A stage's output moves to a new folder when its inputs change: more videos, or videos that could not be read before.
Most of the work is then the same as before. The unit is a video (all its rows in the stage's list of shards), or the
whole shard if the rows name no video. A unit is carried over if its rows equal those of the earlier output and it had
no failure there. The rows hold everything that the work depends on, except the stage's own config, which must also be
equal. The worker computes the other units, and both kinds are written as one shard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.runs.stage import Shard, Worker
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.records import canonical_digest

FROM = "carried_from"  # column added to a shard's rows: the earlier shard that has this unit; null: compute it
UNIT = "video_id"


@dataclass(frozen=True)
class Carried:
    """The new list of shards, each with the column `carried_from`.

    Attributes:
        shards: the given shards, in the same order and with the same names.
        units: number of videos (or whole shards) in them.
        kept: number of units that are carried over.
    """

    shards: list[Shard]
    units: int
    kept: int


def comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether two outputs' ingredients differ only in their inputs: then equal rows give equal results."""
    # Compared as JSON, because a manifest holds lists where the config has tuples.
    one, other = ({k: v for k, v in some.items() if k != "inputs"} for some in (old, new))
    return canonical_digest(one) == canonical_digest(other)


def carry(
    shards: Sequence[Shard], earlier: Sequence[Shard], output: StageFolder, broken: Collection[str] = ()
) -> Carried:
    """Find, for every unit of `shards`, the shard of the earlier output that has it.

    Args:
        shards: the shards to write.
        earlier: the shards of the earlier output, with their rows.
        output: the earlier output; only its committed shards are used.
        broken: its shards whose files differ from what was committed; they are not used.
    """
    there = set(output.shards()) - set(broken)
    failed = _failed_units(output, there)
    found: dict[str, tuple[str, str]] = {}
    for shard in earlier:
        if shard.name in there:
            by_video = UNIT in shard.rows.column_names
            for unit, digest in _units(shard).items():
                if (shard.name, unit if by_video else None) not in failed:
                    found[unit] = (shard.name, digest)
    marked, units, kept = [], 0, 0
    for shard in shards:
        sources: dict[str, str | None] = {}
        for unit, digest in _units(shard).items():
            name, old_digest = found.get(unit, (None, ""))
            sources[unit] = name if digest == old_digest else None
        units += len(sources)
        kept += sum(source is not None for source in sources.values())
        column = pa.array([sources[unit] for unit in _unit_of_row(shard)], pa.string())
        marked.append(Shard(shard.name, shard.rows.append_column(FROM, column)))
    return Carried(marked, units, kept)


class CarryingWorker:
    """A worker that copies carried units from the earlier output and gives the others to the stage's own worker.

    It creates the stage's worker (and its model) when the first unit needs it; if all units are carried over, never.
    """

    def __init__(self, make_worker: Callable[[], Worker], output: StageFolder) -> None:
        self._make = make_worker
        self._output = output
        self._worker: Worker | None = None

    def __call__(self, rows: pa.Table) -> ShardOutput:
        carried = rows.filter(pc.is_valid(rows[FROM]))
        todo = rows.filter(pc.is_null(rows[FROM])).drop_columns([FROM])
        made = ShardOutput({})
        if todo.num_rows:
            self._worker = self._worker or self._make()
            made = self._worker(todo)
        order = rows[UNIT].to_pylist() if UNIT in rows.column_names else []
        return ShardOutput(
            _merged(self._old_tables(carried), made.tables, order),
            made.failures,
            {**made.metrics, "carried": float(len(set(_column(carried)))), "worked_on": float(len(set(_column(todo))))},
            made.warnings,
        )

    def _old_tables(self, carried: pa.Table) -> dict[str, list[pa.Table]]:
        """Return the rows of the carried units, by table."""
        wanted: dict[str, set[str]] = {}
        for source, unit in zip(carried[FROM].to_pylist(), _column(carried), strict=True):
            wanted.setdefault(source, set()).add(unit)
        parts: dict[str, list[pa.Table]] = {}
        for source, units in wanted.items():
            for path in sorted(self._output.shard_files(source)):
                name = path.rsplit("/", 1)[0]
                if name == "failures":
                    continue
                table = _without_field_ids(self._output.read_file(path))
                if UNIT in carried.column_names:
                    kept = table.filter(pc.is_in(table[UNIT], pa.array(sorted(units))))
                    if table.num_rows and not kept.num_rows:
                        continue  # a worker that got only these units would not write this file
                    table = kept
                parts.setdefault(name, []).append(table)
        return parts


def _merged(
    old: Mapping[str, list[pa.Table]], new: Mapping[str, pa.Table], order: Sequence[str]
) -> dict[str, pa.Table]:
    """Return old and new rows of each table, in the order in which the shard's rows name their videos."""
    place = {unit: i for i, unit in reversed(list(enumerate(order)))}
    merged = {}
    for name in sorted({*old, *new}):
        parts = [*old.get(name, ()), *([new[name]] if name in new else ())]
        table = pa.concat_tables(parts).combine_chunks()
        if place:
            places = [place[unit] for unit in table[UNIT].to_pylist()]
            rank = sorted(range(len(places)), key=places.__getitem__)  # stable
            table = table.take(pa.array(rank, pa.int64())).combine_chunks()
        merged[name] = table
    return merged


def _without_field_ids(table: pa.Table) -> pa.Table:
    """Return the table as it was before writing: a Parquet reader numbers the fields, and writing would keep that."""
    columns = [(field.name, _plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(columns, metadata=table.schema.metadata))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    return pa.list_(_plain(kind.value_type)) if pa.types.is_list(kind) else kind


def _column(rows: pa.Table) -> list[str]:
    return rows[UNIT if UNIT in rows.column_names else rows.column_names[0]].to_pylist()


def _unit_of_row(shard: Shard) -> list[str]:
    return shard.rows[UNIT].to_pylist() if UNIT in shard.rows.column_names else [shard.name] * shard.rows.num_rows


def _units(shard: Shard) -> dict[str, str]:
    """Return unit -> digest of its rows. The place from which a video's rows are read (`shard`) does not count."""
    named_by_video = UNIT in shard.rows.column_names and "shard" in shard.rows.column_names
    content = shard.rows.drop_columns(["shard"]) if named_by_video else shard.rows
    rows: dict[str, list[Any]] = {}
    for unit, row in zip(_unit_of_row(shard), content.to_pylist(), strict=True):
        rows.setdefault(unit, []).append(row)
    return {unit: canonical_digest(part) for unit, part in rows.items()}


def _failed_units(output: StageFolder, shards: Collection[str]) -> set[tuple[str, str | None]]:
    """Return (shard, video) of each failure in some shards, and (shard, None) for each shard with a failure."""
    failed: set[tuple[str, str | None]] = set()
    for path in output.files("failures"):
        name = path.rsplit("/", 1)[-1].removesuffix(".parquet")
        if name in shards:
            part = output.read_file(path, ["video_id"])
            failed.add((name, None))
            failed |= {(name, video) for video in part["video_id"].to_pylist()}
    return failed
