"""Fixtures of several folders, the order of the files, and the skips where something is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from vtcav_ray.models import Recogniser

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and real weights, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no real videos and weights at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def swin() -> Recogniser:
    """The planted world's architecture (a small Video Swin for 16 x 64 x 64), with random weights. Don't change it."""
    from tests.helpers.recognisers import untrained_swin

    return untrained_swin()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one file: Playwright's event loop would stop other tests of this process from starting theirs."""
    from tests.helpers.browser import chromium

    with chromium() as started:
        yield started


# Files of minutes, the longest first: files go to the workers in this order, and none should begin at the very end.
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
