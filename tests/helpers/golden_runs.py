"""Small planted runs whose stage keys, tables and records a refactor must reproduce.

    python -m tests.helpers.golden_runs   # write golden.json and run.zip again, after a change of results on purpose

`golden.json` has, for a run, its rerun on another checkpoint, its Grad-CAM and the comparison of the two: the stage
keys, the fields of run.json that do not depend on time, and a digest of every table. `run.zip` is the run folder.
The folder's path and the files' times are part of the keys, which notice a replaced video by them. So both are fixed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import vtcav_ray
from tests.helpers.small_runs import without_ray
from vtcav_ray.compare import compare_runs
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.gradcam.run import run_gradcam
from vtcav_ray.runs.run import Run
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.store.folder import Folder
from vtcav_ray.videos.rendered import rendered_world
from vtcav_ray.watch.rerun import rerun

HERE = Path(__file__).parents[1] / "golden"
GOLDEN, ARCHIVE = HERE / "golden.json", HERE / "run.zip"
ROOT = Path("/tmp/vtcav-ray-golden")
RUN = ROOT / "run"
CHECKPOINT = ROOT / "other.pth"
FILE_TIME = 1_700_000_000  # seconds since the epoch, of every rendered video
QUICKSTART = str(HERE.parents[1] / "configs" / "quickstart.yaml")
SMALL = [
    "videos.world.videos=32",
    "clips.frames=8",
    "clips.per_class=3",
    "clips.min_per_class=2",
    "clips.per_concept=4",
    "clips.min_per_concept=3",
    "clips.random_pool=8",
    "clips.concepts=[{name: moving up, motion: {direction: up}, kinds: [context]}, "
    "{name: cup, object: cup, kinds: [spatial, spatiotemporal], controls: [frozen]}]",
    "activations.layers=[early@moving, middle, late]",
    "cavs.random_sets=6",
    "scores.permutations=200",
    "scores.bootstrap=100",
    "gradcam.layers=[middle]",
    "gradcam.max_clips=2",
    "gradcam.overlays=1",
    "gradcam.compare=[]",
]
RECORD_FIELDS = ("config", "keys", "status", "warnings", "base")


def config() -> Config:
    return load_config(QUICKSTART, SMALL, out=str(RUN))


def render() -> None:
    """Render the planted world into an empty run folder, with fixed file times."""
    shutil.rmtree(ROOT, ignore_errors=True)
    RUN.mkdir(parents=True)
    world = config().videos.world
    assert world is not None
    set_times(Path(rendered_world(world, Folder(str(RUN))).url))


def set_times(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (FILE_TIME, FILE_TIME))


def other_checkpoint() -> None:
    """Write the packaged recogniser with one tensor's bytes changed; the file has the same bytes on every machine."""
    with zipfile.ZipFile(resolve_asset("asset:recogniser.pth")) as source, zipfile.ZipFile(CHECKPOINT, "w") as copy:
        largest = max((i for i in source.infolist() if "/data/" in i.filename), key=lambda i: i.file_size).filename
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename == largest:  # float32: reverse the last third
                cut = len(data) // 12 * 8
                data = data[:cut] + _reversed_floats(data[cut:])
            copy.writestr(zipfile.ZipInfo(entry.filename), data)


def _reversed_floats(data: bytes) -> bytes:
    return b"".join(data[i : i + 4] for i in range(len(data) - 4, -1, -4))


def run_everything() -> dict[str, Any]:
    """Run, rerun, Grad-CAM and compare in `ROOT`, without Ray; reuse complete stages.

    Returns:
        What `golden.json` holds.
    """
    settings = config()
    other_checkpoint()
    with without_ray():
        run = vtcav_ray.run(settings)
        other = rerun(run.url, str(CHECKPOINT), out=str(ROOT / "rerun")).run
        run = run_gradcam(settings)
    return {
        "run": facts(run),
        "rerun": facts(other),
        "compare": digest_of(compare_runs([run, other])),
    }


def facts(run: Run) -> dict[str, Any]:
    """Return keys, record and table digests of one run."""
    record = json.loads((Path(run.url) / "run.json").read_text())
    return {
        "keys": dict(run.keys),
        "record": {name: record[name] for name in RECORD_FIELDS if name in record},
        "tables": {stage: table_digests(run.stage(stage).folder.url) for stage in run.keys},
    }


def table_digests(folder: str) -> dict[str, str]:
    """Return path below a stage's folder -> digest of the table in it."""
    root = Path(folder)
    return {str(p.relative_to(root)): digest_of(pq.read_table(p)) for p in sorted(root.rglob("*.parquet"))}


def digest_of(table: pa.Table) -> str:
    """Return a digest of a table's schema and values, independent of the Parquet and Arrow versions."""
    digest = hashlib.sha256(str(table.schema.remove_metadata()).encode())
    for name in table.column_names:
        digest.update(repr(table[name].to_pylist()).encode())
    return digest.hexdigest()[:16]


def pack() -> None:
    """Write the run folder to `run.zip`, without the pages, which can be written again."""
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(ROOT.rglob("*")):
            if path.is_file() and path != CHECKPOINT and path.suffix != ".html":
                archive.write(path, str(path.relative_to(ROOT)))


def unpack() -> None:
    """Unpack the committed run folder at its fixed path, with the original times of its files."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(ROOT)
    set_times(RUN / "world")


def main() -> None:
    render()
    golden = run_everything()
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    pack()
    print(f"{GOLDEN} and {ARCHIVE} ({ARCHIVE.stat().st_size / 1e6:.1f} MB) are written.")


if __name__ == "__main__":
    main()
