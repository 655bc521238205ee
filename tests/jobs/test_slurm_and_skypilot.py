"""cluster/slurm.sbatch and cluster/skypilot.yaml: valid for their readers, and they call commands that exist.

The batch script runs with stand-ins for Slurm's and Ray's commands, which write down how they were called. Neither file
runs on a real cluster here. `ray symmetric-run` does not run either: it ends with `ray stop`, which would stop the Ray
of other tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from vtcav_ray import cli
from vtcav_ray.config.loading import load_config

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "cluster" / "slurm.sbatch"
SKYPILOT = ROOT / "cluster" / "skypilot.yaml"
# Of SkyPilot 0.14: `sky.utils.schemas.get_task_schema` and `get_resources_schema`, without those for services.
TASK_KEYS = {"name", "num_nodes", "resources", "workdir", "envs", "secrets", "setup", "run", "file_mounts", "volumes"}
RESOURCE_KEYS = {
    "accelerators", "any_of", "autostop", "cpus", "disk_size", "disk_tier", "image_id", "infra", "instance_type",
    "job_recovery", "labels", "memory", "network_tier", "ordered", "ports", "priority", "use_spot",
}  # fmt: skip


def lint(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, "-s", "bash", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def check_vtcav_run(command: list[str]) -> dict[str, Any]:
    """Check a `vtcav run` with the command's own parser, and its overrides with the config's."""
    assert command[:2] == ["vtcav", "run"]
    run = typer.main.get_command(cli.app).commands["run"]  # type: ignore[attr-defined]
    found = run.make_context("run", command[2:]).params
    config = load_config(str(ROOT / found["config"]), found["overrides"] or [], out=found["out_url"])
    return {**found, "loaded": config}


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment like a Slurm job's, in which every outside command writes its arguments to a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {
        "scontrol": "printf 'node-3\\nnode-4\\n'; seq -f node-%g 5 20000",  # more than a pipe holds
        "srun": 'case "$*" in *hostname*) echo "10.0.0.3 fe80::1";; esac',
        "ray": "echo token",
    }
    for name, answer in answers.items():
        script = f"#!/bin/bash\nprintf '%q ' {name} \"$@\" >> {tmp_path}/calls\necho >> {tmp_path}/calls\n{answer}\n"
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node-[3-4]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "1",
    }


def test_the_batch_script_starts_ray_on_all_nodes_and_the_run_on_one(stand_ins: dict[str, str], tmp_path: Path) -> None:
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    lint(SLURM)
    arguments = ["configs/quickstart.yaml", "/shared/runs/a b", "--set", "seed=3"]
    done = subprocess.run(["bash", str(SLURM), *arguments], env=stand_ins, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call[0] for call in calls] == ["scontrol", "srun", "ray", "srun"]
    assert "--nodelist=node-3" in calls[1]
    last = calls[-1]
    separator = last.index("--")
    ray, command = last[last.index("ray") : separator], last[separator + 1 :]
    assert ray[:2] == ["ray", "symmetric-run"]
    address = ray[ray.index("--address") + 1]
    assert address == "10.0.0.3:24567"
    assert ray[ray.index("--min-nodes") + 1] == "2"
    assert curate_and_validate_ray_start_args(ray[2:]) == ["--num-cpus=16", "--num-gpus=1", "--include-dashboard=false"]
    found = check_vtcav_run(command)
    assert found["loaded"].run_url == "/shared/runs/a b"
    assert (found["loaded"].resources.address, found["loaded"].seed) == (address, 3)


def test_the_batch_script_takes_whole_nodes(stand_ins: dict[str, str]) -> None:
    options = [line.split()[1] for line in SLURM.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--exclusive", "--ntasks-per-node=1", "--requeue"} <= set(options)  # `ray stop` stops all Ray of a node
    done = subprocess.run(["bash", str(SLURM)], env=stand_ins, capture_output=True, text=True, check=False)
    assert (done.returncode, "usage: sbatch" in done.stderr) == (2, True)


@pytest.mark.slow
def test_ray_has_the_command_and_the_options() -> None:
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
    if ray is None:
        pytest.skip("the command `ray` is not on the PATH")
    done = subprocess.run([ray, "symmetric-run", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"--address", "--min-nodes"} <= set(done.stdout.split())
    start = subprocess.run([ray, "start", "--help"], capture_output=True, text=True, check=False).stdout
    assert {"--num-cpus", "--num-gpus", "--include-dashboard"} <= set(start.split())


def test_skypilot_takes_the_file(tmp_path: Path) -> None:
    task = yaml.safe_load(SKYPILOT.read_text())
    assert set(task) <= TASK_KEYS
    assert set(task["resources"]) <= RESOURCE_KEYS
    assert task["resources"]["image_id"].startswith("docker:registry.example.com/vtcav-ray:")
    assert task["envs"]["OUT"] is None  # SkyPilot then asks for `--env OUT=...`
    assert (ROOT / task["envs"]["CONFIG"]).is_file()
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/bash\n{task['run']}")
    lint(script)
    assert "ray stop" not in task["run"]  # it would stop SkyPilot's own Ray
    assert "symmetric-run" not in task["run"]


def test_skypilot_runs_the_command_on_the_first_node(tmp_path: Path) -> None:
    task = yaml.safe_load(SKYPILOT.read_text())
    templates = tmp_path / "sky_templates" / "ray"
    templates.mkdir(parents=True)
    (templates / "start_cluster").write_text("#!/bin/bash\necho started on $SKYPILOT_NODE_RANK\n")
    (templates / "start_cluster").chmod(0o755)
    (tmp_path / "vtcav").write_text("#!/bin/bash\nprintf '%q ' vtcav \"$@\"\n")
    (tmp_path / "vtcav").chmod(0o755)
    said = {}
    for rank in ("0", "1"):
        environment = {
            "HOME": str(tmp_path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SKYPILOT_NODE_RANK": rank,
            "SKYPILOT_NODE_IPS": "10.0.0.3\n10.0.0.4",
            "CONFIG": "configs/quickstart.yaml",
            "OUT": "s3://bucket/runs/a",
        }
        done = subprocess.run(["bash", "-c", task["run"]], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said[rank] = done.stdout.splitlines()
    assert said["1"] == ["started on 1"]
    found = check_vtcav_run(shlex.split(said["0"][1]))
    assert found["loaded"].resources.address == "10.0.0.3:6379"
    assert found["loaded"].run_url == "s3://bucket/runs/a"
