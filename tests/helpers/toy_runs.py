"""Runs of the toy stage in processes of their own, and what holds after they were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.helpers import toy_stage
from vtcav_ray.config import StageResources
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder


def data_files(output: StageFolder) -> dict[str, bytes]:
    root = Path(output.folder.url)
    return {path: (root / path).read_bytes() for path in output.files("tracks")}


def committed_shards(folder: Path) -> set[str]:
    return stage_folder(Folder(str(folder)), "tracks", "k").committed()


def check(folder: Path, reference: StageFolder, kills: int, at_once: int = 3) -> None:
    """Check that the bytes are the same, and that at most the shards in progress at a death were repeated."""
    output = stage_folder(Folder(str(folder)), "tracks", "k")
    assert output.complete
    assert data_files(output) == data_files(reference)
    assert output.manifest()["rows"] == {"tracks": toy_stage.SHARDS * toy_stage.ROWS_A_SHARD}
    done = Counter(path.name.split("-")[1] for path in folder.glob("did-*"))
    assert len(done) == toy_stage.SHARDS
    assert sum(done.values()) - len(done) <= kills * at_once


def in_actors(**more: Any) -> StageResources:
    """Return the resources of a stage whose processes are not kept: `batch_size: auto` needs actors."""
    return StageResources(batch_size="auto", **more)


def start(folder: Path, actors: int = 3, **environment: str) -> subprocess.Popen[bytes]:
    """Start a separate driver, to be killed."""
    command = [sys.executable, str(Path(toy_stage.__file__)), str(folder), str(toy_stage.SHARDS), str(actors)]
    with folder.with_suffix(".errors").open("wb") as errors:
        return subprocess.Popen(command, stderr=errors, env=os.environ | environment)
