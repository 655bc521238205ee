"""The stage `activations` on real Ray survives SIGKILL of the driver, of a worker, and of a worker that is writing.

Each run resumes and ends with the same bytes as an undisturbed run, and shards committed before the kill stay
untouched. The killed driver has actors; the killed workers are processes that are kept (`vtcav_ray.engine.resident`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.small_runs import without_ray
from tests.helpers.waiting import wait_for
from vtcav_ray import engine, pipeline, tables
from vtcav_ray.activations.stage import STAGE, ExtractWorker
from vtcav_ray.clips.stage import CONTENTS, contents_of
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.engine.completing import Completing
from vtcav_ray.runs.stage import Context, Stage
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import encode_clip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_ray")]

CONFIG: Config = parse_config(
    {"videos": {"uri": "none"}, "model": {"checkpoint": "untrained"}, "activations": {"layers": ["early", "late"]}}
)
SHARDS = 8


class Mortal(ExtractWorker):
    """The stage's own worker, slow enough to be killed.

    If the file `bomb` exists, it dies in the middle of a write. After that death and two commits, the first process
    that begins another shard writes both ids to the file `victim` and waits until it is killed.
    """

    def __init__(self, config: Config, clips: StageFolder, output: Folder, place: str) -> None:
        super().__init__(config, clips, output)
        self.place = Path(place)
        (self.place / f"pid-{os.getpid()}").touch()

    def __call__(self, rows: pa.Table) -> ShardOutput:
        shard = rows["shard"][0].as_py()
        (self.place / f"began-{shard}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.3)
        try:
            (self.place / "bomb").unlink()
            self._die_at_the_third_write(shard)
        except FileNotFoundError:
            self._wait_to_be_killed(shard)
        return super().__call__(rows)

    def _wait_to_be_killed(self, shard: str) -> None:
        died = self.place / "died"
        commits = list(self.place.glob("activations/*/_commits/*.json"))
        if died.exists() and died.read_text() != shard and len(commits) >= 2:
            with contextlib.suppress(FileExistsError), (self.place / "victim").open("x") as file:
                file.write(f"{os.getpid()} {shard}\n")
                file.flush()
                time.sleep(600)

    def _die_at_the_third_write(self, shard: str) -> None:
        sync, calls = os.fsync, [0]

        def die(descriptor: int) -> None:  # the bytes are in a file aside, which has not got its name yet
            calls[0] += 1
            if calls[0] == 3:
                (self.place / "died").write_text(shard)
                os.kill(os.getpid(), signal.SIGKILL)
            sync(descriptor)

        os.fsync = die


class Quiet(pipeline.Silence):
    def __init__(self, each: Callable[[], None] = lambda: None) -> None:
        self.each = each
        self.counts = (0, 0)

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        self.counts = (shards, done)

    def shard_done(self, stage: str, *, failures: int) -> None:
        self.each()

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None: ...


def complete(run: Path, progress: Quiet) -> StageFolder:
    """Do what `pipeline.run` does with this stage after the stage `clips`."""
    folder = Folder(str(run))
    context = Context(CONFIG, folder, {"clips": stage_folder(folder, "clips", "k")})
    place = str(run)

    def prepare(context: Context) -> Any:
        work = STAGE.prepare(context)
        made = work.make_worker
        assert isinstance(made, functools.partial)
        return dataclasses.replace(work, make_worker=functools.partial(Mortal, *made.args, place))

    stage: Stage = dataclasses.replace(STAGE, prepare=prepare)
    output = stage_folder(folder, stage.name, stage.key(context))
    with engine.LazySession(CONFIG.resources) as session:
        Completing(session, progress).complete(stage, context, output)
    return output


def store_clips(run: Path) -> None:
    stream = np.random.RandomState(0)
    clips = stage_folder(Folder(str(run)), "clips", "k")
    for shard in range(SHARDS):
        rows = []
        for i in range(3):
            encoding, encoded = encode_clip(stream.randint(0, 256, (16, 64, 64, 3), np.uint8))
            rows.append(
                dict.fromkeys(tables.CLIPS.names)
                | {"clip_id": f"{shard}-{i}", "video_id": f"{shard}-{i}", "name": "lift", "label": "lift"}
                | {"set": "class" if i else "random", "encoding": encoding, "encoded": encoded}
            )
        table = pa.Table.from_pylist(rows, schema=tables.CLIPS)
        clips.commit(f"{shard:05d}", ShardOutput({"clips": table, CONTENTS: contents_of(table)}))
    clips.finish({}, {})


def parquet_files(output: StageFolder) -> dict[str, bytes]:
    root = Path(output.folder.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.parquet"))}


def calls(run: Path, shard: str) -> int:
    return len(list(run.glob(f"began-{shard}-*")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = tmp_path_factory.mktemp("undisturbed")
    store_clips(run)
    with without_ray():
        files = parquet_files(complete(run, Quiet()))
    assert len(files) == SHARDS * 5  # activations and gradients of two layers, and answers
    return files


@pytest.mark.full
def test_kill_the_driver(tmp_path: Path, undisturbed: dict[str, bytes], shared_ray: str) -> None:
    store_clips(tmp_path)
    driver = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "RAY_ADDRESS": shared_ray, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    def commits() -> list[Path]:
        return sorted(tmp_path.glob("activations/*/_commits/*.json"))

    wait_for(lambda: len(commits()) >= 2 or driver.poll() is not None)
    driver.kill()
    error = driver.communicate()[1]
    assert driver.returncode == -signal.SIGKILL, error[-2000:]
    actors = [int(p.name.removeprefix("pid-")) for p in tmp_path.glob("pid-*")]
    wait_for(lambda: not any(_alive(pid) for pid in actors))  # Ray ends them; one may still commit before
    before = {path: path.stat().st_mtime_ns for path in commits()}
    assert 2 <= len(before) < SHARDS
    progress = Quiet()
    with without_ray():  # what it resumes from counts, not where it runs
        output = complete(tmp_path, progress)
    assert progress.counts == (SHARDS, len(before))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(calls(tmp_path, path.stem) == 1 for path in before)
    assert parquet_files(output) == undisturbed
    assert output.manifest()["resumed"]


@pytest.mark.full
def test_kill_a_worker_from_outside_and_another_in_the_middle_of_a_write(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    store_clips(tmp_path)
    (tmp_path / "bomb").touch()
    killed: list[str] = []

    def kill_the_second() -> None:
        victim = tmp_path / "victim"
        process, shard = wait_for(
            lambda: victim.exists() and victim.read_text().endswith("\n") and victim.read_text()
        ).split()
        os.kill(int(process), signal.SIGKILL)
        killed.append(shard)

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    output = complete(tmp_path, Quiet())
    killer.join()
    assert parquet_files(output) == undisturbed
    rows = output.read("activations", layer="late")
    assert rows is not None
    assert len(set(rows["clip_id"].to_pylist())) == rows.num_rows == 3 * SHARDS
    # Only the shards of the two dead processes began again, each once.
    began = Counter(path.name.split("-")[1] for path in tmp_path.glob("began-*"))
    assert {shard for shard, count in began.items() if count > 1} == {(tmp_path / "died").read_text(), *killed}
    assert len(began) == SHARDS
    assert began.total() == SHARDS + 2


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    complete(Path(sys.argv[1]), Quiet())
