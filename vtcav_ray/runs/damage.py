"""Whether what is in a stage's folder is what was written there: every file against its record, and the records against
the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.records import COMMITS, MANIFEST, BrokenFile, FileEntry

THREADS = 8  # hashing lets other threads run, and an object store answers many at once


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        shard: that has to be made again; None: the manifest, or the whole stage.
        file: below the stage's folder.
        what: is wrong with it, in words.
    """

    shard: str | None
    file: str
    what: str

    @property
    def of_record(self) -> bool:
        """Whether it is about a commit record, and not about data."""
        return self.file.startswith(f"{COMMITS}/")


@dataclass(frozen=True)
class Examination:
    """What was found in one stage's folder.

    Attributes:
        shards, files: how many there should be.
        bytes: of the files that were hashed.
        damage: in order; empty: all is as it was written, and the stage is complete.
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
        damage.append(Damage(None, MANIFEST, f"it is not there: the stage is not complete ({len(records)} shards are)"))
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
    """Read every file of some shards, and name those that are not what was written."""
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
        return "it is not there"
    if size != entry["bytes"]:
        return f"it has {size} bytes, and was written with {entry['bytes']}"
    return None if digest == entry["sha256"] else "its bytes are not those that were written (SHA-256)"


def _unlike_the_plan(
    committed: Mapping[str, Mapping[str, FileEntry]], planned: Mapping[str, Mapping[str, FileEntry]], broken: set[str]
) -> list[Damage]:
    """Records that are lost, that are of no planned shard, or that say other things than the manifest."""
    found = []
    for shard in sorted({*committed, *planned} - broken):
        if shard not in committed:
            what = "the shard's commit record is not there"
        elif shard not in planned:
            what = "the stage's manifest has no such shard"
        elif _content(committed[shard]) != _content(planned[shard]):
            what = "it says other things of the shard's files than the manifest"
        else:
            continue
        found.append(Damage(shard, f"{COMMITS}/{shard}.json", what))
    return found


def _content(files: Mapping[str, FileEntry]) -> dict[str, tuple[int, int, str]]:
    return {path: (entry["rows"], entry["bytes"], entry["sha256"]) for path, entry in files.items()}


def same_files(one: Mapping[str, FileEntry], other: Mapping[str, FileEntry]) -> bool:
    """Whether two shards consist of the same bytes."""
    return _content(one) == _content(other)
