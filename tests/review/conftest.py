from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.review_run import write_run
from vtcav_ray.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that has its clips."""
    return write_run(str(tmp_path / "run"))
