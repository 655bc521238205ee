"""The notebooks of docs/notebooks run as scripts, at a small size; the quickstart on a complete run."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest

import vtcav_ray
from tests.helpers.planted_run import PlantedRun
from vtcav_ray.config.loading import load_config

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


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    "notebook",
    [pytest.param(n, marks=pytest.mark.full if n.stem == "own_clips" else (), id=n.stem) for n in NOTEBOOKS],
)
def test_a_notebook_runs(
    notebook: Path,
    place: Path,
    planted: PlantedRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("VTCAV_SMALL", "1")
    run = vtcav_ray.run

    def on_the_planted_run(config: str, overrides: Sequence[str], out: str) -> vtcav_ray.Run:
        """Load the notebook's config, and run the planted one, whose stages are complete."""
        assert load_config(config, overrides, out=out).run_url
        return run(planted.config(planted.copy(place / out)))

    monkeypatch.setattr(vtcav_ray, "run", on_the_planted_run)
    runpy.run_path(str(notebook), run_name="__main__")
    answer = {"quickstart": "lift: ", "own_clips": "lift: Uses movement: rising"}
    assert answer.get(notebook.stem, "push_left: Uses movement: to the left") in capsys.readouterr().out
