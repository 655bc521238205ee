"""The fixtures of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.given_squares import write_videos
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.tracks.ultralytics_import import import_ultralytics


@pytest.fixture
def red_squares() -> RedSquares:
    return RedSquares()


@pytest.fixture
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the warm-up of Ultralytics, which imports torchvision: no build of it need fit the installed torch."""
    import_ultralytics()
    from ultralytics.nn.autobackend import AutoBackend

    monkeypatch.setattr(AutoBackend, "warmup", lambda *_, **__: None)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of 24 frames at 25 fps. Don't change them."""
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder)
    return folder
