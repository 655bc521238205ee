"""Check a stage's folder for damage: every file against its record, and the records against the plan."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.records import COMMITS, MANIFEST, BrokenFile, FileEntry

THREADS = 8  # hashing releases the interpreter lock, and an object store answers many requests at once


@dataclass(frozen=True)
class Damage:
    """A file that differs from what was written, or is missing.

    Attributes:
        shard: the shard to recompute; None: the damage is in the manifest, or in the whole stage.
        file: path below the stage's folder.
        what: what is wrong with it, in words.
    """

    shard: str | None
    file: str
    what: str

    @property
    def of_record(self) -> bool:
        """Whether a commit record is damaged, not data."""
        return self.file.startswith(f"{COMMITS}/")


@dataclass(frozen=True)
class Examination:
    """The result of checking one stage's folder.

    Attributes:
        shards, files: the expected numbers.
        bytes: total size of these files, as recorded.
        damage: in the order of the shards; empty: every file is as written, and the stage is complete.
    """

    shards: int
    files: int
    bytes: int
    damage: tuple[Damage, ...]


def examine(output: StageFolder) -> Examination:
    """Check a stage's manifest, its commit records, and every byte of its files."""
    damage: list[Damage] = []
    planned: Mapping[str, Mapping[str, FileEntry]] | None = None
    records, broken = output.readable_records()
    damage += [Damage(shard, f"{COMMITS}/{shard}.json", error.what) for shard, error in broken.items()]
    committed = {shard: record["files"] for shard, record in records.items()}
    try:
        planned = output.manifest()["shards"]
    except FileNotFoundError:
        damage.append(
            Damage(None, MANIFEST, f"it is missing: the stage is not complete ({len(records)} shards are done)")
        )
    except BrokenFile as error:
        damage.append(Damage(None, MANIFEST, error.what))
    if planned is not None:
        damage += _unlike_the_plan(committed, planned, set(broken))
    shards = committed if planned is None else planned
    damage += broken_files(output, shards)
    sizes = [entry["bytes"] for files in shards.values() for entry in files.values()]
    order = {shard: place for place, shard in enumerate(sorted(shards))}
    ranked = sorted(damage, key=lambda d: (order.get(d.shard or "", -1), d.file))
    return Examination(len(shards), len(sizes), sum(sizes), tuple(ranked))


def broken_files(output: StageFolder, shards: Mapping[str, Mapping[str, FileEntry]]) -> list[Damage]:
    """Read every file of some shards, and return those that differ from what was written."""
    wanted = [(shard, path, entry) for shard, files in shards.items() for path, entry in files.items()]
    if not wanted:
        return []
    with ThreadPoolExecutor(min(THREADS, len(wanted)), "verify") as pool:
        found = pool.map(lambda one: _look(output, one[1], one[2]), wanted)
        return [Damage(shard, path, what) for (shard, path, _), what in zip(wanted, found, strict=True) if what]


def _look(output: StageFolder, path: str, entry: FileEntry) -> str | None:
    try:
        size, digest = output.folder.size_and_digest(path)
    except FileNotFoundError:
        return "it is missing"
    if size != entry["bytes"]:
        return f"it has {size} bytes instead of {entry['bytes']}"
    return None if digest == entry["sha256"] else "its bytes differ from those that were written (SHA-256)"


def _unlike_the_plan(
    committed: Mapping[str, Mapping[str, FileEntry]], planned: Mapping[str, Mapping[str, FileEntry]], broken: set[str]
) -> list[Damage]:
    """Return records that are missing, that belong to no planned shard, or that contradict the manifest."""
    found = []
    for shard in sorted({*committed, *planned} - broken):
        if shard not in committed:
            what = "the shard's commit record is missing"
        elif shard not in planned:
            what = "the stage's manifest has no such shard"
        elif _content(committed[shard]) != _content(planned[shard]):
            what = "its entries for the shard's files differ from the manifest's"
        else:
            continue
        found.append(Damage(shard, f"{COMMITS}/{shard}.json", what))
    return found


def _content(files: Mapping[str, FileEntry]) -> dict[str, tuple[int, int, str]]:
    return {path: (entry["rows"], entry["bytes"], entry["sha256"]) for path, entry in files.items()}


def same_files(one: Mapping[str, FileEntry], other: Mapping[str, FileEntry]) -> bool:
    """Return whether two shards consist of the same bytes."""
    return _content(one) == _content(other)
