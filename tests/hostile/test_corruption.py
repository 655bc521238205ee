"""Reading gives what was written: no flipped bit, lost file or lost record changes a table silently."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.helpers.small_house import SmallHouse, contents, data_files, manifests, records, scores_of, unseal
from vtcav_ray import cli, pipeline
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.runs.run import Run
from vtcav_ray.store import verified
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import BrokenFile


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def lose(path: Path, rng: random.Random) -> None:
    path.unlink()


def verify(run: Run) -> tuple[int, str]:
    """Return exit status and output of `vtcav verify`."""
    said = CliRunner().invoke(cli.app, ["verify", run.url])
    return said.exit_code, said.output


def big(folder: Folder) -> StageFolder:
    """A stage with a file of five blocks. It holds random numbers, so that every bit matters."""
    width = 5 * verified.BLOCK_BYTES // 640
    numbers = random.Random(0).randbytes(640 * width)
    values = [numbers[i * width : (i + 1) * width] for i in range(640)]
    rows = pa.table({"video_id": [str(i) for i in range(640)], "x": values})
    stage = stage_folder(folder, "tracks", "k")
    stage.commit("s", ShardOutput({"tracks": rows}))
    stage.finish({}, {}, ["s"])
    return stage


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [True, False], ids=["with blocks", "as of an older version"])
def test_no_flipped_bit_is_read(tmp_path: Path, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the whole file finds each of 150 random flipped bits, and no read gives other rows."""
    monkeypatch.setattr(verified, "BLOCK_BYTES", 1 << 16)
    stage = big(Folder(str(tmp_path / "run")))
    root = Path(stage.folder.url)
    if not blocks:
        for path in (root / "manifest.json", root / "_commits" / "s.json"):
            unseal(path)
            text = json.loads(path.read_text())
            files = text["files"] if "files" in text else text["shards"]["s"]
            assert len(files["tracks/s.parquet"].pop("blocks")) > 4
            path.write_text(json.dumps(text))
    file, rng = root / "tracks" / "s.parquet", random.Random(1)
    good, rows = file.read_bytes(), stage.read("tracks")
    for _ in range(150):
        verified._KNOWN._held.clear()  # as in a new process
        flip(file, rng)
        again = stage_folder(stage.run, "tracks", "k")
        with pytest.raises(BrokenFile, match=r"tracks/s\.parquet: .*SHA-256.*`vtcav run` on this folder"):
            again.read("tracks")
        try:
            part = again.read("tracks", columns=["video_id"])
        except BrokenFile:
            part = None
        assert part is None or part["video_id"] == rows["video_id"]
        file.write_bytes(good)
    assert stage.read("tracks") == rows


def test_only_the_blocks_that_are_read_are_hashed(tmp_path: Path) -> None:
    """Reading one row group of a file that is broken elsewhere gives right rows and does not read the whole file."""
    stage = big(Folder(str(tmp_path)))
    path = Path(stage.folder.url, "tracks/s.parquet")
    data = bytearray(path.read_bytes())
    data[3 << 20] ^= 1
    path.write_bytes(bytes(data))
    assert stage.read_file("tracks/s.parquet", ["video_id"]).num_rows == 640
    with pytest.raises(BrokenFile):
        stage.read_file("tracks/s.parquet")


def test_without_verification_it_is_read_as_it_is(tmp_path: Path) -> None:
    stage = big(Folder(str(tmp_path)))
    path = Path(stage.folder.url, "tracks/s.parquet")
    shutil.copy(path, tmp_path / "copy")
    pq.write_table(pa.table({"video_id": ["other"]}), path)
    trusting = stage_folder(Folder(str(tmp_path), verify=False), "tracks", "k")
    assert trusting.read_file("tracks/s.parquet").to_pylist() == [{"video_id": "other"}]
    with pytest.raises(BrokenFile):
        stage_folder(Folder(str(tmp_path)), "tracks", "k").read_file("tracks/s.parquet")


@pytest.mark.parametrize("url", ["local", "memory"])
def test_a_lost_record_of_a_complete_stage_loses_no_row(tmp_path: Path, url: str) -> None:
    folder = Folder(str(tmp_path) if url == "local" else f"memory://{tmp_path.name}")
    stage = stage_folder(folder, "tracks", "k")
    for i in range(4):
        stage.commit(f"s{i}", ShardOutput({"tracks": pa.table({"n": [i]})}))
    stage.finish({}, {}, [f"s{i}" for i in range(4)])
    stage.folder.remove("_commits/s2.json")
    again = stage_folder(folder, "tracks", "k")
    assert again.read("tracks")["n"].to_pylist() == [0, 1, 2, 3]
    assert [name for name, _ in again.iter_tables("tracks")] == ["s0", "s1", "s2", "s3"]
    stage.folder.remove("tracks/s2.parquet")
    with pytest.raises(BrokenFile, match=r"tracks/s2\.parquet: it is missing"):
        again.read("tracks")


def test_a_stage_is_complete_when_its_records_are_its_plan(tmp_path: Path) -> None:
    stage = stage_folder(Folder(str(tmp_path)), "tracks", "k")
    stage.commit("a", ShardOutput({"tracks": pa.table({"n": [1]})}))
    with pytest.raises(StageError, match=r"has 1 of its 2 shards; the first missing one is b. Run again"):
        stage.finish({}, {}, ["a", "b"])
    assert not stage.complete
    stage.commit("c", ShardOutput({"tracks": pa.table({"n": [1]})}))
    with pytest.raises(StageError, match=r"_commits/c\.json is the record of a shard that is not in the plan"):
        stage.finish({}, {}, ["a"])
    assert not stage.complete


@pytest.mark.slow
@pytest.mark.parametrize("of", [data_files, records, manifests])
@pytest.mark.parametrize("harm", [flip, cut, lose])
def test_run_heals_what_verify_finds(
    house: SmallHouse, config: Config, harm: Callable[..., None], of: Callable[[Run], list[Path]]
) -> None:
    """For each damaged file of a run, verify names it and exits 3, and run restores it and the original tables."""
    run = pipeline.run(config)
    wanted, keys = contents(run), run.keys
    before = {path: path.read_bytes() for path in data_files(run)}
    assert verify(run)[0] == 0
    rng = random.Random(f"{harm.__name__} {of.__name__}")
    for path in of(run):
        harm(path, rng)
        status, said = verify(run)
        assert status == 3, path
        if of is not manifests:
            assert f"shard {path.stem}: {path.parent.name}/{path.name}" in said
            assert path.stem in said.partition("Shards to recompute:")[2]
        house.worked.clear()
        run = pipeline.run(config)
        assert contents(run) == wanted, path
        assert run.keys == keys
        assert {path: path.read_bytes() for path in data_files(run)} == before
        assert verify(run)[0] == 0
        assert sum(map(len, house.worked.values())) <= 4, "one shard, and nothing that follows from it"


@pytest.mark.slow
def test_all_at_once(house: SmallHouse, config: Config) -> None:
    run = pipeline.run(config)
    wanted, rng = contents(run), random.Random(7)
    for of in (data_files, records, manifests):
        for path in of(run):
            if rng.random() < 0.5:
                rng.choice([flip, cut, lose])(path, rng)
    run = pipeline.run(config)
    assert contents(run) == wanted
    assert verify(run)[0] == 0


def test_what_can_not_be_made_again_as_it_was_is_made_again_with_all_that_follows(
    house: SmallHouse, config: Config
) -> None:
    """If another machine gives other bytes, nothing that was computed from the lost bytes stays."""
    run = pipeline.run(config)
    keys, wanted = run.keys, contents(run)
    house.salt = "!"
    flip(data_files(run)[1], random.Random(0))
    run = pipeline.run(config)
    assert verify(run)[0] == 0
    assert {name for name in keys if run.keys[name] != keys[name]} == {"tracks", "clips", "scores"}
    assert run.manifest("tracks")["healed_from"] == keys["tracks"]
    tracks = {row["video_id"]: row["track"] for row in run.table("tracks").to_pylist()}
    other = [video for video, track in tracks.items() if track.endswith("!")]
    assert len(other) == 3, "one shard; the others are kept"
    assert {r["video_id"]: r["clip"] for r in scores_of(run).to_pylist()} == {
        video: f"c-{track}" for video, track in tracks.items()
    }
    assert contents(run) != wanted
    # The next run changes nothing.
    house.worked.clear()
    assert pipeline.run(config).keys == run.keys
    assert house.worked == {}


@pytest.mark.slow
def test_a_broken_record_alone_keeps_the_files_that_are_there(house: SmallHouse, config: Config) -> None:
    run = pipeline.run(config)
    wanted, keys = contents(run), run.keys
    house.salt = "!"
    records(run)[2].unlink()
    run = pipeline.run(config)
    assert (contents(run), run.keys) == (wanted, keys)
    assert verify(run)[0] == 0


@pytest.mark.slow
def test_a_stopped_run_makes_its_broken_shards_again(house: SmallHouse, config: Config) -> None:
    whole = contents(pipeline.run(config.model_copy(update={"out": f"{config.run_url}-whole"})))
    house.worked.clear()

    def stop(stage: str) -> None:
        if stage == "tracks" and len(house.worked.get("tracks", [])) >= 9:
            raise StageError("stopped")

    house.before_shard = stop
    with pytest.raises(StageError, match="stopped"):
        pipeline.run(config)
    house.before_shard = lambda stage: None
    folder = next((Path(config.run_url) / "tracks").iterdir())
    flip(sorted((folder / "tracks").iterdir())[0], random.Random(0))
    flip(sorted((folder / "_commits").iterdir())[1], random.Random(0))
    house.worked.clear()
    assert contents(pipeline.run(config)) == whole
    assert sorted(house.worked["tracks"]) == [*house.videos[:6], *house.videos[9:]]


@pytest.mark.slow
def test_nothing_broken_is_carried_over(house: SmallHouse, config: Config) -> None:
    """With more videos, shards of the earlier output are carried over, except a broken one."""
    many, house.videos = house.videos, house.videos[:12]
    first = pipeline.run(config)
    flip(data_files(first)[1], random.Random(0))
    house.videos = many
    house.worked.clear()
    run = pipeline.run(config)
    fresh = pipeline.run(config.model_copy(update={"out": f"{config.run_url}-other"}))
    assert contents(run) == contents(fresh)
    assert 0 < run.manifest("tracks")["carried"]["kept"] < 12


def test_no_verify_looks_at_nothing(house: SmallHouse, config: Config) -> None:
    run = pipeline.run(config)
    flip(data_files(run)[1], random.Random(0))
    house.worked.clear()
    pipeline.run(config, verify=False)
    assert house.worked == {}


@pytest.mark.slow
def test_a_run_of_an_older_version_is_read_and_verified(house: SmallHouse, config: Config) -> None:
    """The records of an older version hold no seals and no blocks."""
    run = pipeline.run(config)
    wanted = contents(run)
    for path in [*records(run), *manifests(run), Path(run.url, "run.json")]:
        unseal(path)
    run = Run(run.url)
    assert contents(run) == wanted
    assert verify(run)[0] == 0
    flip(data_files(run)[1], random.Random(0))
    assert verify(run)[0] == 3
    assert contents(pipeline.run(config)) == wanted


def test_a_stage_that_is_not_complete_is_reported(house: SmallHouse, config: Config) -> None:
    run = pipeline.run(config)
    manifests(run)[1].unlink()
    status, said = verify(run)
    assert status == 3
    assert "the stage is not complete (7 shards are done)" in said
    answer = CliRunner().invoke(cli.app, ["verify", run.url, "--json"])
    assert answer.exit_code == 3
    found = json.loads(answer.stdout)
    assert [s["stage"] for s in found["stages"] if s["damage"]] == ["tracks"]
