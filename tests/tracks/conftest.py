"""The fixtures of this folder."""

from __future__ import annotations

import pytest

from tests.helpers.tracked_things import RedSquares


@pytest.fixture
def red_squares() -> RedSquares:
    return RedSquares()
