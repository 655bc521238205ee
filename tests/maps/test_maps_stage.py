"""`vtcav maps` on a small planted run: tables, page, what is localised, failures, resumption, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.planted_run import PlantedRun, opened
from vtcav_ray import cli, tables
from vtcav_ray.errors import ConfigError
from vtcav_ray.maps.page import build_page, page_data
from vtcav_ray.maps.run import maps_run
from vtcav_ray.maps.stage import Chosen, check_projections, maps_stage
from vtcav_ray.maps.summary import NOT_LOCALISED, ONE_PLACE
from vtcav_ray.maps.worker import MapsWorker
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context
from vtcav_ray.scores.choose import CellKey, Wanted
from vtcav_ray.video.mp4 import decode_mp4

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_ray")]

UP = "moving up/context"
LIFT = Wanted(classes=("lift",), layers=("early", "middle", "head"), concepts=(UP,))


@pytest.fixture(scope="module")
def mapped(planted_copy: str) -> Run:
    """A run with the maps of upward movement on the examples of `lift` at three layers."""
    return maps_run(*opened(planted_copy), LIFT)


def test_there_is_a_row_a_clip_and_cell(mapped: Run) -> None:
    table = mapped.table("maps")
    assert table.schema == tables.MAPS
    rows = table.to_pylist()
    examples = mapped.table("clips", columns=["clip_id", "set", "name"]).to_pylist()
    lifts = {row["clip_id"] for row in examples if (row["set"], row["name"]) == ("class", "lift")}
    assert {row["clip_id"] for row in rows} == lifts
    assert len(rows) == 3 * len(lifts) == 3 * 8
    for row in rows:
        assert len(row["timeline"]) == len(row["timeline_random"]) == 16
        assert np.mean(row["timeline"]) == pytest.approx(row["presence"], rel=1e-4, abs=1e-5)
        assert row["layer"] != "head" or row["deletion"] is None


def test_the_planted_movement_is_localised_at_early_and_better_than_chance(mapped: Run) -> None:
    """The early layer keeps places: there the map shows where the object moves up."""
    summary = mapped.table("maps_summary")
    assert summary.schema == tables.MAPS_SUMMARY
    rows = {row["layer"]: row for row in summary.to_pylist()}
    early = rows["early"]
    assert early["localised"]
    assert early["deletion_low"] > 0.8
    assert early["pointing"] > 0.1
    assert early["inside_low"] > 0.5
    assert early["note"] == ""
    assert rows["head"]["localised"] is None
    assert rows["head"]["note"] == ONE_PLACE


def test_what_is_not_localised_is_not_painted(mapped: Run) -> None:
    """Attention has mixed the places of the middle layer: deleting what its map points to removes no more."""
    middle = next(row for row in mapped.table("maps_summary").to_pylist() if row["layer"] == "middle")
    assert middle["localised"] is False
    assert middle["note"] == NOT_LOCALISED
    shown = {cell.row["layer"]: len(cell.pictures) for cell in page_data(mapped).cells}
    assert shown == {"early": 3, "middle": 0, "head": 0}
    page = Path(mapped.url, "maps.html").read_text()
    assert page.count("data:image/webp") == 3
    assert NOT_LOCALISED in page
    assert page == build_page(page_data(mapped))


def test_overlays_are_films_beside_the_tables(mapped: Run) -> None:
    stage = mapped.stage("maps")
    drawn = stage.read("map_overlays").to_pylist()
    assert len(drawn) == 3 * 3
    film = decode_mp4(stage.folder.read_bytes(drawn[0]["mp4"]))
    assert film.shape == (16, drawn[0]["height"], drawn[0]["width"], 3)
    assert np.abs(np.diff(film.astype(int), axis=0)).max() > 30  # it moves
    assert f"maps/{stage.key}/{drawn[0]['mp4']}" in Path(mapped.url, "maps.html").read_text()


def test_the_report_links_to_the_page_and_a_second_call_uses_everything(mapped: Run, planted_copy: str) -> None:
    assert 'href="maps.html"' in Path(planted_copy, "report.html").read_text()
    before = {p: p.stat().st_mtime_ns for p in Path(planted_copy, "maps").rglob("*.parquet")}
    options = ["--class", "lift", "--concept", UP, "--cells", "all"]
    layers = [word for layer in LIFT.layers for word in ("--layer", layer)]
    result = CliRunner().invoke(cli.app, ["maps", planted_copy, *options, *layers])
    assert result.exit_code == 0, result.output
    assert "maps.html" in result.output
    assert {p: p.stat().st_mtime_ns for p in Path(planted_copy, "maps").rglob("*.parquet")} == before


def test_a_lost_shard_is_made_again_with_the_same_content(mapped: Run, planted_copy: str) -> None:
    stage = mapped.stage("maps")
    lost = sorted(Path(planted_copy, "maps", stage.key, "maps").glob("*.parquet"))[0]
    content = lost.read_bytes()
    lost.unlink()
    maps_run(*opened(planted_copy), LIFT)
    assert lost.read_bytes() == content


def test_a_clip_that_can_not_be_decoded_is_a_failure(mapped: Run) -> None:
    run, config = opened(mapped.url)
    cells = (CellKey("lift", "early", UP, "random"),)
    stage = maps_stage(Chosen(cells, 2))
    work = stage.prepare(Context(config, run.folder, {name: run.stage(name) for name in stage.inputs}))
    rows = pa.concat_tables([shard.rows for shard in work.shards])
    worker = work.make_worker()
    assert isinstance(worker, MapsWorker)
    read = worker.examples.clips
    bad = rows["clip_id"][0].as_py()

    def broken(wanted: pa.Table) -> list[dict[str, object]]:
        return [{**clip, "encoded": b"no video"} if clip["clip_id"] == bad else clip for clip in read(wanted)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.examples, "clips", broken)
        output = worker(rows)
    assert [failure.clip_id for failure in output.failures] == [bad]
    assert output.tables["maps"]["clip_id"].to_pylist() == rows["clip_id"].to_pylist()[1:]


@pytest.mark.parametrize("spec", ["space", "flat", "grid:2", "sketch:64"])
def test_projections_without_one_direction_for_all_places_are_refused(planted: PlantedRun, spec: str) -> None:
    _, config = opened(planted.run.url)
    cells = (CellKey("lift", f"early@{spec}", UP, "random"),)
    with pytest.raises(ConfigError, match=r"early@mean"):
        check_projections(cells, config)
    check_projections((CellKey("lift", "early@moving", UP, "random"),), config)


def test_another_config_is_refused(planted_copy: str) -> None:
    run, config = opened(planted_copy)
    with pytest.raises(ConfigError, match="seed"):
        maps_run(run, config.model_copy(update={"seed": 7}), LIFT)
