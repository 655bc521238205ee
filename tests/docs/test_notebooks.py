"""The notebooks of docs/notebooks run as scripts, at a small size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))


def test_there_are_three_in_the_percent_format() -> None:
    assert [one.stem for one in NOTEBOOKS] == ["own_clips", "own_model", "quickstart"]
    for notebook in NOTEBOOKS:
        text = notebook.read_text()
        assert "formats: py:percent" in text
        assert text.count("\n# %% [markdown]\n# #") >= 3  # headings
        assert text.count("\n# %%\n") >= 4  # cells of code


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(notebook)],
        cwd=tmp_path,
        env={**environment, "VTCAV_SMALL": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = {"quickstart": "lift: ", "own_clips": "lift: Uses movement: rising"}
    assert answer.get(notebook.stem, "push_left: Uses movement: to the left") in done.stdout
