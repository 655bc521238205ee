"""What opening storage imports, and what an `except` clause catches before and after that, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder

PACKAGES = ("aiobotocore", "aiohttp", "boto3", "botocore", "s3fs")

READ_A_TABLE = """
import sys
from vtcav_ray.store.access import storage_errors
from vtcav_ray.store.commits import Folder, stage_folder

output = stage_folder(Folder({run!r}), "tracks", "k")
assert output.read("tracks").num_rows == 2
try:
    output.folder.read_bytes("absent")
except storage_errors() as error:
    assert isinstance(error, FileNotFoundError)
print([name for name in {packages!r} if name in sys.modules])
"""

LIST_A_FOLDER = """
import sys
import vtcav_ray.cli, vtcav_ray.pipeline
from vtcav_ray.config import VideosConfig
from vtcav_ray.video.fetch import fetch
from vtcav_ray.videos.listing import list_videos

videos, failures = list_videos(VideosConfig(uri={folder!r}))
assert videos.num_rows == 1
assert fetch(videos["uri"][0].as_py())
print([name for name in {packages!r} if name in sys.modules])
"""

OPEN_A_URL = """
import sys
from vtcav_ray.store import access

access.FIRST_WAIT_SECONDS = access.LONGEST_WAIT_SECONDS = 0.001
before = access.storage_errors()
fs, path = access.open_url({url!r}, {options!r})
try:
    access.patiently(lambda: fs.cat_file(path), path, patience=0.01)
except ConnectionError as error:
    cause = error.__cause__
assert isinstance(cause, access.storage_errors())
print([name for name in {packages!r} if name in sys.modules])
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_reading_a_table_of_a_local_run_imports_no_client_of_an_object_store(tmp_path: Path) -> None:
    output = stage_folder(Folder(str(tmp_path)), "tracks", "k")
    output.commit("s", ShardOutput({"tracks": pa.table({"video_id": ["a", "b"]})}))
    output.finish({}, {})
    assert run(READ_A_TABLE.format(run=str(tmp_path), packages=PACKAGES)) == "[]"


@pytest.mark.slow
def test_listing_and_opening_local_videos_imports_no_client_of_an_object_store(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    assert run(LIST_A_FOLDER.format(folder=str(tmp_path), packages=PACKAGES)) == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "options", "imported"),
    [
        ("http://127.0.0.1:1/v.mp4", {}, ["aiohttp"]),
        (
            "s3://b/v.mp4",
            {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:1"},
            ["aiobotocore", "aiohttp", "botocore", "s3fs"],
        ),
    ],
)
def test_errors_of_a_client_are_caught_once_it_is_imported(
    url: str, options: dict[str, str], imported: list[str]
) -> None:
    assert run(OPEN_A_URL.format(url=url, options=options, packages=PACKAGES)) == str(imported)
