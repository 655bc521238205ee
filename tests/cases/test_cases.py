"""The case studies: their configs, their arithmetic, and, where the clips are, a few clips through the whole case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools.cases import gestures, tennis
from tools.cases.merit import correlations, rank_correlation
from tools.cases.rivals import set_scores
from tools.cases.watermark import REGION, draw_mark, has_mark
from vtcav_ray import load_config
from vtcav_ray.video.decode import decode_frames
from vtcav_ray.video.mp4 import encode_mp4


def test_the_configs_take_their_folders_as_settings(tmp_path: Path) -> None:
    config = load_config(gestures.CONFIG, gestures.settings_of(tmp_path, 1))
    assert config.clips.given_urls == [(f"{tmp_path}/clips/held_out", "clips.concepts.from")]
    assert not config.clips.need_tracks
    config = load_config(tennis.CONFIG, tennis.settings_of(tmp_path, "cut", 1))
    assert [url for url, _ in config.clips.given_urls] == [
        f"{tmp_path}/{name}.csv" for name in ("mark", "no_mark", "drawn", "not_drawn")
    ]
    assert config.model.checkpoint == f"{tmp_path}/cut/recogniser.pth"


def test_rank_correlation_equals_scipy_with_ties() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, other = rng.integers(4, size=(3, 27)).astype(float), rng.normal(size=(3, 27))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(np.ones(5), np.arange(5.0)) == 0.0


def test_an_answer_that_ranks_as_the_truth_is_ahead() -> None:
    truth = np.linspace(0, 1, 27)
    noise = np.random.default_rng(1).normal(size=27)
    found = correlations({"effect": truth**3, "sign count": noise, "paper": np.ones(27)}, truth)
    assert found["effect"]["rho"] == pytest.approx(1.0)
    assert found["paper"]["rho"] == 0.0
    assert found["ahead of sign count"]["interval"][0] > 0


def test_set_scores_follow_the_direction_of_the_gradient() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors[:20, 0] += 4  # the concept
    up = np.tile(np.eye(8, dtype=np.float32)[0], (5, 1))
    concept, random = np.arange(20), np.arange(20, 60)
    assert set_scores(vectors, concept, random, up, 4).tolist() == [1.0] * 4
    assert set_scores(vectors, concept, random, -up, 4).tolist() == [0.0] * 4


def test_the_mark_is_drawn_where_it_is_looked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (rng.random((30, 120)) > 0.8).astype(np.float32) * 0.6
    court = np.repeat(rng.integers(40, 120, size=(1, 240, 426, 3), dtype=np.uint8), 52, axis=0)
    court = np.repeat(np.repeat(court[:, ::40, ::71], 40, axis=1), 71, axis=2)
    (tmp_path / "plain.mp4").write_bytes(encode_mp4(np.ascontiguousarray(court), 30))
    draw_mark(tmp_path / "plain.mp4", tmp_path / "drawn.mp4", shape)
    assert has_mark(tmp_path / "drawn.mp4", shape)
    assert not has_mark(tmp_path / "plain.mp4", shape)
    before, after = (decode_frames(str(tmp_path / n), [0])[0][0].astype(int) for n in ("plain.mp4", "drawn.mp4"))
    change = np.abs(after - before).mean(-1)
    outside = change.copy()
    outside[REGION] = 0
    assert change[REGION].mean() > 20 * outside.mean()


@pytest.mark.slow
def test_a_few_gestures_through_training_and_layout(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "real" / "utd_depth"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    videos = tmp_path / "videos"
    for label in ("circle_cw", "circle_ccw"):
        (videos / label).mkdir(parents=True)
        for path in sorted((source / label).glob("*_t1.mp4")):
            (videos / label / path.name).symlink_to(path)
    from tools import train_recogniser

    arguments = gestures.training_arguments(videos, tmp_path / "model", fold=0, epochs=1)
    assert train_recogniser.main([*arguments, "--threads", "1"]) == 0
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["trained_clips"] + report["held_out"]["clips"] == 16
    gestures.lay_out(tmp_path / "model", tmp_path / "clips")
    people = {side: {p.name[:2] for p in (tmp_path / "clips" / side).glob("*/*")} for side in ("trained", "held_out")}
    assert people["trained"].isdisjoint(people["held_out"])
    assert len(people["trained"] | people["held_out"]) == 8


@pytest.mark.slow
def test_the_mark_is_found_in_the_strokes_that_have_it(shared_data: Path) -> None:
    from tools.cases.watermark import MARKED, UNMARKED, mark_shape

    source = shared_data / "real" / "tennis7"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    clips = {label: sorted((source / label).glob("*.mp4"))[:8] for label in MARKED | UNMARKED}
    shape = mark_shape([path for label in sorted(MARKED) for path in clips[label]])
    assert all(has_mark(path, shape) for label in MARKED for path in clips[label])
    assert not any(has_mark(path, shape) for label in UNMARKED for path in clips[label])
