"""Where tests find real videos and weights, and the skips if these are absent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and real weights, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no real videos and weights at {SHARED}")
    return SHARED


# Files that take minutes, longest first. Workers receive files in this order, so that no long one starts last.
LONGEST = (
    "test_pipeline.py",
    "test_object_storage.py",
    "test_jobs.py",
    "test_reruns.py",
    "test_kills.py",
    "test_rehearse.py",
    "test_gradcam_stage.py",
    "test_examples.py",
    "test_orchestration.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no real videos and weights at {SHARED}"))
        if item.get_closest_marker("browser") and not shutil.which("chromium"):
            item.add_marker(pytest.mark.skip(reason="chromium is not installed (apt-get install chromium)"))
