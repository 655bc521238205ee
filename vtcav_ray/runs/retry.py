"""Retry what failed, so that later stages see what was recovered and nothing else is recomputed.

A stage's key does not contain its failures: a video that could not be fetched on Monday may be available on Tuesday. So
a retry writes a new output beside the old one, under a derived key. It carries over what had no failure
(`vtcav_ray.runs.carry`) and works on the rest. If that recovered anything, one small write marks the old output as
superseded, and every later run, and every rerun that shares the folder, uses the new one. Keys of later stages contain
the keys of their inputs, so they are new as well, and these stages carry over what did not change.
"""

from __future__ import annotations

from typing import Any

from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.records import POINTER, BrokenFile, canonical_digest, checked, fix_of

SUPERSEDED = "superseded.json"


def retry_key(key: str) -> str:
    """Return the key of the output that a retry of the output `key` writes."""
    return canonical_digest({"retry_of": key})[:16]


def newest(output: StageFolder) -> StageFolder:
    """Return the output that counts: this one, or the newest one that supersedes it.

    Raises:
        BrokenFile: a pointer is damaged.
    """
    seen = {output.key}
    while output.folder.exists(SUPERSEDED):
        by = _successor(output)
        if by in seen:
            raise BrokenFile(f"{output.folder.url}/{SUPERSEDED}", "it leads back to itself", fix_of(SUPERSEDED))
        seen.add(by)
        output = stage_folder(output.run, output.stage, by)
    return output


def _successor(output: StageFolder) -> str:
    url = f"{output.folder.url}/{SUPERSEDED}"
    return checked(output.folder.read_json(SUPERSEDED), POINTER, url)["by"]


def supersede(old: StageFolder, new: StageFolder) -> None:
    """Mark `old` as superseded by `new`."""
    old.folder.write_json(SUPERSEDED, {"by": new.key})


def same_rows(old: StageFolder, new: StageFolder) -> bool:
    """Return whether two complete outputs hold the same tables, apart from failures."""
    return _content(old.manifest()) == _content(new.manifest())


def _content(manifest: dict[str, Any]) -> dict[str, str]:
    return {
        path: info["sha256"]
        for files in manifest["shards"].values()
        for path, info in files.items()
        if not path.startswith("failures/")
    }
