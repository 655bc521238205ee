"""A run whose concepts are all own clips: no detector anywhere, the planted answer, and every command on its folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

from tests.helpers.finished_run import cell, vtcav
from tests.helpers.small_runs import ONE_ACTOR_A_STAGE, without_ray
from vtcav_ray import pipeline
from vtcav_ray.config.loading import load_config
from vtcav_ray.planning.dry_run import check
from vtcav_ray.review.clip_groups import ClipGroups
from vtcav_ray.runs.run import Run
from vtcav_ray.world import write_world
from vtcav_ray.world.concepts import write_concepts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OWN_CLIPS = str(ROOT / "configs" / "own_clips.yaml")
SMALL = [
    *ONE_ACTOR_A_STAGE,
    "shard_videos=16",
    "clips.per_class=6",
    "clips.per_concept=10",
    "clips.random_pool=24",
    "clips.controls=[reversed]",
    "activations.layers=[late]",
    "cavs.random_sets=10",
    "scores.permutations=500",
    "scores.bootstrap=200",
]
# The whole run in a process of its own: what it imports is what a person's run imports.
FRESH = """
import sys
from tests.helpers.small_runs import without_ray
from vtcav_ray import pipeline
from vtcav_ray.config.loading import load_config
with without_ray():
    pipeline.run(load_config(sys.argv[1], sys.argv[3:], out=sys.argv[2]))
found = sorted(name for name in sys.modules if name.partition(".")[0] == "ultralytics")
print("IMPORTED", found)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world with concept folders, in which one clip is damaged, one is a copy, and one is of the corpus."""
    place = tmp_path_factory.mktemp("own")
    write_world(str(place / "world"), videos=64, seed=0)
    assert write_concepts(str(place / "world" / "concepts"), clips=10, random=24)["random"] == 48
    shutil.copytree(place / "world" / "concepts", place / "concepts")
    (place / "concepts" / "moving up" / "009.mp4").write_bytes(b"no video" * 50)
    shutil.copy(place / "concepts" / "moving down" / "000.mp4", place / "concepts" / "random" / "copy.mp4")
    return place


def overrides(place: Path, *more: str) -> list[str]:
    # No detector's weights are there: any look for them fails.
    of = [f"videos={{uri: '{place / 'world' / 'videos.parquet'}'}}", f"clips.concepts={{from: '{place / 'concepts'}'}}"]
    return [*SMALL, *of, "tracks={weights: /nowhere/detector.pt}", *more]


@pytest.fixture(scope="module")
def made(place: Path) -> tuple[Run, str]:
    command = [sys.executable, "-c", FRESH, OWN_CLIPS, str(place / "run"), *overrides(place)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return Run(str(place / "run")), found.stdout


@pytest.fixture(scope="module")
def run(made: tuple[Run, str]) -> Run:
    return made[0]


def copied(run: Run, out: Path) -> str:
    return str(shutil.copytree(run.folder.url, out))


@pytest.mark.full
def test_nothing_of_the_detector_is_imported_or_looked_for(made: tuple[Run, str], place: Path) -> None:
    assert "IMPORTED []" in made[1]
    assert "tracks" not in made[0].keys
    assert "tracks" not in made[0].folder.names("")
    found = check(load_config(OWN_CLIPS, overrides(place), out=str(place / "run")))
    assert [c.verdict for c in found.checks if c.subject in ("detector", "own clips")] == ["ok"]


def test_it_finds_what_is_planted(run: Run) -> None:
    for class_, sign in (("lift", 1), ("put_down", -1)):
        up = cell(run, **{"class": class_, "concept": "moving up/given", "against": "random", "layer": "late"})
        back = "moving up/given_reversed"
        motion = cell(run, **{"class": class_, "concept": "moving up/given", "against": back, "layer": "late"})
        for row in (up, motion):
            assert row["effect"] * sign > 0.5, row
        assert motion["p"] < 0.01, motion
    still = cell(run, **{"class": "lift", "concept": "cup/still", "against": "random", "layer": "late"})
    assert abs(still["share_of_margin"]) < 0.15
    assert not any("unmatched" in note.lower() for note in run.table("scores")["note"].to_pylist())


def test_a_bad_clip_is_one_failure_and_a_copy_is_left_out(run: Run) -> None:
    failures = run.table("failures").to_pylist()
    assert [(f["stage"], f["error_kind"]) for f in failures] == [("clips", "not_video")]
    assert failures[0]["uri"].endswith("moving up/009.mp4")
    repeats = {r["clip_id"]: r["repeats"] for r in run.table("duplicates").to_pylist()}
    assert repeats["random/given/given/concepts/random/copy.mp4"] == (
        "concept/moving down/given/given/concepts/moving down/000.mp4"
    )
    heads = run.table("clips", columns=["set", "kind", "name", "video_id", "track_id", "frames"]).to_pylist()
    assert {(h["set"], h["kind"]) for h in heads} == {
        ("class", "full"), ("concept", "given"), ("concept", "given_reversed"), ("concept", "still"),
        ("random", "given"), ("random", "given_reversed"), ("random", "still"),
    }  # fmt: skip
    corpus = set(run.table("videos")["video_id"].to_pylist())
    assert not {h["video_id"] for h in heads if h["set"] != "class"} & corpus


def test_the_review_and_the_report_show_the_clips(run: Run) -> None:
    groups = ClipGroups(run).groups
    assert {"moving up/given", "cup/still", "random/given"} <= {g.name for g in groups}
    page = run.folder.read_bytes("report.html").decode()
    assert page.count("data:image/webp") > 10
    assert "moving up" in page


def test_a_second_run_computes_nothing_and_another_clip_only_its_own(run: Run, place: Path, tmp_path: Path) -> None:
    out = copied(run, tmp_path / "run")
    config = load_config(OWN_CLIPS, overrides(place), out=out)
    with without_ray():
        assert pipeline.run(config).keys == run.keys
        concepts = shutil.copytree(place / "concepts", tmp_path / "concepts")
        config = load_config(OWN_CLIPS, overrides(place, f"clips.concepts={{from: '{concepts}'}}"), out=out)
        first = pipeline.run(config, until="clips")
        shutil.copy(concepts / "random" / "000.mp4", concepts / "random" / "more.mp4")
        second = pipeline.run(config, until="clips")
    assert (first.keys["videos"], first.keys["clips"]) != (second.keys["videos"], second.keys["clips"])
    carried = second.manifest("clips")["carried"]
    assert carried["kept"] == carried["units"] - 2, "the new clip, and the one that failed"


@pytest.mark.full
def test_explain_maps_and_rerun_work_without_tracks(run: Run, tmp_path: Path) -> None:
    out = copied(run, tmp_path / "run")
    heads = run.table("clips", columns=["set", "video_id"]).to_pylist()
    example = next(h["video_id"] for h in heads if h["set"] == "class")
    lines = [line for line in vtcav("explain", out, example, "--json").splitlines() if line.startswith("{")]
    assert "moving up/given" in {one["concept"] for one in json.loads(lines[0])["concepts"]}
    vtcav("maps", out, "--concept", "moving up/given", "--clips", "2", "--cells", "all")
    assert Run(out).table("maps").num_rows
    checkpoint = str(ROOT / "vtcav_ray" / "world" / "assets" / "recogniser.pth")
    vtcav("rerun", out, "--checkpoint", checkpoint, "--out", str(tmp_path / "rerun"))
    rerun = Run(str(tmp_path / "rerun"))
    assert rerun.keys["clips"] == run.keys["clips"]
    assert rerun.table("scores").num_rows == run.table("scores").num_rows
    assert "moving up" in vtcav("compare", out, str(tmp_path / "rerun"))


@pytest.mark.full
def test_gradcam_and_patch_work_without_tracks(run: Run, place: Path, tmp_path: Path) -> None:
    out = copied(run, tmp_path / "run")
    settings = [word for one in overrides(place, "gradcam.layers=[late]") for word in ("--set", one)]
    vtcav("gradcam", OWN_CLIPS, "--out", out, "--limit", "2", *settings)
    assert Run(out).table("gradcam").num_rows
    vtcav("patch", out, "--class", "lift", "--concept", "moving up/given", "--cells", "all")
    (row,) = Run(out).table("patch_effects").to_pylist()
    assert row["effect"] > 0.5


@pytest.mark.full
def test_without_negatives_the_mark_is_in_the_terminal_the_table_and_the_report(place: Path, tmp_path: Path) -> None:
    own = f"[{{name: moving up, clips: '{place / 'concepts' / 'moving down'}'}}]"
    more = [f"clips.concepts={own}", "clips.controls=[]", "cavs.random_sets=4", "scores.permutations=100"]
    config = tmp_path / "c.yaml"
    config.write_text(Path(OWN_CLIPS).read_text())
    settings = [word for one in overrides(place, *more) for word in ("--set", one)]
    shown = vtcav("run", str(config), "--out", str(tmp_path / "run"), *settings)
    assert "UNMATCHED" in shown
    run = Run(str(tmp_path / "run"))
    random = run.table("scores").filter(pc.equal(run.table("scores")["against"], "random"))
    assert random.num_rows
    assert all("footage" in note for note in random["note"].to_pylist())
    assert "UNMATCHED" in run.folder.read_bytes("report.html").decode()
