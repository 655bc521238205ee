"""If the Ray that a run has started dies, the run stops with a clear error, and stdout stays valid JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.whole_run import SEED, SMALL, vtcav
from vtcav_ray.world import write_world

pytestmark = pytest.mark.slow


def child(parent: int, name: str) -> int:
    """Return the process id of a child by its program's name."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            its_parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            program = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if its_parent == parent and program.rpartition("/")[2] == name:
            return int(folder.name)
    raise AssertionError(f"no child {name} of {parent}")


@pytest.mark.full
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_run_whose_ray_is_killed_stops_with_a_sentence(tmp_path: Path, victim: str) -> None:
    write_world(str(tmp_path / "world"), videos=16, seed=SEED)
    config = {
        **SMALL,
        "shard_videos": 2,
        "videos": {"uri": str(tmp_path / "world")},
        "tracks": {"weights": "asset:detector.pt", "image_size": 128},
        "resources": {"num_cpus": 1},
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = vtcav("run", tmp_path / "c.yaml", "--out", tmp_path / "run", "--until", "tracks", "--json")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(json.loads(line))
        if said[-1]["event"] == "shard_done" and said[-1]["stage"] == "tracks":
            break
    os.kill(child(process.pid, victim), signal.SIGKILL)
    rest, errors = process.communicate(timeout=120)
    said += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 3, errors
    assert f"Ray's process `{victim}` on this machine has ended" in errors
    assert "Finished shards are kept: run again." in errors
    assert "Traceback" not in errors
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "stopped: tracks"
    assert victim in record["error"]
    assert {event["event"] for event in said} <= {"checked", "stage_started", "shard_done", "stage_finished"}
