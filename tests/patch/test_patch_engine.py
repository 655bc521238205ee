"""`vtcav patch` after its process was killed; tests/engine/shared_ray/test_patch_on_ray.py runs it on Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.planted_run import PlantedRun, opened
from tests.helpers.waiting import wait_for
from vtcav_ray.patch.run import patch_run
from vtcav_ray.scores.choose import Wanted

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.usefixtures("no_ray")]

UP = "moving up/context"


KILLED = """
import sys
from tests.helpers.small_runs import without_ray
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.patch.run import patch_run
from vtcav_ray.responses import stage
from vtcav_ray.watch.rerun import reopened

stage.CLIPS_A_SHARD = 4
run, config, _ = reopened(sys.argv[1])
with without_ray():
    patch_run(run, config, Wanted(("lift",), ("early",), ("moving up/context",)))
"""


def test_a_killed_run_resumes_with_its_missing_shards(
    planted: PlantedRun, planted_copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(planted.copy(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", KILLED, own], cwd=Path(__file__).parents[2])

    def commits() -> list[Path]:
        return sorted(Path(own, "patch").glob("*/_commits/*.json"))

    try:
        wait_for(lambda: len(commits()) >= 2, process=process)
    finally:
        process.kill()
        process.wait()
    done = {p: p.read_bytes() for p in commits()}
    assert not list(Path(own, "patch").glob("*/manifest.json")), "it was killed too late"
    assert not Path(own, "patch.json").exists()
    monkeypatch.setattr("vtcav_ray.responses.stage.CLIPS_A_SHARD", 4)
    wanted = Wanted(("lift",), ("early",), (UP,))
    result = patch_run(*opened(own), wanted)
    manifest = result.manifest("patch")
    assert manifest["resumed"]
    assert len(manifest["shards"]) == 32 // 4 + 1
    assert {p: p.read_bytes() for p in done} == done
    uninterrupted = patch_run(*opened(planted_copy), wanted)
    for name in ("patched", "patch_effects"):
        assert result.table(name).equals(uninterrupted.table(name)), name
