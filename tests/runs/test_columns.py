"""Names of columns: renamed, unknown, and those of tables that an older version wrote."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.run_factory import make_run
from vtcav_ray import cli, tables
from vtcav_ray.compare import compare_runs
from vtcav_ray.errors import ConfigError
from vtcav_ray.exports.paper import export
from vtcav_ray.intervene.run import Wanted, intervene_run
from vtcav_ray.runs.columns import check_columns, check_stored, with_marker
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.store.records import MANIFEST


@pytest.mark.parametrize(("old", "new"), tables.RENAMED["scores"].items())
def test_an_old_name_is_refused_with_its_name_today(old: str, new: str) -> None:
    assert new in tables.SCORES.names
    assert old not in tables.SCORES.names
    with pytest.raises(ConfigError, match=f"no column `{old}`: it is now called `{new}`"):
        check_columns("scores", ["class", old])


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no column `nose`\. It has: clip_id, video_id"):
        check_columns("gradients", ["nose"])
    check_columns("scores", tables.SCORES.names)
    check_columns("scores", None)


def test_an_old_table_is_known_though_it_has_all_wanted_names() -> None:
    old = pa.table({"class": ["lift"], "effect": [0.2], "ci_low": [0.1], "effect_logits": [3.0]})
    wanted = with_marker("scores", ["class", "effect", "ci_low"])
    assert wanted == ["class", "effect", "ci_low", "tcav_score"]
    with pytest.raises(ConfigError, match=r"from an older version of vtcav-ray.* Repeat `vtcav run`"):
        check_stored(old, "scores", "runs/x")
    with pytest.raises(ConfigError, match=r"`gradients` of runs/x is from an older version"):
        check_stored(pa.table({"clip_id": ["a"]}), "gradients", "runs/x")
    check_stored(old, "videos", "runs/x")


@pytest.mark.slow
def test_every_command_that_reads_an_old_run_says_to_run_again(tmp_path: Path) -> None:
    new = make_run(tmp_path / "new", weight=1.0)
    assert new.table("scores", columns=["q", "class"]).column_names == ["q", "class"]
    copy = make_run(tmp_path / "old", weight=1.0).url
    scores = Run(copy).stage("scores")
    names = [{new: old for old, new in tables.RENAMED["scores"].items()}.get(n, n) for n in tables.SCORES.names]
    old = {shard: scores.record(shard) for shard in scores.committed()}
    found = scores.read("scores")
    assert found is not None
    (shard,) = (name for name, record in old.items() if any(path.startswith("scores/") for path in record["files"]))
    scores.commit(shard, ShardOutput({"scores": found.rename_columns(names), "nulls": scores.read("nulls")}))
    scores.folder.remove(MANIFEST)
    run = Run(copy)
    for read in (
        lambda: run.table("scores"),
        lambda: run.table("scores", columns=["class", "effect", "ci_low", "q"]),
        lambda: run.head("scores", 3),
        lambda: next(run.iter_tables("scores")),
        lambda: export(run, str(tmp_path / "paper")),
        lambda: compare_runs([run, new]),
        lambda: intervene_run(run, Wanted()),
    ):
        with pytest.raises(ConfigError, match="older version"):
            read()
    answer = CliRunner().invoke(cli.app, ["table", copy, "scores"])
    assert isinstance(answer.exception, ConfigError)
    assert "older version" in str(answer.exception)


def test_the_headline_comes_first_in_the_scores() -> None:
    headline = ("class", "layer", "concept", "against", "effect", "ci_low", "ci_high", "z", "p", "q", "significant",
                "effect_within", "p_within", "q_within", "between_share", "share_of_margin", "tcav_score", "tcav_p",
                "tcav_q")  # fmt: skip
    assert tuple(tables.SCORES.names[: len(headline)]) == headline
