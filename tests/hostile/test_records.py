"""Truncated, flipped or hostile run.json, manifests, commit records and pointers give a clear error or are healed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.helpers.examples import examples_in_one_folder
from tests.helpers.small_house import SmallHouse, contents, manifests, records, unseal
from vtcav_ray import cli, pipeline
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.retry import newest, retry_key, supersede
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.status import run_status
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import FORMAT, SEAL, BrokenFile, commit_record, manifest_record, parse_sealed, sealed_bytes

BROKEN = [
    b"",
    b"{",
    b'{"keys": {}',
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"7",
    b'{"shards": 1}',
    b"[" * 100_000,
    b"\0" * 50,
]
QUICK = (b"", b'{"keys": {}', b"\xff\xfe\x00", b"7")  # nothing, cut off, no text, not an object
WITH_RUNS = [pytest.param(content, marks=[] if content in QUICK else pytest.mark.slow) for content in BROKEN]


@pytest.mark.parametrize("content", WITH_RUNS)
def test_a_broken_run_json_is_reported_and_rewritten(house: SmallHouse, config: Config, content: bytes) -> None:
    run = pipeline.run(config)
    wanted = contents(run)
    path = Path(run.url, "run.json")
    path.write_bytes(content)
    for command in (["status"], ["table", run.url, "scores"], ["verify"], ["retry-failed"]):
        arguments = command if len(command) > 1 else [*command, run.url]
        said = CliRunner().invoke(cli.app, arguments)
        assert isinstance(said.exception, BrokenFile), command
        assert said.exception.exit_status == 3
        assert str(path) in str(said.exception)
        assert f"Run `vtcav run CONFIG --out {run.url}` again" in str(said.exception)
    assert contents(pipeline.run(config)) == wanted


@pytest.mark.parametrize("content", WITH_RUNS)
def test_a_broken_manifest_is_reported_and_run_writes_it_from_the_records(
    house: SmallHouse, config: Config, content: bytes
) -> None:
    run = pipeline.run(config)
    wanted = contents(run)
    path = manifests(run)[1]
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match=r"tracks/[0-9a-f]+/manifest\.json: .*`vtcav run` on this folder repairs it"):
        run.table("tracks")
    with pytest.raises(BrokenFile):
        run_status(run)
    house.worked.clear()
    assert contents(pipeline.run(config)) == wanted
    assert house.worked == {}, "the records equal the plan: no shard is made again"


@pytest.mark.parametrize("content", WITH_RUNS)
def test_a_broken_commit_record_is_reported_and_its_shard_made_again(
    house: SmallHouse, config: Config, content: bytes
) -> None:
    run = pipeline.run(config)
    wanted = contents(run)
    path = records(run)[2]
    path.write_bytes(content)
    stage = run.stage("tracks")
    with pytest.raises(BrokenFile, match=path.name):
        stage.records()
    house.worked.clear()
    assert contents(pipeline.run(config)) == wanted
    assert len(house.worked["tracks"]) == 3


@pytest.mark.slow
def test_records_of_other_shards_change_nothing(house: SmallHouse, config: Config) -> None:
    """A copied record, or a record of a shard that the stage does not have, duplicates no row."""
    run = pipeline.run(config)
    wanted = contents(run)
    commits = records(run)[2].parent
    copy = commits / "copy.json"
    copy.write_bytes(records(run)[2].read_bytes())
    stray = stage_folder(run.folder, "tracks", run.keys["tracks"])
    stray.commit("stray", ShardOutput({"tracks": stray.read("tracks")}))
    assert contents(Run(run.url)) == wanted
    manifests(run)[1].unlink()
    assert contents(pipeline.run(config)) == wanted
    assert not copy.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../../../etc/x/s.parquet": {"rows": 1, "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"/etc/s.parquet": {"rows": 1, "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"tracks/other.parquet": {"rows": 1, "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"tracks/s.parquet": {"rows": -1, "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"tracks/s.parquet": {"rows": 1, "bytes": 1, "sha256": "x"}}},
        {"files": {"tracks/s.parquet": {"rows": 1, "bytes": 1}}},
        {"shard": "other"},
        {"shard": ".."},
        {"metrics": {"seconds": "1"}},
        {"failures": "0"},
        {"warnings": None},
    ],
)
def test_a_hostile_commit_record_is_refused(change: dict[str, Any]) -> None:
    good = {"shard": "s", "files": {}, "failures": 0, "metrics": {}, "warnings": []}
    assert commit_record(dict(good), "run/_commits/s.json") == good
    with pytest.raises(BrokenFile, match=r"run/_commits/s\.json"):
        commit_record({**good, **change}, "run/_commits/s.json")


@pytest.mark.parametrize(
    "change",
    [{"keys": {"scores": "../../x"}}, {"keys": {"scores": ""}}, {"keys": {"..": "k"}}, {"keys": []}, {"config": 1},
     {"previous": {"tracks": 1}}, {"retired": [["tracks", "../.."]]}, {"retired": [["tracks"]]}, {"updated": "now"}],
)  # fmt: skip
def test_a_hostile_run_json_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    Folder(str(tmp_path)).write_json("run.json", {"config": {}, "keys": {}, **change})
    with pytest.raises(BrokenFile, match=r"run\.json: `"):
        Run(str(tmp_path))


def test_an_edit_by_hand_is_noticed(house: SmallHouse, config: Config) -> None:
    run = pipeline.run(config)
    path = Path(run.url, "run.json")
    path.write_text(path.read_text().replace('"done"', '"DONE"'))
    with pytest.raises(BrokenFile, match="checksum"):
        Run(run.url)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"by": "../x"}', b'{"by": 1}'])
def test_a_broken_pointer_is_reported(tmp_path: Path, content: bytes) -> None:
    first = stage_folder(Folder(str(tmp_path)), "tracks", "k")
    first.folder.write_bytes("superseded.json", content)
    with pytest.raises(BrokenFile, match=r"superseded\.json: .*Remove it"):
        newest(first)


def test_pointers_in_a_circle_end(tmp_path: Path) -> None:
    first = stage_folder(Folder(str(tmp_path)), "tracks", "k")
    second = stage_folder(Folder(str(tmp_path)), "tracks", retry_key("k"))
    supersede(first, second)
    supersede(second, first)
    with pytest.raises(BrokenFile, match="leads back"):
        newest(first)


@pytest.mark.slow
@pytest.mark.parametrize("content", WITH_RUNS)
def test_a_broken_plan_is_reported(house: SmallHouse, config: Config, content: bytes) -> None:
    run = pipeline.run(config)
    folder = Path(run.stage("tracks").folder.url)
    (folder / "manifest.json").unlink()
    (folder / "plan.json").write_bytes(content)
    with pytest.raises(BrokenFile, match=r"plan\.json: .*Remove it"):
        run_status(run)


# --- fuzz -------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
RECORD = {"shard": "s", "files": {"tracks/s.parquet": {"rows": 1, "bytes": 1, "sha256": "0" * 64}}, "failures": 0,
          "metrics": {"seconds": 0.5}, "warnings": ["w"]}  # fmt: skip
MANIFEST = {"stage": "tracks", "key": "k", "ingredients": {}, "shards": {"s": RECORD["files"]}, "rows": {"tracks": 1},
            "bytes": 1, "metrics": {}, "warnings": []}  # fmt: skip
RUN = {"config": {"videos": {"uri": "v"}}, "keys": {"tracks": "k"}, "status": "done", "previous": {}}
fuzzed = examples_in_one_folder(300)


def changed(value: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return the value with one part, at some depth, replaced by any JSON value or removed."""

    @st.composite
    def draw(take: st.DrawFn) -> dict[str, Any]:
        copy = json.loads(json.dumps(value))
        place: Any = copy
        while True:
            key = take(st.sampled_from(sorted(place)))
            if isinstance(place[key], dict) and place[key] and take(st.booleans()):
                place = place[key]
                continue
            if take(st.booleans()):
                place[key] = take(JSON)
            else:
                del place[key]
            return copy

    return draw()


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return (result, ""), or (None, message) if a file is broken. Any other error is a bug."""
    try:
        return call(), ""
    except (BrokenFile, ConfigError) as error:
        return None, str(error)


@pytest.mark.slow
@given(data=st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
@fuzzed
def test_any_bytes_are_json_or_a_sentence(data: bytes) -> None:
    _, reported = outcome(lambda: parse_sealed(data, "run/run.json"))
    assert not reported or "run/run.json" in reported


@pytest.mark.slow
@given(value=changed(RECORD) | JSON)
@fuzzed
def test_any_commit_record_is_whole_or_a_sentence(value: Any) -> None:
    record, reported = outcome(lambda: commit_record(value, "run/_commits/s.json"))
    if reported:
        assert "run/_commits/s.json" in reported
        return
    assert record["shard"] == "s"
    assert all(path.endswith("/s.parquet") and ".." not in path.split("/") for path in record["files"])
    assert all(type(file["rows"]) is int and file["rows"] >= 0 for file in record["files"].values())


@pytest.mark.slow
@given(value=changed(MANIFEST) | JSON)
@fuzzed
def test_any_manifest_is_whole_or_a_sentence(value: Any) -> None:
    manifest, reported = outcome(lambda: manifest_record(value, "run/manifest.json", "tracks", "k"))
    assert reported or all(type(count) is int for count in manifest["rows"].values())


@pytest.mark.slow
@given(value=changed(RUN) | JSON)
@fuzzed
def test_any_run_json_opens_or_is_a_sentence(value: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(value))

    def use() -> None:
        run = Run(str(tmp_path))
        run_status(run)
        assert run.config is not None

    _, reported = outcome(use)
    assert not reported or str(tmp_path) in reported


@pytest.mark.slow
@given(
    value=st.dictionaries(st.text(max_size=8).filter(lambda name: name not in (SEAL, FORMAT)), JSON, max_size=5),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
@fuzzed
def test_no_flipped_bit_of_sealed_json_is_read(value: dict[str, Any], place: float, bit: int) -> None:
    data = bytearray(sealed_bytes(value))
    written = json.dumps(parse_sealed(bytes(data), "x"))  # as text, because NaN is not equal to itself
    assert written == json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    data[int(place * len(data))] ^= 1 << bit
    found, reported = outcome(lambda: json.dumps(parse_sealed(bytes(data), "x")))
    assert reported.startswith("x: ") or found == written, "the case of a hex digit in an escape, at most"


def test_a_seal_can_be_left_out_only_by_older_versions(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_json("x.json", {"a": 1})
    unseal(tmp_path / "x.json")
    assert folder.read_json("x.json") == {"a": 1}
    rng = random.Random(0)
    folder.write_json("x.json", {"a": 1})
    good = (tmp_path / "x.json").read_bytes()
    for name in (b"sealed", b"file_format"):
        data = bytearray(good)
        data[data.index(name) + rng.randrange(len(name))] ^= 1
        (tmp_path / "x.json").write_bytes(bytes(data))
        with pytest.raises(BrokenFile, match="checksum"):
            folder.read_json("x.json")
