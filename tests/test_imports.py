"""Commands and workers, in fresh processes, do not import installed packages that they don't need."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.small_runs import ONE_ACTOR_A_STAGE
from vtcav_ray import engine, pipeline
from vtcav_ray.config.loading import load_config
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Shard, Worker
from vtcav_ray.store.commits import StageFolder

QUICKSTART = str(Path(__file__).parents[1] / "configs" / "quickstart.yaml")
SMALL = [
    *ONE_ACTOR_A_STAGE,
    "shard_videos=24",
    "tracks.frame_stride=2",
    "videos.world.videos=24",
    "clips.per_class=2",
    "clips.min_per_class=2",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial]}]",
    "clips.min_per_concept=2",
    "clips.per_concept=2",
    "clips.random_pool=4",
    "activations.layers=[late]",
    "cavs.random_sets=2",
    "scores.permutations=100",
]
S3 = {"aiobotocore", "aiohttp", "botocore", "s3fs"}
MMACTION = {"mmaction", "mmcv", "mmengine"}
MEDIA = {"PIL", "av", "cv2"}
# Not imported by any of these commands and workers: only `vtcav export` draws figures, and nothing uses the others.
# (pandas is not in the list: Arrow imports it, if installed, to check the type of its input.)
NOWHERE = {
    "decord", "importlib_metadata", "matplotlib", "mmdet", "mmpose", "mmpretrain", "sklearn", "timm",
    "torchvision", "transformers", "tensorboard",
}  # fmt: skip
# Stage -> packages that its workers don't import. Ray belongs to the engine, not to the worker.
WITHOUT = {
    "tracks": MMACTION | {"ray", "scipy"},
    "clips": MMACTION | {"ray", "scipy", "torch", "ultralytics"},
    "activations": MMACTION | {"av", "ray", "scipy", "ultralytics"},  # the packaged model needs no MMAction2
    "cavs": MEDIA | MMACTION | {"ray", "ultralytics"},
    "scores": MEDIA | MMACTION | {"ray", "ultralytics"},
}
NO_ARRAYS = MEDIA | MMACTION | {"numpy", "pyarrow", "ray", "scipy", "torch", "ultralytics"}
NO_WORK = NO_ARRAYS - {"numpy", "pyarrow", "PIL"}

PRELUDE = """
import json, sys

def imported():
    return sorted({name.partition(".")[0] for name, module in sys.modules.items() if module is not None})

def vtcav(*arguments):
    from vtcav_ray.cli import main
    sys.argv = ["vtcav", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code in (0, None), end.code
    else:
        raise AssertionError("main returned")

def say(**found):
    print("\\n" + json.dumps(found), file=sys.stderr)
"""
WORK = f"""{PRELUDE}
import pickle
import vtcav_ray.engine

make_worker, shards, output = pickle.load(sys.stdin.buffer)
worker = make_worker()
for shard in shards:
    output.commit(shard.name, worker(shard.rows))
say(worker=imported())
"""


def fresh(code: str, **options: Any) -> dict[str, set[str]]:
    """Run code in a separate process and return the value of `say`."""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, **options)
    assert found.returncode == 0, found.stderr.decode()
    said = json.loads(found.stderr.decode().strip().splitlines()[-1])
    return {name: set(modules) for name, modules in said.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, set[str]]]:
    """Make a small run with each stage's work in a fresh process, and collect the imports there."""
    imported: dict[str, set[str]] = {}

    def run_apart(
        shards: list[Shard], make_worker: Callable[[], Worker], output: StageFolder, *_: object
    ) -> Iterator[dict[str, Any]]:
        imported[output.stage] = fresh(WORK, input=pickle.dumps((make_worker, shards, output)))["worker"]
        for shard in shards:
            yield {"shard": shard.name, "failures": 0, "seconds": 0.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_shards", run_apart)
        patch.setattr(engine.LazySession, "start", lambda self: None)
        run = pipeline.run(load_config(QUICKSTART, SMALL, out=str(tmp_path_factory.mktemp("run"))))
    return run, imported


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Collect the imports after each command. All run in one process, those that need least first."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "videos").mkdir()
    for name in "ab":
        (folder / "videos" / f"{name}.mp4").write_bytes(name.encode())  # listed, but not read
    (folder / "config.yaml").write_text(f"videos: {{uri: {folder / 'videos'}}}\nout: {folder / 'run'}\n")
    calls = {
        "help": ["--help"],
        "init": ["init", str(folder / "own.yaml")],
        "run": ["run", str(folder / "config.yaml"), "--until", "videos"],
        "status": ["status", str(folder / "run")],
        "table": ["table", str(folder / "run"), "videos"],
    }
    steps = [f"vtcav(*{arguments!r}); found[{name!r}] = imported()" for name, arguments in calls.items()]
    start = f"{PRELUDE}import vtcav_ray\nfound = {{'package': imported()}}\n"
    return fresh(start + "\n".join(steps) + "\nsay(**found)")


@pytest.mark.full
def test_a_worker_imports_what_its_stage_needs(small: tuple[Run, dict[str, set[str]]]) -> None:
    run, imported = small
    assert run.table("scores").num_rows > 0  # so every worker has done its work
    assert set(imported) == set(WITHOUT)
    needless = {stage: imported[stage] & (WITHOUT[stage] | NOWHERE) for stage in imported}
    assert needless == {stage: set() for stage in WITHOUT}
    assert "ultralytics" in imported["tracks"]  # the names are those of the modules
    assert "torch" in imported["activations"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("package", NO_ARRAYS | {"pydantic", "typer"}),
        ("help", NO_ARRAYS | {"pydantic"}),
        ("init", NO_ARRAYS),
        ("run", NO_WORK),
        ("status", NO_WORK),
        ("table", NO_WORK),
    ],
)
def test_a_command_imports_no_model_decoder_or_cluster(
    commands: dict[str, set[str]], command: str, without: set[str]
) -> None:
    assert not commands[command] & (without | NOWHERE)
    if command == "run":
        assert "pyarrow" in commands[command]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["package", "help", "init", "run", "status", "table"])
def test_a_command_imports_no_client_of_object_stores_for_local_files(
    commands: dict[str, set[str]], command: str
) -> None:
    assert not commands[command] & S3


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(WITHOUT))
def test_a_worker_imports_no_client_of_object_stores_for_local_files(
    small: tuple[Run, dict[str, set[str]]], stage: str
) -> None:
    assert not small[1][stage] & S3


@pytest.mark.slow
def test_every_name_that_a_package_offers_is_imported_on_first_use() -> None:
    code = f"""{PRELUDE}
import importlib
names = ("activations", "cavs", "gradcam", "report", "tcav")
packages = [importlib.import_module("vtcav_ray." + name) for name in names]
at_first = imported()
for package in packages:
    for name in package.__all__:
        exec(f"from {{package.__name__}} import {{name}}")
        assert not isinstance(getattr(package, name), type(sys)), name
    try:
        package.nonsense
    except AttributeError as error:
        assert "nonsense" in str(error)
    else:
        raise AssertionError("there is no such name")
say(at_first=at_first, at_last=imported())
"""
    found = fresh(code)
    assert not found["at_first"] & {"numpy", "torch"}
    assert {"numpy", "torch"} <= found["at_last"]
