"""Whole runs on a real S3 server, from bucket to bucket: without Ray, and on a real Ray while the server dies."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vtcav_ray
from tests.helpers.seaweed import SECRET, Seaweed
from tests.helpers.small_runs import without_ray
from tests.helpers.waiting import wait_for
from tests.helpers.whole_run import SEED, SMALL, vtcav
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.pipeline import STAGES
from vtcav_ray.store.assets import resolve_asset
from vtcav_ray.store.folder import Folder
from vtcav_ray.world import write_world

pytestmark = pytest.mark.slow

VIDEOS = 24  # three shards


@pytest.fixture(scope="module")
def inputs(s3: Seaweed) -> dict[str, Any]:
    """A config whose inputs all lie in a bucket: videos, labels, weights, the model's config and checkpoint."""
    where = s3.bucket("inputs")
    folder = Folder(where, s3.storage_options)
    with tempfile.TemporaryDirectory() as local:
        write_world(local, videos=VIDEOS, seed=SEED)
        for path in Path(local, "videos").iterdir():
            folder.write_bytes(f"videos/{path.name}", path.read_bytes())
        folder.write_bytes("meta/labels.parquet", Path(local, "videos.parquet").read_bytes())
    for name in ("detector.pt", "recogniser.py", "recogniser.pth", "recogniser_labels.txt"):
        folder.write_bytes(f"models/{name}", Path(resolve_asset(f"asset:{name}")).read_bytes())
    return {
        **SMALL,
        "shard_videos": 8,
        # One actor per stage, because loading a model's packages takes longer here than using them.
        "resources": {"num_cpus": 1, **{key: {"max_actors": 1} for key in ("detect", "cut", "extract", "statistics")}},
        "videos": {"uri": f"{where}/videos", "labels": f"{where}/meta/labels.parquet"},
        "tracks": {"weights": f"{where}/models/detector.pt", "image_size": 128, "frame_stride": 2},
        "model": {
            "config": f"{where}/models/recogniser.py",
            "checkpoint": f"{where}/models/recogniser.pth",
            "labels": f"{where}/models/recogniser_labels.txt",
        },
    }


@pytest.fixture(scope="module")
def undisturbed(s3: Seaweed, inputs: dict[str, Any]) -> Iterator[vtcav_ray.Run]:
    """A run in this process with credentials from the environment. The bucket's model config is a program."""
    where = s3.bucket("runs-a")
    with pytest.MonkeyPatch.context() as patch, without_ray():
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield vtcav_ray.run(parse_config(inputs | {"out": f"{where}/r"}).trusting("anywhere"))


@pytest.fixture
def short_ray_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for Ray's logs and sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="vt-ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def data_files(s3: Seaweed, bucket: str) -> dict[str, bytes]:
    return {key: s3.read(bucket, key) for key in s3.keys(bucket) if key.endswith(".parquet")}


def test_bucket_to_bucket_with_the_environment(undisturbed: vtcav_ray.Run, s3: Seaweed) -> None:
    assert undisturbed.table("scores").num_rows > 0
    assert undisturbed.table("failures").num_rows == 0
    assert set(undisturbed.keys) == {stage.name for stage in STAGES}
    for key in s3.keys("runs-a"):
        assert SECRET.encode() not in s3.read("runs-a", key), key


@pytest.mark.full
def test_the_server_dies_in_mid_run_and_comes_back(
    undisturbed: vtcav_ray.Run, s3: Seaweed, inputs: dict[str, Any], tmp_path: Path, short_ray_dir: Path
) -> None:
    """A run on Ray, with credentials in `storage_options`, gives the tables of the undisturbed run."""
    where = s3.bucket("runs-b")
    options = {"storage_options": s3.storage_options}
    config = inputs | {name: {**inputs[name], **options} for name in ("videos", "tracks", "model")}
    config |= {"out_storage_options": s3.storage_options}
    (tmp_path / "c.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = vtcav("run", tmp_path / "c.yaml", "--trust-code", "--out", f"{where}/r")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_ADDRESS"))}
    environment |= {"RAY_TMPDIR": str(short_ray_dir)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    reader.start()
    try:
        wait_for(lambda: any("tracks/" in key and "_commits" in key for key in s3.keys("runs-b")), process=process)
        s3.kill()
        time.sleep(1)
        s3.start()
        assert process.wait(300) == 0, "".join(said)
    finally:
        process.kill()
        reader.join(30)
    assert data_files(s3, "runs-b") == data_files(s3, "runs-a")
    for key in s3.keys("runs-b"):
        assert SECRET.encode() not in s3.read("runs-b", key), key
    assert SECRET not in "".join(said)
    logs = [path for path in short_ray_dir.rglob("*") if path.is_file()]
    assert logs
    for path in logs:
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_wrong_key_ends_a_run_with_a_sentence(s3: Seaweed, inputs: dict[str, Any]) -> None:
    bucket = s3.bucket("refused")
    wrong = {**s3.storage_options, "secret": "wr0ng-" + SECRET}
    config = {**inputs, "videos": {**inputs["videos"], "storage_options": wrong}, "out": f"{bucket}/r"}
    with pytest.raises(StageError, match="access is refused") as caught:
        vtcav_ray.run(parse_config({**config, "out_storage_options": s3.storage_options}))
    assert SECRET not in str(caught.value)
    with pytest.raises(StageError, match="access is refused"):
        vtcav_ray.run(parse_config({**inputs, "out": f"{bucket}/r", "out_storage_options": wrong}))


def test_messages_about_the_config_hide_what_may_be_secret(inputs: dict[str, Any]) -> None:
    for options in ({"storage_options": SECRET}, {"storage_optionz": {"secret": SECRET}}, {"secret": SECRET}):
        with pytest.raises(ConfigError) as caught:
            parse_config({**inputs, "videos": {**inputs["videos"], **options}})
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="holds a credential") as caught:
        Folder(f"s3://vtkey:{SECRET}@bucket/x").check()
    assert SECRET not in str(caught.value)
