"""A real `ray job submit`: a head with its job server on this machine receives the entry points of jobs/."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.planted_run import PlantedRun
from tests.helpers.ports import free_ports
from tests.helpers.small_runs import SMALLEST, without_ray
from vtcav_ray.runs.run import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKEN = secrets.token_hex(32)
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Address of the job server of a separate head with its own ports and folder; only its processes are ended."""
    gcs, dashboard, client, metrics, agent = free_ports(5)
    folder = tempfile.mkdtemp(prefix="vtj", dir="/tmp")  # Ray's socket paths must be short
    environment = clean_environment()
    arguments = [
        RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=2",
        f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}", "--include-dashboard=true",
        f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}", "--object-store-memory=200000000",
    ]  # fmt: skip
    with open(f"{folder}/head.log", "w") as log:
        process = subprocess.Popen(
            arguments, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(f"{address}/api/version", process, Path(folder, "head.log"))
        yield address
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)  # nothing in it is needed, and an orderly stop takes 20 s
            process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        shutil.rmtree(folder, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    """Return the environment without another cluster and without the path that would hide the package's origin.

    `python` is the interpreter with Ray, as in every image of cluster/, because an entry point is a shell line there.
    """
    ours = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    path = os.pathsep.join([str(Path(sys.executable).parent), ours.get("PATH", os.defpath)])
    return ours | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert "ray_version" in json.load(answer)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"no job server: {log.read_text()}")


def submit(head: str, *entrypoint: str, working_dir: Path = ROOT) -> tuple[int, str]:
    """Submit as a user does. Return the exit status and the whole output, including the job's own."""
    done = subprocess.run(
        [RAY, "job", "submit", "--address", head, "--working-dir", str(working_dir), "--", *entrypoint],
        capture_output=True,
        text=True,
        timeout=300,
        env=clean_environment(),
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.full
def test_jobs_run_on_the_head_from_the_working_directory(head: str, tmp_path: Path) -> None:
    overrides = [part for setting in SMALLEST for part in ("--set", setting)]
    out = str(tmp_path / "run")
    command = ["python", "jobs/run.py", "configs/quickstart.yaml", "--until", "clips", "--out", out, *overrides]
    status, printed = submit(head, *command)
    assert status == 0, printed
    assert Run(out).manifest("tracks")["metrics"]["videos"] == 24
    assert Run(out).table("clips").num_rows > 0

    # The job's exit status is that of the command, and the message arrives.
    status, printed = submit(head, "python", "jobs/run.py", "nowhere.yaml")
    assert status != 0
    assert "No config at nowhere.yaml" in printed


def test_the_other_jobs_are_commands(
    planted: PlantedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run them in this process: what a job server does with any of them is tested above."""

    def job(name: str, *arguments: str) -> tuple[object, str]:
        """Return the exit status and what was printed."""
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}", *arguments])
        ended: object = None
        try:
            runpy.run_path(str(ROOT / "jobs" / name), run_name="__main__")
        except SystemExit as end:
            ended = end.code
        said = capsys.readouterr()
        return ended, " ".join((said.out + said.err).split())

    overrides = [part for setting in SMALLEST for part in ("--set", setting)]
    with without_ray():
        status, printed = job("benchmark.py", "--videos", "24", "--out", str(tmp_path / "run"), *overrides)
    assert status in (0, None), printed
    figures = json.loads(printed[printed.index('{"ray"') :])
    assert figures["stages"]["tracks"]["videos"] == 24
    assert figures["stages"]["tracks"]["videos_per_s"] > 0
    assert 0 < figures["stages"]["activations"]["batch_occupancy"] <= 1
    assert Run(str(tmp_path / "run")).table("scores").num_rows > 0
    # tests/runs/test_reruns.py does reruns.
    status, printed = job(
        "rerun.py", planted.run.url, "--checkpoint", str(tmp_path / "epoch_2.pth"), "--out", str(tmp_path / "rerun")
    )
    assert status not in (0, None)
    assert "No checkpoint at" in printed
    assert "epoch_2.pth" in printed
    # A watcher without a new checkpoint.
    status, printed = job(
        "watch.py", str(ROOT / "configs" / "quickstart.yaml"), "--once",
        "--checkpoints", f"{tmp_path}/none/*.pth", "--out", str(tmp_path / "watched"),
    )  # fmt: skip
    assert status in (0, None), printed
    assert "No checkpoint matches" in printed


def test_the_package_comes_from_the_working_directory(head: str, tmp_path: Path) -> None:
    """A changed checkout runs on the driver and on the workers, not the installed package."""
    copy = tmp_path / "checkout"
    for name in ("vtcav_ray", "jobs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pth", "*.pt", "*.js"))
    (copy / ".rayignore").write_text((ROOT / ".rayignore").read_text())
    (copy / "runs").mkdir()
    (copy / "runs" / "large").write_bytes(b"x")
    with open(copy / "vtcav_ray" / "__init__.py", "a") as file:
        file.write('\n__version__ = "changed-here"\n')
    script = (
        "import os, ray, vtcav_ray\n"
        "where = lambda: (vtcav_ray.__version__, __import__('vtcav_ray').__version__, sorted(os.listdir('.')),\n"
        "    os.listdir('vtcav_ray/runs'))\n"
        "ray.init(log_to_driver=False)\n"
        "print('DRIVER', where())\n"
        "print('WORKER', ray.get(ray.remote(where).remote()))\n"
    )
    (copy / "jobs" / "where.py").write_text(script)
    status, printed = submit(head, "python", "jobs/where.py", working_dir=copy)
    assert status == 0, printed
    for side in ("DRIVER", "WORKER"):
        line = next(line for line in printed.splitlines() if line.startswith(side))
        assert line.count("changed-here") == 2, line
        assert "'runs'" not in line, "what .rayignore names is not sent"
        assert "'run_lease.py'" in line, "the package's own `runs` is sent"


def test_dashboard_and_job_server_listen_to_this_machine_alone(head: str) -> None:
    port = int(re.search(r":(\d+)$", head).group(1))  # type: ignore[union-attr]
    addresses = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_the_job_server_asks_for_the_token(head: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{head}/api/jobs/", timeout=30)
    assert refused.value.code == 401
