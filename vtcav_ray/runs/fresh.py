"""`--fresh`: recompute a run's output beside the existing output, so that readers lose nothing.

An existing stage is recomputed in a separate folder, which supersedes the old one when the work begins (as in
`vtcav_ray.runs.retry`), so a stopped run resumes there. Keys of later stages contain the keys of their inputs, so their
folders are new as well. `run.json` lists the replaced output (`retired`), and the next run of the folder removes it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vtcav_ray.runs.carry import comparable
from vtcav_ray.runs.retry import SUPERSEDED, newest, supersede
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import BrokenFile, canonical_digest

logger = logging.getLogger(__name__)

Retired = tuple[str, str]  # stage, key


def fresh_attempt(output: StageFolder) -> StageFolder:
    """Return an empty output that replaces `output` or its newest successor; that one itself if it is empty."""
    last = newest(output)
    attempt = last
    while attempt.folder.names(""):
        attempt = stage_folder(output.run, output.stage, canonical_digest({"fresh_of": attempt.key})[:16])
    if attempt.key != last.key:
        supersede(last, attempt)
    return attempt


def replaced(
    old: StageFolder,
    new: StageFolder,
    ingredients: Mapping[str, Any],
    now: Mapping[str, str],
    gone: Collection[Retired],
) -> bool:
    """Return whether `new` is a fresh run's replacement for `old`, a stage's output in the previous run.

    A folder may hold the outputs of several configs; those of other configs stay.

    Args:
        ingredients: of `new`.
        now: stage -> key in the fresh run so far.
        gone: outputs that the fresh run has replaced so far.
    """
    if old.key == new.key:
        return False
    try:
        made_from = old.manifest()["ingredients"]
    except (FileNotFoundError, BrokenFile):
        return False
    inputs = made_from.get("inputs", {}).items()
    same_inputs = all((name, key) in gone or now.get(name) == key for name, key in inputs)
    return same_inputs and comparable(made_from, ingredients)


def remove_retired(folder: Folder, retired: Iterable[Retired], used: Collection[Retired]) -> None:
    """Remove outputs that a fresh run has replaced. A pointer from an output to its successor stays.

    Args:
        folder: the run folder.
        retired: (stage, key) of each output to remove.
        used: (stage, key) that some run still names; these are kept.
    """
    for stage, key in retired:
        if (stage, key) in used:
            continue
        output = stage_folder(folder, stage, key)
        output.folder.remove("manifest.json")  # first, so that a half-removed output does not count as complete
        for name in output.folder.names(""):
            if name != SUPERSEDED:
                output.folder.remove(name)
        logger.info("%s was replaced by a fresh run and is now removed", output.folder.url)
