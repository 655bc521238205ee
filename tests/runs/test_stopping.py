"""One Ctrl-C ends the run cleanly, with a message on how to resume, and leaves no process behind."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.helpers.waiting import wait_for
from vtcav_ray.cli import progress
from vtcav_ray.cli.progress import JsonProgress, TerminalProgress


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "until"), [(signal.SIGINT, "report"), (signal.SIGTERM, "tracks")])
def test_ctrl_c_and_sigterm_stop_the_actors_and_say_how_to_go_on(
    sent: signal.Signals, until: str, tmp_path: Path
) -> None:
    """With `--until tracks`, the checks load no recogniser."""
    command = [sys.executable, "-m", "vtcav_ray", "run", "configs/quickstart.yaml", "--json",
               "--until", until, "--out", str(tmp_path / "run"),
               "--set", "videos.world.videos=24", "--set", "resources.num_cpus=1",
               "--set", "shard_videos=2"]  # fmt: skip
    # A separate session, so that the signal goes only to this process, as with `kill -INT`. Ray's are its children.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    events = []
    for line in process.stdout:  # until the first shard of the tracks is done
        if line.startswith("{"):
            events.append(json.loads(line))
            if events[-1]["event"] == "shard_done" and events[-1]["stage"] == "tracks":
                break
    assert events[-1]["total"] == 12
    assert events[-1]["seconds_left"] > 0
    process.send_signal(sent)
    started = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert time.monotonic() - started < 60
    assert "Resume with: vtcav run configs/quickstart.yaml --set videos.world.videos=24" in errors
    assert "Traceback" not in errors
    assert "Set ray log level" not in errors
    assert "torch.meshgrid" not in errors
    assert "(raylet)" not in errors
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped: tracks"
    assert len(list((tmp_path / "run").glob("tracks/*/_commits/*.json"))) >= 1
    wait_for(lambda: not _of_session(process.pid), seconds=30)


def _of_session(session: int) -> list[str]:
    """Return the command lines of this session's living processes."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " ")[:120])
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def test_events_are_lines_of_json_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    events = JsonProgress(sys.stdout)
    events.stage_started("tracks", shards=4, done=1)
    events.shard_done("tracks", failures=2)
    events.shard_done("tracks", failures=1)
    events.stage_finished("tracks", {"rows": {"tracks": 9}, "seconds": 3.0, "warnings": []}, reused=False)
    started, _, second, finished = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (started["done"], started["total"]) == (1, 4)
    assert (second["done"], second["failures"]) == (3, 3)
    assert second["shards_per_second"] > 0
    assert second["seconds_left"] >= 0
    assert finished["rows"] == {"tracks": 9}
    assert "items_per_second" not in second


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the progress, which stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    return now


def test_events_count_what_the_shards_hold(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    events = JsonProgress(sys.stdout)
    events.stage_started("clips", shards=2, done=0)
    for items in (30, 10):
        clock[0] += 4.0
        events.items_done("clips", items=items, unit="clips")
        events.shard_done("clips", failures=0)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["unit"] == "clips"
    assert (last["items_per_second"], last["shards_per_second"]) == (5.0, 0.25)


def test_a_bar_shows_items_a_second_and_the_time_left(clock: list[float]) -> None:
    written = io.StringIO()
    with TerminalProgress(Console(file=written, force_terminal=True, width=160)) as bars:
        bars.stage_started("tracks", shards=4, done=0)
        clock[0] += 10.0
        bars.items_done("tracks", items=50, unit="videos")
        bars.shard_done("tracks", failures=0)
        bars._bars.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())
    assert "5 videos/s" in shown
    assert "30 s left" in shown
