"""The fixtures of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "video"))  # for `drawn`
from tracked_things import RedSquares


@pytest.fixture
def red_squares() -> RedSquares:
    return RedSquares()
