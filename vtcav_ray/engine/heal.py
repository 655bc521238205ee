"""Recompute the broken shards of a complete stage, and only those.

They are computed in a separate folder beside the stage. Shards are deterministic, so the bytes normally come out the
same, which the manifest's digests prove. Then the shards are copied back: the stage and everything computed from it
stay valid. If the bytes differ (another version of a library, another kind of machine, a source that has changed
since), later stages were computed from bytes that are gone. Then the intact shards are copied into the separate folder,
and it replaces the stage, as after `vtcav retry-failed`: later stages get new keys and are recomputed from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vtcav_ray.engine.attempts import ATTEMPTS
from vtcav_ray.runs.damage import Damage, same_files
from vtcav_ray.runs.retry import supersede
from vtcav_ray.runs.stage import Shard, Work
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.records import COMMITS, BrokenFile, FileEntry, canonical_digest

logger = logging.getLogger(__name__)

FINAL = "final"  # the shard that a stage computes from its others
Shards = Mapping[str, Mapping[str, FileEntry]]
# Runs shards into a folder and yields a summary of each.
Run = Callable[[list[Shard], StageFolder], Iterable[Any]]


@dataclass(frozen=True)
class Healing:
    """A complete output with broken shards.

    Args:
        output: the stage's folder.
        work: the stage's current plan.
        planned: the shards of the manifest.
        damage: the damage that was found; not of the manifest.
    """

    output: StageFolder
    work: Work
    planned: Shards
    damage: Collection[Damage]

    @property
    def broken(self) -> list[str]:
        """The planned shards to recompute."""
        return sorted({d.shard for d in self.damage if d.shard in self.planned and d.shard is not None})

    @property
    def possible(self) -> bool:
        """Whether the stage still has the shards of its manifest."""
        names = {shard.name for shard in self.work.shards} | ({FINAL} if self.work.finish is not None else set())
        return names == set(self.planned)

    def run(self, run: Run, manifest: Mapping[str, Any]) -> StageFolder:
        """Recompute the broken shards.

        Args:
            run: runs shards into a folder.
            manifest: of the output; the basis of a new one if the shards come out different.

        Returns:
            The output that counts from now on.
        """
        self._remove_strangers()
        recomputed = stage_folder(self.output.run, self.output.stage, heal_key(self.output.key))
        wanted = [shard for shard in self.work.shards if shard.name in self.broken]
        self._copy_quarantine(recomputed, wanted)
        there = recomputed.readable_records()[0]
        for _ in run([shard for shard in wanted if shard.name not in there], recomputed):
            pass
        same = [self._put_back(recomputed, shard.name) for shard in wanted]
        if all(same) and FINAL in self.broken:
            assert self.work.finish is not None
            recomputed.commit(FINAL, self.work.finish(self.output))
            same.append(self._put_back(recomputed, FINAL))
        if all(same):
            recomputed.remove()
            return self.output
        return self._replace(recomputed, manifest)

    def _remove_strangers(self) -> None:
        """Delete the records of unplanned shards: no table has their rows, but would if the manifest were lost."""
        for found in self.damage:
            if found.shard not in self.planned and found.of_record:
                self.output.folder.remove(found.file)

    def _put_back(self, recomputed: StageFolder, shard: str) -> bool:
        """Copy a recomputed shard back into the stage. Return False if it came out different."""
        record = recomputed.record(shard)
        if not same_files(record["files"], self.planned[shard]):
            if any(d.shard == shard and not d.of_record for d in self.damage):
                return False
            # Only its record was broken. Its files are intact, and later stages were computed from them.
            self.output.folder.write_json(f"{COMMITS}/{shard}.json", {**record, "files": dict(self.planned[shard])})
            return True
        _copy(recomputed, self.output, shard, record["files"])
        logger.info("shard %s of %s was recomputed, byte for byte the same", shard, self.output.stage)
        return True

    def _replace(self, recomputed: StageFolder, manifest: Mapping[str, Any]) -> StageFolder:
        logger.warning(
            "%s: broken shards of the stage %s came out different (another version, machine or source). "
            "Later stages will be recomputed.",
            self.output.folder.url,
            self.output.stage,
        )
        made = recomputed.committed()
        for shard, files in self.planned.items():
            if shard not in made and not (shard == FINAL and self.work.finish is not None):
                _copy(self.output, recomputed, shard, files)
        if self.work.finish is not None:
            recomputed.commit(FINAL, self.work.finish(recomputed))
        known = {"stage", "key", "ingredients", "shards", "rows", "bytes", "metrics", "warnings"}
        extra = {name: value for name, value in manifest.items() if name not in known}
        recomputed.finish(
            manifest["ingredients"],
            {**extra, "warnings": list(self.work.warnings), "healed_from": self.output.key},
            self.planned,
        )
        supersede(self.output, recomputed)
        return recomputed

    def _copy_quarantine(self, recomputed: StageFolder, shards: list[Shard]) -> None:
        """Copy the history of these shards: their bad videos are known, so no process has to die over them again."""
        for shard in shards:
            name = f"{ATTEMPTS}/{shard.name}.json"
            if not recomputed.folder.exists(name) and self.output.folder.exists(name):
                try:
                    history = self.output.folder.read_json(name)
                except BrokenFile as error:
                    logger.warning("%s", error)
                    continue
                if isinstance(history, dict) and history.get("failures"):
                    recomputed.folder.write_json(name, {**history, "run": "", "interrupted": 0})


def heal_key(key: str) -> str:
    """Return the key of the separate folder in which broken shards of the output `key` are recomputed."""
    return canonical_digest({"heal_of": key})[:16]


def _copy(source: StageFolder, target: StageFolder, shard: str, files: Mapping[str, FileEntry]) -> None:
    """Copy a shard, its record last. Each file is checked against its record while it is copied."""
    for path in files:
        target.folder.write_bytes(path, source.reading(path, lambda file: bytes(file.read())))
    name = f"{COMMITS}/{shard}.json"
    target.folder.write_json(name, source.folder.read_json(name))
