"""Every family of recognisers, from its packaged config, at full width and depth and with small inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.families import PAGE, TRIALS, examine, table_row


@pytest.mark.slow
@pytest.mark.parametrize("family", TRIALS)
def test_family(family: str, tmp_path: Path) -> None:
    rows = examine(TRIALS[family], tmp_path)
    for alias in ("early", "middle", "late"):
        assert not rows[alias].degenerate, alias
    assert rows["early"].cost >= rows["middle"].cost >= rows["late"].cost >= rows["head"].cost
    assert table_row(family, rows) in PAGE.read_text(encoding="utf-8").splitlines()
