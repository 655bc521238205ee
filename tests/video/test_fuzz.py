"""Hundreds of broken files cause no crash and no hang; each is decoded or recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT = 600  # rendered ones


def run(count: int, seed: int, *paths: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.helpers.fuzz", str(count), str(seed), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
    assert done.returncode == 0, f"exit status {done.returncode} at file {done.stderr[-2000:]}"
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_broken_small_files() -> None:
    found = run(COUNT, 0)
    assert sum(found.values()) == COUNT
    assert found["decoded"] > COUNT // 20
    assert sum(count for kind, count in found.items() if kind != "decoded") > COUNT // 20


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("each", [5, pytest.param(15, marks=pytest.mark.full)])
def test_broken_real_files(shared_data: Path, each: int) -> None:
    """Mutations of each of the 35 real videos: Kinetics-400, phone and web-cam clips, MP4 and Matroska."""
    videos = sorted((shared_data / "videos").rglob("*.m*"))
    count = each * len(videos)
    assert count >= 35 * each
    found = run(count, 1, *map(str, videos))
    assert sum(found.values()) == count
    assert found["decoded"] > count // 20
    assert sum(n for kind, n in found.items() if kind != "decoded") > count // 20
