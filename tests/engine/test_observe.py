"""What is visible of a run from outside: Ray's Prometheus port, log lines, and the addresses of its ports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.helpers.ports import free_ports

pytestmark = pytest.mark.slow

# A separate process, so that all that it prints and its workers log can be examined.
SCRIPT = """
import contextlib, functools, json, sys, time, urllib.request
from pathlib import Path
import psutil, pyarrow as pa, ray, ray.cloudpickle
from vtcav_ray.rows import Failure
from vtcav_ray.runs import logs
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.runs.stage import make_shards
from vtcav_ray.store.commits import Folder, ShardOutput, StageFolder

class Worker:
    def __call__(self, rows):
        bad = [v for v in rows["video_id"].to_pylist() if v.endswith("3")]
        failures = [Failure(video_id=v, error_kind="empty", message=f"{v} holds nothing") for v in bad]
        return ShardOutput({"tracks": rows}, failures, {"clips": 2, "batch_items": 3, "batch_slots": 4})

folder = sys.argv[1]
port = int(sys.argv[2])
logs.configure("json", "info")
ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
output = StageFolder("tracks", "k", Folder(folder + "/run/tracks/k"))
shards = make_shards(pa.table({"video_id": [f"v{i}" for i in range(20)]}), 4)
with ray_session(ResourcesConfig(num_cpus=2, metrics_port=port), keep=True):
    with logs.context(run=folder + "/run", stage="tracks"):
        done = list(run_shards(shards, Worker, output, StageResources()))
    listening = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a process may end meanwhile
            name = process.name()
            ports = process.net_connections(kind="tcp")
            listening |= {(name, port.laddr.ip) for port in ports if port.status == "LISTEN"}
    for _ in range(60):
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
        found = [line for line in text.splitlines() if line.startswith("ray_vtcav")]
        if sum(float(line.rsplit(" ", 1)[1]) for line in found if line.startswith("ray_vtcav_shards_total")) == 5:
            break
        time.sleep(0.5)
    session = Path(ray._private.worker._global_node.get_session_dir_path())
time.sleep(0.5)
lines = [line for path in (session / "logs").glob("worker-*") for line in path.read_text(errors="replace").splitlines()]
Path(folder, "seen.json").write_text(json.dumps({"metrics": found, "listening": sorted(listening), "lines": lines}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("observe")
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), str(folder), str(*free_ports(1))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads((folder / "seen.json").read_text()), "printed": done.stdout + done.stderr, "folder": folder}


def total(seen: dict[str, Any], name: str, **labels: str) -> float:
    wanted = [f'{k}="{v}"' for k, v in labels.items()]
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in seen["metrics"]
        if line.startswith(name + "{") and all(label in line for label in wanted)
    ]
    assert values, f"{name} is not at the port"
    return sum(values)


@pytest.mark.full
def test_prometheus_reads_what_the_workers_count(seen: dict[str, Any]) -> None:
    assert total(seen, "ray_vtcav_videos_total", stage="tracks") == 20
    assert total(seen, "ray_vtcav_clips_total", stage="tracks") == 10
    assert total(seen, "ray_vtcav_shards_total") == 5
    assert total(seen, "ray_vtcav_failures_total", stage="tracks", kind="empty") == 2
    assert total(seen, "ray_vtcav_stage_seconds_total", stage="tracks") > 0
    assert total(seen, "ray_vtcav_shard_seconds_bucket", le="+Inf") == 5
    assert re.search(r"ray_vtcav_batch_occupancy\{.*\} 0\.75$", "\n".join(seen["metrics"]), re.MULTILINE)


def test_each_failure_is_logged_once_with_its_run_stage_and_video(seen: dict[str, Any]) -> None:
    records = [json.loads(line) for line in seen["lines"] if line.startswith('{"time"')]
    failures = [r for r in records if r["level"] == "warning"]
    assert sorted(r["video"] for r in failures) == ["v13", "v3"]
    for record in failures:
        assert record["run"] == f"{seen['folder']}/run"
        assert (record["stage"], record["kind"]) == ("tracks", "empty")
        assert record["message"] == f"{record['video']} holds nothing"
        assert record["shard"]
    assert len([r for r in records if r["message"] == "shard committed"]) == 5


def test_the_driver_repeats_nothing_of_what_workers_write(seen: dict[str, Any]) -> None:
    lines = [line for line in seen["printed"].splitlines() if line.strip()]
    assert "holds nothing" not in seen["printed"]
    assert len(lines) == len(set(lines))


def test_the_ray_of_a_laptop_has_no_dashboard_and_no_job_server(seen: dict[str, Any]) -> None:
    """Both live in the dashboard's process. (Ray's core still listens to the network: docs/cluster.md.)"""
    names = {name for name, _ in seen["listening"]}
    assert any("gcs" in name for name in names), "the list of ports is that of Ray"
    assert [name for name in names if "dashboard" in name.lower() and "agent" not in name.lower()] == []
