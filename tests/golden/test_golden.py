"""A refactor changes no key and no figure: runs by older code count as complete, and a new run equals them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

import vtcav_ray
from tests.helpers import golden_runs
from tests.helpers.same_tables import same
from tests.helpers.small_runs import without_ray
from vtcav_ray import engine, tables
from vtcav_ray.pipeline import STAGES, Silence

pytestmark = pytest.mark.slow

# Set this on the machine that made run.zip: every digest must be equal. Other processors give other last bits.
EXACT = os.environ.get("VTCAV_GOLDEN_EXACT") == "1"


class Seen(Silence):
    def __init__(self) -> None:
        self.reused: list[str] = []
        self.ran: list[str] = []

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        (self.reused if reused else self.ran).append(stage)


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, Any]]:
    with FileLock(f"{golden_runs.ROOT}.lock"):  # the path is fixed: tests of another checkout wait
        golden_runs.unpack()
        yield json.loads(golden_runs.GOLDEN.read_text())
        shutil.rmtree(golden_runs.ROOT, ignore_errors=True)


def test_a_run_of_older_code_is_complete(golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_work(*_: object) -> Iterator[dict[str, Any]]:
        raise AssertionError("a shard was started")

    monkeypatch.setattr(engine, "run_shards", no_work)
    seen = Seen()
    run = vtcav_ray.run(golden_runs.config(), seen)
    assert seen.reused == [stage.name for stage in STAGES]
    assert seen.ran == []
    assert golden_runs.facts(run)["keys"] == golden["run"]["keys"]
    # The rerun and the Grad-CAM run are also complete.
    assert golden_runs.run_everything() == golden


def keep_only_the_videos(kept: Path) -> None:
    """Move the golden runs to `kept`, and copy the videos back, with the files' times."""
    shutil.move(golden_runs.ROOT, kept)
    golden_runs.ROOT.mkdir()
    shutil.copytree(kept / "run" / "world", golden_runs.RUN / "world")


def test_a_new_run_equals_it(golden: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    keep_only_the_videos(kept)
    made = golden_runs.run_everything()
    for name in ("run", "rerun"):
        assert made[name]["keys"] == golden[name]["keys"]
        assert made[name]["record"] == golden[name]["record"]
        for stage, digests in golden[name]["tables"].items():
            assert made[name]["tables"][stage].keys() == digests.keys(), stage
            if EXACT:
                assert made[name]["tables"][stage] == digests, stage
    if EXACT:
        assert made["compare"] == golden["compare"]
    for path in sorted(kept.rglob("*.parquet")):
        relative = path.relative_to(kept)
        if relative.parts[1] != "world":
            same(pq.read_table(path), pq.read_table(golden_runs.ROOT / relative), str(relative))


def test_every_file_has_the_columns_of_its_table(golden: dict[str, Any]) -> None:
    schemas = {**tables.EMPTY_SCHEMAS, **tables.SIDE_SCHEMAS}
    files = [p.relative_to(golden_runs.ROOT) for p in golden_runs.ROOT.rglob("*.parquet")]
    of_stages = [path for path in files if path.parts[1] != "world"]
    assert of_stages
    for path in of_stages:
        assert pq.read_schema(golden_runs.ROOT / path).names == schemas[path.parts[3]].names, path


def test_other_shards_change_no_figure(golden: dict[str, Any], tmp_path: Path) -> None:
    keep_only_the_videos(tmp_path / "kept")
    with without_ray():
        run = vtcav_ray.run(golden_runs.config().model_copy(update={"shard_videos": 7}))
    assert run.keys["clips"] != golden["run"]["keys"]["clips"]
    old, new = tables_below(tmp_path / "kept" / "run"), tables_below(golden_runs.RUN)
    assert {folder.split("/")[0] for folder in old.keys() - new.keys()} == {"gradcam"}
    for folder, table in new.items():
        same(old[folder], table, folder)


def tables_below(run: Path) -> dict[str, pa.Table]:
    """Return the tables of a run by their folders without the keys, sorted by the columns of text and of integers."""
    found = {}
    for folder in {path.parent for path in run.rglob("*.parquet")}:
        stage, _, *rest = folder.relative_to(run).parts
        if stage != "world":
            table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
            keys = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_integer(f.type)]
            found["/".join((stage, *rest))] = table.sort_by([(name, "ascending") for name in keys])
    return found
