"""Files that are checked while they are read, block by block."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray.store import verified
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import BrokenFile
from vtcav_ray.store.verified import VerifiedFile, digests_of


class Counted(io.BytesIO):
    """A file that counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def entry_of(data: bytes) -> Any:
    return {"rows": 1, "bytes": len(data), **digests_of(data)}


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200, 256])
def test_any_part_is_what_was_written(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "BLOCK_BYTES", 64)
    rng = np.random.default_rng(size)
    data = rng.bytes(size)
    file = VerifiedFile(io.BytesIO(data), entry_of(data), "url")
    for begin, count in rng.integers(0, size + 10, (200, 2)).tolist():
        file.seek(begin)
        assert bytes(file.read(count)) == data[begin : begin + count]
        assert file.tell() == max(begin, min(begin + count, size))


def test_a_file_of_one_block_is_read_and_checked_once() -> None:
    data = np.random.default_rng(0).bytes(5000)
    inner = Counted(data)
    file = VerifiedFile(inner, entry_of(data), "url")
    for begin in range(0, 5000, 100):
        file.seek(begin)
        assert bytes(file.read(100)) == data[begin : begin + 100]
    assert inner.read_bytes == 5000


def test_a_broken_block_is_refused_whatever_was_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "BLOCK_BYTES", 64)
    data = bytes(range(200))
    file = VerifiedFile(io.BytesIO(data[:70] + b"\xff" + data[71:]), entry_of(data), "url")
    for _ in range(2):
        file.seek(0)
        assert bytes(file.read(64)) == data[:64]
        for begin, count in ((64, 64), (70, 1), (0, 200), (60, 10)):
            file.seek(begin)
            with pytest.raises(BrokenFile, match="url"):
                file.read(count)
        file.seek(130)
        assert bytes(file.read(70)) == data[130:]


def test_all_columns_of_a_table_are_read_with_one_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Parquet reader reads the footer, and each column by itself."""
    output = stage_folder(Folder(str(tmp_path)), "videos", "k")
    table = pa.table({f"column{i}": np.random.default_rng(i).random(1000) for i in range(10)})
    output.commit("all", ShardOutput({"videos": table}))
    hashed = []
    sha256 = hashlib.sha256

    def counted(data: bytes = b"") -> Any:
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", counted)
    path = "videos/all.parquet"
    assert output.read_file(path) == table
    size = (Path(output.folder.url) / path).stat().st_size
    assert [count for count in hashed if count == size] == [size]
