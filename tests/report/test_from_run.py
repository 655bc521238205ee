"""A report read from a run folder: the page is made from the stages' output."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.helpers import report_factory as factory
from tests.helpers.report_factory import cell, clip, table
from tests.helpers.small_runs import facts
from vtcav_ray import pipeline, tables
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.report import ReportData, build_report
from vtcav_ray.report.data import read_entanglement
from vtcav_ray.report.previews import MAX_FRAMES, MAX_SIDE, make_preview
from vtcav_ray.report.stage import STAGE as REPORT
from vtcav_ray.rows import Failure
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.codec import encode_clip

CONCEPTS = ("cup up/spatial", "cup up/spatiotemporal")
D = 6


def clip_row(set_: str, concept: str, number: int, video: str) -> dict:
    name, _, kind = concept.partition("/")
    encoding, encoded = encode_clip(clip(concept, seed=number))
    return {
        "clip_id": f"{set_}/{concept}/{number}", "set": set_, "name": name, "kind": kind, "video_id": video,
        "num_frames": 16, "height": 64, "width": 64, "encoding": encoding, "encoded": encoded,
    }  # fmt: skip


def cav_rows(layer: str) -> list[dict]:
    rng = np.random.default_rng(3)
    rows = []
    for concept in (*CONCEPTS, "random/spatial#0"):
        for run in range(4):
            for negatives in (f"random/{concept.rpartition('/')[2]}#{run}", f"rest of spatial#{run}"):
                direction = 1.0 if concept == CONCEPTS[0] else -1.0
                noise = 0.01 if negatives.startswith("random/") else 50.0
                rows.append(
                    {
                        "layer": layer, "concept": concept, "negatives": negatives,
                        "is_null": concept.startswith("random/"), "seed": run, "solver": "logistic",
                        "held_out_accuracy": 0.75, "model": factory.MODEL,
                        "vector": (direction * np.eye(D)[0] + noise * rng.normal(size=D)).astype(np.float32),
                    }
                )  # fmt: skip
    return rows


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with complete stages clips, cavs and scores, tracks with a failure, and activations not reached."""
    folder = Folder(str(tmp_path / "run"))
    clips = [clip_row("concept", c, k, f"v{k // 2}") for c in CONCEPTS for k in range(6)]
    clips += [clip_row("class", "lift/full", k, f"w{k}") for k in range(3)]
    clips += [clip_row("random", "random/spatial", k, f"r{k}") for k in range(3)]
    outputs = {
        "tracks": ShardOutput({}, [Failure(uri="x.mp4", video_id="x", error_kind="empty", message="No bytes.")]),
        "clips": ShardOutput({"clips": pa.Table.from_pylist(clips, schema=tables.CLIPS)}, metrics={"cut_seconds": 2.5}),
        "cavs": ShardOutput(
            {
                f"cavs/layer={layer}": pa.Table.from_pylist(cav_rows(layer), schema=tables.cavs(D))
                for layer in ("early", "late")
            }
            | {
                f"entanglement/layer={layer}": pa.Table.from_pylist(
                    [
                        {"layer": layer, "concept": a, "other": b, "cosine": 1.0 if a == b else cosine}
                        for a in CONCEPTS
                        for b in CONCEPTS
                    ],
                    schema=tables.ENTANGLEMENT,
                )
                for layer, cosine in (("late", -0.5), ("early", 0.25))
            }
        ),
        "scores": ShardOutput(
            {"scores": table([cell(concept=c, layer=x) for c in CONCEPTS for x in ("late", "early")])}
        ),
    }
    for name, output in outputs.items():
        stage = stage_folder(folder, name, f"key-{name}")
        stage.commit("00000", output)
        warnings = ["Only 6 of 30 clips."] if name == "clips" else []
        stage.finish({"stage": name}, {"warnings": warnings, "notes": {}, "seconds": 4.0, "versions": {}})
    folder.write_json(
        "run.json",
        {
            "config": {
                "name": "small", "videos": {"uri": "videos"}, "activations": {"layers": ["early", "late"]},
                "cavs": {"random_sets": 4}, "scores": {"alpha": 0.1, "correction": "bh"},
            },
            "keys": {**{name: f"key-{name}" for name in outputs}, "report": "not-there-yet"},
            "status": "running: report", "warnings": ["Only 6 of 30 clips."], "versions": {"torch": "2.13"},
            "updated": 1_790_000_000.0,
        },
    )  # fmt: skip
    return Run(folder.url)


def test_everything_is_read(run: Run) -> None:
    data = ReportData.from_run(run)
    assert (data.title, data.alpha, data.correction, data.random_sets) == ("small", 0.1, "bh", 4)
    assert data.layers == ["early", "late"]  # the config's order
    assert data.warnings == ["Only 6 of 30 clips."]  # once, although the record and the manifest both have it
    assert [(s.name, s.seconds) for s in data.stages] == [(n, 4.0) for n in ("tracks", "clips", "cavs", "scores")]
    assert data.stages[1].rows == {"clips": 18}
    assert data.stages[1].metrics == {"cut_seconds": 2.5}
    assert data.failures["message"].to_pylist() == ["No bytes."]
    assert data.class_clips == {"lift": 3}
    assert not data.untrained
    for concept in CONCEPTS:
        facts = data.concepts[concept]
        assert (facts.clips, facts.videos) == (6, 3)
        assert [p.video_id for p in facts.previews] == ["v0", "v1", "v2", "v0"]  # different videos first
    assert set(data.concepts) == set(CONCEPTS)


def test_the_clips_of_a_concept_are_counted_by_label_object_and_source(run: Run) -> None:
    parts = ReportData.from_run(run).concepts[CONCEPTS[0]].parts
    assert set(parts) == {"label", "object", "source video"}
    assert list(parts["source video"]) == [("v0", 2), ("v1", 2), ("v2", 2)]
    for counts in parts.values():
        assert sum(n for _, n in counts) == 6


@pytest.mark.slow
def test_class_examples_have_previews(run: Run) -> None:
    examples = ReportData.from_run(run).examples
    assert sum(len(of) for of in examples.previews.values()) + examples.left_out == 3
    assert set(examples.previews) == {"lift"}
    assert examples.note == ""


@pytest.mark.slow
def test_previews_show_the_stored_frames(run: Run) -> None:
    still, moving = (ReportData.from_run(run).concepts[c].previews[0] for c in CONCEPTS)
    assert (still.frames, moving.frames) == (1, 16)
    with Image.open(io.BytesIO(moving.image)) as image:
        assert image.format == "WEBP"
        assert image.n_frames == 16
        image.seek(15)
        shown = np.asarray(image.convert("RGB")).astype(int)
    expected = clip(CONCEPTS[1], seed=0)[15].astype(int)
    assert np.abs(shown - expected).mean() < 12  # lossy, but the right frame
    assert np.abs(shown - clip(CONCEPTS[1], seed=0)[0].astype(int)).mean() > 12


@pytest.mark.slow
def test_entanglement_is_that_of_the_table_in_the_layers_order(run: Run) -> None:
    found = ReportData.from_run(run).entanglement
    assert [one.layer for one in found] == ["early", "late"]
    for one, cosine in zip(found, (0.25, -0.5), strict=True):
        assert list(one.concepts) == sorted(CONCEPTS)
        np.testing.assert_allclose(one.cosine, [[1, cosine], [cosine, 1]])


def test_no_entanglement_is_none() -> None:
    assert read_entanglement(None, ["late"]) == []
    assert read_entanglement(tables.ENTANGLEMENT.empty_table(), ["late"]) == []


@pytest.mark.slow
def test_the_page_of_a_run_is_built(run: Run) -> None:
    html = build_report(ReportData.from_run(run))
    assert "data:image/webp;base64," in html
    assert "Benjamini" in html


def test_a_run_without_scores_is_refused(run: Run) -> None:
    record = run.folder.read_json("run.json")
    del record["keys"]["scores"]
    run.folder.write_json("run.json", record)
    with pytest.raises(ConfigError, match="scores"):
        ReportData.from_run(Run(run.url))


def test_previews_are_shrunk_and_never_enlarged() -> None:
    large = make_preview("c", "v", np.random.default_rng(0).integers(0, 255, (40, 100, 300, 3)).astype(np.uint8))
    assert (large.width, large.frames) == (MAX_SIDE, MAX_FRAMES)
    assert large.height == round(100 * MAX_SIDE / 300)
    small = make_preview("c", "v", np.zeros((3, 8, 10, 3), np.uint8))
    assert (small.width, small.height, small.frames) == (10, 8, 1)


def stage_of(outputs: dict[str, pa.Table], name: str, inputs: tuple[str, ...]) -> Stage:
    """Make a stage with these tables as its output and a key that depends on the significance level."""

    def prepare(context: Context) -> Work:
        return Work([Shard("00000", pa.table({"shard": [0]}))], lambda: lambda rows: ShardOutput(outputs))

    return Stage(facts(name, inputs), 1, lambda context: {"alpha": context.config.scores.alpha}, prepare)


@pytest.fixture
def config_at(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A pipeline of finished clips, CAVs and scores, and the real report; returns a config at a significance level."""
    tables_of = {
        name: {
            path.rsplit("/", 1)[0]: run.stage(name).read_file(path)
            for files in run.manifest(name)["shards"].values()
            for path in files
        }
        for name in ("clips", "cavs", "scores")
    }
    before: tuple[str, ...] = ()
    stages = []
    for name, outputs in tables_of.items():
        stages.append(stage_of(outputs, name, before))
        before = (*before, name)
    monkeypatch.setattr(pipeline, "STAGES", (*stages, dataclasses.replace(REPORT, facts=facts("report", before))))
    given = {**run.record["config"], "out": str(tmp_path / "several")}
    return lambda alpha: parse_config({**given, "scores": {"alpha": alpha}})


@pytest.mark.slow
def test_the_page_at_the_top_is_always_the_newest_runs(config_at) -> None:
    """This holds also if that run's report already existed, because `Report:` names this page."""
    first = pipeline.run(config_at(0.1))
    page = Path(first.report_url).read_bytes()
    assert b"running: report" not in page
    second = pipeline.run(config_at(0.2))
    assert second.report_url == first.report_url
    assert Path(first.report_url).read_bytes() != page
    again = pipeline.run(config_at(0.1))
    assert again.keys == first.keys
    assert Path(again.report_url).read_bytes() == page
    # In a folder of an earlier version, or one that lost the page, the page is written again without running a stage.
    (Path(again.stage("report").folder.url) / "report.html").unlink()
    Path(again.report_url).unlink()
    pipeline.run(config_at(0.1))
    assert again.keys["scores"].encode() in Path(again.report_url).read_bytes()
