"""The fixtures of this folder."""

from __future__ import annotations

import pytest

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
