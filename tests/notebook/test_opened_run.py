"""`vtcav_ray.run` and `vtcav_ray.Run` as a notebook uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

import vtcav_ray
from tests.helpers.planted_run import PlantedRun
from tests.helpers.run_factory import make_run
from tests.helpers.small_runs import without_ray
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run as StoredRun


def test_the_package_lists_the_names_that_are_for_users() -> None:
    assert {"run", "load_config", "Run", "explain", "Explanation", "NetworkSpec"} <= set(dir(vtcav_ray))
    for name in vtcav_ray.__all__:
        assert callable(getattr(vtcav_ray, name)), name
    with pytest.raises(AttributeError, match="nonsense"):
        vtcav_ray.nonsense  # noqa: B018


@pytest.mark.slow
def test_a_run_shows_its_verdicts_scores_and_report(planted: PlantedRun) -> None:
    run = vtcav_ray.Run(planted.run.url)
    assert isinstance(run, StoredRun)
    assert run.scores.shape == (run.table("scores").num_rows, run.table("scores").num_columns)
    assert run.verdicts["class"].tolist() == ["lift", "push_left", "push_right", "put_down"]
    assert Path(run.report).is_file()
    assert repr(run) == f"<Run {run.url}: done>\n{run.summary()}"
    html = run._repr_html_()
    assert "<b>put_down</b>" in html
    assert f'href="{run.report}"' in html
    assert run.plot("lift").get_suptitle() == "lift"
    assert run.plot().axes


@pytest.mark.slow
def test_an_unknown_layer_is_an_error_with_the_nearest_name(planted: PlantedRun) -> None:
    run = planted.run
    with pytest.raises(ConfigError, match=r"has no layer `lat`\. Did you mean `late`"):
        run.table("activations", layer="lat")
    with pytest.raises(ConfigError, match="has no layer `erly`"):
        list(run.iter_tables("gradients", layer="erly"))
    with pytest.raises(ConfigError, match="no parts by `class`"):
        run.table("activations", **{"class": "lift"})
    assert run.table("activations", layer="late").num_rows > 0
    with pytest.raises(ConfigError, match=r"No table `score`\. Did you mean `scores`"):
        run.table("score")


@pytest.mark.slow
def test_a_run_without_a_report_says_how_far_it_is(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", weight=1.0)
    run = vtcav_ray.Run(made.url)
    assert repr(run) == f"<Run {run.url}: unknown>"
    assert run.url in run._repr_html_()
    assert len(run.scores) == made.table("scores").num_rows
    assert run.plot("lift").axes
    with pytest.raises(ConfigError, match="no report yet"):
        _ = run.report


def test_run_takes_the_path_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"listed, but not read")
    config = tmp_path / "x.yaml"
    config.write_text(f"videos: {{uri: {tmp_path / 'videos'}}}\n")
    with without_ray():
        run = vtcav_ray.run(config, overrides=["seed=3"], out=str(tmp_path / "run"), until="videos")
        assert isinstance(run, vtcav_ray.Run)
        assert (run.config.seed, run.table("videos").num_rows) == (3, 1)
        same = {"videos": {"uri": str(tmp_path / "videos")}}
        assert vtcav_ray.run(same, out=str(tmp_path / "other"), until="videos").table("videos").num_rows == 1
    with pytest.raises(TypeError, match="Change the given config"):
        vtcav_ray.run(same, overrides=["seed=3"])
    with pytest.raises(ConfigError, match=r"No config at .*nothing\.yaml"):
        vtcav_ray.run(str(tmp_path / "nothing.yaml"))
