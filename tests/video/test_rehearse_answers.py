"""What a rehearsal concludes from one video, from a child's answer, and from how a child died."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import vtcav_ray.video.rehearse as module
from tests.helpers.drawn import encode, numbered_frames
from vtcav_ray.errors import StageError
from vtcav_ray.video.rehearse import Bad, Limits, _Child, _local, _try, rehearse

LIMITS = Limits(max_frames=1000, max_pixels=10**6, cpu_seconds=20.0, stall_seconds=3.0, memory_bytes=400 * 2**20)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "good.mp4"
    path.write_bytes(encode(numbered_frames(8)))
    return path


def test_a_video_within_the_limits_is_fine(video: Path) -> None:
    assert _try(str(video), LIMITS) == ("fine", "")


def test_a_video_that_is_refused_cleanly_is_fine_too(video: Path, tmp_path: Path) -> None:
    """The worker refuses it in the same way, and no process dies for it."""
    words = tmp_path / "words.mp4"
    words.write_text("this is no video")
    assert _try(str(words), LIMITS)[0] == "fine"
    assert _try(str(video), dataclasses.replace(LIMITS, max_pixels=100)) == ("fine", "too_large")


def test_a_video_that_takes_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(encode(numbered_frames(100)))
    kind, message = _try(str(path), dataclasses.replace(LIMITS, cpu_seconds=1e-6))
    assert kind == "timeout"
    assert "of processor time" in message


def test_faults_of_the_machine_are_not_the_videos(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> Any:
        def frames(_: Any) -> Any:
            raise error

        return frames

    monkeypatch.setattr("vtcav_ray.video.decode.Video.frames", raising(MemoryError()))
    assert _try(str(video), LIMITS) == ("memory", "needs more than 0.4 GB.")
    monkeypatch.setattr("vtcav_ray.video.decode.Video.frames", raising(OSError("the disk failed")))
    assert _try(str(video), LIMITS) == ("fine", "the disk failed")


def test_a_video_is_decoded_from_a_local_file(video: Path, tmp_path: Path) -> None:
    with _local(str(video), None) as path:
        assert Path(path).read_bytes() == video.read_bytes()
    with _local(str(tmp_path / "absent.mp4"), None) as path:
        assert Path(path).read_bytes() == b""


def test_a_remote_video_is_copied_for_the_child(video: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/rehearsed/a.mp4", video.read_bytes())
    with _local("memory://rehearsed/a.mp4", None) as path:
        assert Path(path).read_bytes() == video.read_bytes()
        assert path.endswith(".mp4")
    assert not os.path.exists(path)


class Process:
    """A process that has answered, or has died with a status."""

    def __init__(self, answer: str = "", status: int = 0) -> None:
        self.stdin, self.stdout, self.status = io.StringIO(), io.StringIO(answer), status

    def wait(self) -> int:
        return self.status

    def kill(self) -> None:
        pass


def child(answer: str = "", status: int = 0) -> _Child:
    made = _Child.__new__(_Child)
    made.limits, made.process = LIMITS, Process(answer, status)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("answer", "status", "found"),
    [
        ('["fine", ""]\n', 0, None),
        ('["memory", "needs more."]\n', 0, ("memory", "needs more.")),
        ("", 97, ("timeout", "does not come to an end: a decoder call took over 3 s.")),
        ("", 1, ("timeout", "does not come to an end: a decoder call took over 3 s.")),
        ("", -signal.SIGSEGV, ("crashed", "crashed the process that decoded it (SIGSEGV).")),
        ("", 3, ("crashed", "crashed the process that decoded it (exit status 3).")),
    ],
)
def test_an_answer_or_a_death_is_read(answer: str, status: int, found: tuple[str, str] | None) -> None:
    one = child(answer, status)
    assert one.try_video("/videos/a b.mp4") == found
    assert one.process.stdin is not None
    assert one.process.stdin.getvalue() == '"/videos/a b.mp4"\n'  # type: ignore[attr-defined]
    one.close()
    assert one.process.stdin.closed


def test_a_child_that_fails_by_itself_blames_no_video() -> None:
    with pytest.raises(StageError, match="exit status 96, and no video is to blame"):
        child(status=96).try_video("a.mp4")


def test_a_video_is_bad_after_all_its_attempts(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child stands in that dies as each file's text says: how often, and then it is fine."""
    deaths = {"good": 0, "once": 1, "always": 9}
    for name in deaths:
        (tmp_path / f"{name}.mp4").write_bytes(video.read_bytes())
    alive: list[bool] = []

    class Dying:
        def __init__(self, limits: Limits) -> None:
            assert limits == LIMITS
            alive.append(True)
            self.number = len(alive) - 1

        def try_video(self, path: str) -> tuple[str, str] | None:
            name = Path(path).stem
            deaths[name] -= 1
            return ("crashed", "died.") if deaths[name] >= 0 else None

        def close(self) -> None:
            alive[self.number] = False

    monkeypatch.setattr(module, "_Child", Dying)
    uris = [str(tmp_path / f"{name}.mp4") for name in ("good", "once", "always", "good")]
    assert rehearse(uris, LIMITS, 2) == {uris[2]: Bad("crashed", f"{uris[2]} died.", 2)}
    assert alive == [False] * 4  # a new child after each of three deaths, and none is left
    assert rehearse([], LIMITS, 2) == {}
