"""A folder of an object store is listed in parallel, and gives what one listing gives."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from vtcav_ray.videos import objects
from vtcav_ray.videos.objects import find_files, find_in_parallel

NAMES = ("top.mp4", "labels.csv", "val/top.mp4", *(f"val/class {i}/{j}.mp4" for i in range(5) for j in range(3)))


@pytest.fixture
def bucket() -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
    fs = fsspec.filesystem("memory")
    for name in (*NAMES, "val/class 0/deeper/still/a.mp4"):
        fs.pipe(f"/object-listing/{name}", name.encode())
    yield fs, "/object-listing"
    fs.rm("/object-listing", recursive=True)


@pytest.mark.parametrize(("enough", "most"), [(1, 100), (3, 100), (100, 100), (1, 0)])
def test_every_file_is_listed_once_and_in_order(
    bucket: tuple[fsspec.AbstractFileSystem, str], monkeypatch: pytest.MonkeyPatch, enough: int, most: int
) -> None:
    fs, folder = bucket
    monkeypatch.setattr(objects, "ENOUGH", enough)
    monkeypatch.setattr(objects, "MOST", most)
    found, expected = find_in_parallel(fs, folder), fs.find(folder, detail=True)
    assert list(found) == sorted(expected)
    assert {name: info["size"] for name, info in found.items()} == {n: i["size"] for n, i in expected.items()}


def test_other_file_systems_are_listed_at_once(
    bucket: tuple[fsspec.AbstractFileSystem, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, folder = bucket
    monkeypatch.setattr(objects, "find_in_parallel", None)
    assert find_files(fs, folder) == fs.find(folder, detail=True)
