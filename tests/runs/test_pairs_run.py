"""A run with own clips in pairs: clips of something moving up, and the same files played backwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.helpers.drawn import encode
from tests.helpers.finished_run import cell, vtcav
from tests.helpers.small_runs import without_ray
from vtcav_ray import cli, pipeline
from vtcav_ray.config.loading import load_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.planning.dry_run import check
from vtcav_ray.review.clip_groups import ClipGroups
from vtcav_ray.runs.run import Run
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.world import write_world
from vtcav_ray.world.concepts import write_concepts

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
OWN_CLIPS = str(ROOT / "configs" / "own_clips.yaml")
PAIRS = 12
FRAMES = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, 12 pairs of which one file is damaged, and random clips for a second, ordinary concept."""
    place = tmp_path_factory.mktemp("pairs")
    write_world(str(place / "world"), videos=64, seed=0)
    write_concepts(str(place / "concepts"), clips=PAIRS, random=24)
    for folder in ("forwards", "backwards"):
        (place / folder).mkdir()
    for source in (place / "concepts" / "moving up").iterdir():
        frames, *_ = decode_frames(str(source), list(range(FRAMES)))
        encode(frames, path=str(place / "forwards" / source.name), options={"crf": "8"})
        encode(frames[::-1], path=str(place / "backwards" / f"{source.stem}.mkv"), container="matroska",
               options={"crf": "8"})  # fmt: skip
    (place / "backwards" / "004.mkv").write_bytes(b"no video" * 50)
    return place


def overrides(place: Path, *more: str) -> list[str]:
    concepts = (
        f"[{{name: upwards, clips: '{place}/forwards', negatives: '{place}/backwards', pairs: by_name}}, "
        f"{{name: down, clips: '{place}/concepts/moving down', negatives: '{place}/concepts/random'}}]"
    )
    return [
        f"videos={{uri: '{place / 'world' / 'videos.parquet'}'}}",
        f"clips.concepts={concepts}",
        "clips.per_class=6",
        f"clips.per_concept={PAIRS}",
        "clips.random_pool=24",
        "clips.controls=[reversed]",
        "activations.layers=[late]",
        "cavs.random_sets=8",
        "scores.permutations=500",
        "scores.bootstrap=200",
        *more,
    ]


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    with without_ray():
        pipeline.run(load_config(OWN_CLIPS, overrides(place), out=str(place / "run")))
    return Run(str(place / "run"))


def read_table(run: Run, stage: str, name: str) -> list[dict[str, Any]]:
    found = run.stage(stage).read(name)
    return [] if found is None else list(found.to_pylist())


def test_it_finds_what_differs_in_the_pairs_as_the_motion_control_does(run: Run) -> None:
    for class_, sign in (("lift", 1), ("put_down", -1)):
        of = {"class": class_, "concept": "upwards/given", "layer": "late"}
        pairs, control = cell(run, against="random", **of), cell(run, against="upwards/given_reversed", **of)
        assert pairs["effect"] * sign > 0.5, pairs
        assert pairs["p"] < 0.01, pairs
        assert (pairs["n_concept"], pairs["n_random"]) == (PAIRS - 1, PAIRS - 1)
        # A file played backwards and a motion control show the same, up to the encoder.
        assert pairs["effect"] == pytest.approx(control["effect"], rel=0.1)
        assert pairs["note"].startswith("In pairs")
        assert not cell(run, against="random", **{**of, "concept": "down/given"})["note"].startswith("In pairs")
    assert "unmatched" not in " ".join(run.table("scores")["note"].to_pylist()).lower()


def test_a_damaged_file_is_one_failure_and_its_partner_is_left_out(run: Run) -> None:
    failures = run.table("failures").to_pylist()
    assert [(f["stage"], f["error_kind"]) for f in failures] == [("clips", "not_video")]
    assert failures[0]["uri"].endswith("backwards/004.mkv")
    left_out = {row["clip_id"]: row["reason"] for row in read_table(run, "cavs", "left_out")}
    assert left_out == dict.fromkeys(
        (f"concept/upwards/{kind}/given/forwards/004.mp4" for kind in ("given", "given_reversed")), "no_partner"
    )
    assert not read_table(run, "clips", "duplicates"), "a file and its partner are no copies of each other"


def test_preflight_review_report_and_tables_know_the_concept(run: Run, place: Path) -> None:
    found = check(load_config(OWN_CLIPS, overrides(place), out=str(place / "run")))
    (of_clips,) = [c for c in found.checks if c.subject == "own clips"]
    assert (of_clips.verdict, f"upwards/given: {PAIRS} clips of {PAIRS} videos" in of_clips.message) == ("ok", True)
    assert {"upwards/given", "random/upwards/given in pairs"} <= {group.name for group in ClipGroups(run).groups}
    page = run.folder.read_bytes("report.html").decode()
    assert "upwards" in page
    assert "UNMATCHED" not in page
    rows = [row for row in run.table("composition").to_pylist() if row["concept"] == "upwards/given"]
    assert [(row["n_concept"], row["n_random"]) for row in rows] == [(PAIRS - 1, PAIRS - 1)]


def test_a_plan_counts_it(run: Run, place: Path) -> None:
    settings = [word for one in overrides(place) for word in ("--set", one)]
    planned = json.loads(vtcav("plan", OWN_CLIPS, "--sample", "4", "--json", *settings).splitlines()[-1])
    assert planned["clips"]["low"] <= run.table("clips", columns=["clip_id"]).num_rows <= planned["clips"]["high"]


@pytest.mark.full
def test_the_commands_treat_it_like_any_other_concept(run: Run, tmp_path: Path) -> None:
    out = str(shutil.copytree(run.folder.url, tmp_path / "run"))
    video = next(
        h["video_id"] for h in run.table("clips", columns=["set", "video_id"]).to_pylist() if h["set"] == "class"
    )
    lines = [line for line in vtcav("explain", out, video, "--json").splitlines() if line.startswith("{")]
    (explained, *_) = [one for one in json.loads(lines[0])["concepts"] if one["concept"] == "upwards/given"]
    assert explained["push"] is not None
    vtcav("export", out, "--to", str(tmp_path / "paper"), "--figures", "png", "--class", "lift")
    assert any((tmp_path / "paper").rglob("*.png"))
    vtcav("maps", out, "--concept", "upwards/given", "--clips", "2", "--cells", "all")
    vtcav("patch", out, "--class", "lift", "--concept", "upwards/given", "--cells", "all")
    patched = {row["against"]: row for row in Run(out).table("patch_effects").to_pylist()}
    assert patched["random"]["effect_patch"] > 0
    assert patched["random"]["n_concept"] == patched["random"]["n_random"] == PAIRS - 1
    vtcav("faithful", out, "--layer", "late", "--clips", "2", "--cells", "all")
    checkpoint = str(ROOT / "vtcav_ray" / "world" / "assets" / "recogniser.pth")
    vtcav("rerun", out, "--checkpoint", checkpoint, "--out", str(tmp_path / "rerun"))
    again = Run(str(tmp_path / "rerun"))
    assert again.keys["clips"] == run.keys["clips"]
    assert (
        cell(again, **{"class": "lift", "concept": "upwards/given", "against": "random", "layer": "late"})["p"] < 0.01
    )
    assert "upwards" in vtcav("compare", out, str(tmp_path / "rerun"))


def test_a_file_without_partner_stops_before_anything_is_written(place: Path, tmp_path: Path) -> None:
    more = shutil.copytree(place / "forwards", tmp_path / "more")
    shutil.copy(more / "000.mp4", more / "alone.mp4")
    settings = [word for one in overrides(place, f"clips.concepts.0.clips={more}") for word in ("--set", one)]
    with without_ray():
        result = CliRunner().invoke(
            cli.application.app, ["run", OWN_CLIPS, "--out", str(tmp_path / "run"), *settings], env={"COLUMNS": "400"}
        )
    assert isinstance(result.exception, ConfigError)
    assert "alone.mp4" in str(result.exception)
    assert "clips.concepts.0.pairs" in str(result.exception)
    assert not list((tmp_path / "run").rglob("*.parquet"))
