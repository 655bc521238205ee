"""Videos that crash, hang or fill their decoding process are found by decoding them in a separate one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

import vtcav_ray.video.rehearse as module
from tests.helpers.drawn import encode, numbered_frames
from tests.helpers.poison import install
from vtcav_ray.video.rehearse import Limits, rehearse

pytestmark = pytest.mark.slow
LIMITS = Limits(max_frames=1000, max_pixels=10**6, cpu_seconds=20.0, stall_seconds=2.0, memory_bytes=400 * 2**20)


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name -> path of copies of one good video, whose names cause the harm."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([install(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    video = encode(numbered_frames(8))
    names = ("good", "segv", "hang", "lock", "eats", "better")
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes(video)
    (tmp_path / "words.mp4").write_text("this is no video")
    return {name: str(tmp_path / f"{name}.mp4") for name in (*names, "words", "absent")}


def test_each_kind_of_harm_is_named_and_nobody_else_suffers(videos: dict[str, str]) -> None:
    bad = rehearse([videos[n] for n in ("good", "segv", "words", "hang", "absent", "eats", "better")], LIMITS, 2)
    assert {Path(uri).stem: what.error_kind for uri, what in bad.items()} == {
        "segv": "crashed",
        "hang": "timeout",
        "eats": "memory",
    }
    assert "SIGSEGV" in bad[videos["segv"]].message
    assert {what.attempts for what in bad.values()} == {2}


def test_a_hang_that_holds_the_interpreter_is_ended_too(
    videos: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_START_SECONDS", 4.0)  # all that can be done is to wait for longer than it may take
    bad = rehearse([videos["lock"], videos["good"]], dataclasses.replace(LIMITS, cpu_seconds=0.5, stall_seconds=0.5), 1)
    assert {Path(uri).stem: what.error_kind for uri, what in bad.items()} == {"lock": "timeout"}


def test_a_video_that_takes_too_long_is_found(videos: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "long.mp4").write_bytes(encode(numbered_frames(300)))
    limits = Limits(1000, 10**6, cpu_seconds=0.005, stall_seconds=5.0, memory_bytes=400 * 2**20)
    bad = rehearse([str(tmp_path / "long.mp4")], limits, 1)
    assert {Path(uri).stem: what.error_kind for uri, what in bad.items()} == {"long": "timeout"}
