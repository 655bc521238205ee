"""The notebooks of docs/notebooks run as scripts, at a small size and without Ray."""

from __future__ import annotations

import runpy
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, because two notebooks render the same world."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    notebook: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("VTCAV_SMALL", "1")
    runpy.run_path(str(notebook), run_name="__main__")
    answer = {"quickstart": "lift: ", "own_clips": "lift: Uses movement: rising"}
    assert answer.get(notebook.stem, "push_left: Uses movement: to the left") in capsys.readouterr().out
