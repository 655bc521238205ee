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


def test_a_new_run_equals_it(golden: dict[str, Any], tmp_path: Path) -> None:
    """Also in other shards: they change keys and the order of rows, and no figure."""
    kept = tmp_path / "kept"
    shutil.move(golden_runs.ROOT, kept)
    golden_runs.ROOT.mkdir()
    shutil.copytree(kept / "run" / "world", golden_runs.RUN / "world")  # with the files' times
    made = golden_runs.run_everything(shard_videos=None if EXACT else 7)
    if EXACT:
        assert made == golden
    for name in ("run", "rerun"):
        record, wanted = made[name]["record"], golden[name]["record"]
        assert record["keys"].keys() == wanted["keys"].keys()
        record["config"].pop("shard_videos", None)
        assert {**record, "keys": None} == {**wanted, "keys": None}
    old, new = tables_below(kept), tables_below(golden_runs.ROOT)
    assert old.keys() == new.keys()
    for folder, table in old.items():
        same(table, new[folder], str(folder))


def tables_below(root: Path) -> dict[Path, pa.Table]:
    """Return the tables of all stages by folder, without its key, sorted by their columns of text and of integers."""
    folders = {path.parent for path in root.rglob("*.parquet") if path.relative_to(root).parts[1] != "world"}
    found = {}
    for folder in folders:
        table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
        keys = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_integer(f.type)]
        run, stage, _, *rest = folder.relative_to(root).parts
        found[Path(run, stage, *rest)] = table.sort_by([(name, "ascending") for name in keys])
    return found


def test_every_file_has_the_columns_of_its_table(golden: dict[str, Any]) -> None:
    schemas = {**tables.EMPTY_SCHEMAS, **tables.SIDE_SCHEMAS}
    files = [p.relative_to(golden_runs.ROOT) for p in golden_runs.ROOT.rglob("*.parquet")]
    of_stages = [path for path in files if path.parts[1] != "world"]
    assert of_stages
    for path in of_stages:
        assert pq.read_schema(golden_runs.ROOT / path).names == schemas[path.parts[3]].names, path
