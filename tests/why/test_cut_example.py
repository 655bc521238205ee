"""A new video is cut like a class example, within the run's limits, from where its URL may lead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.answering import Answering, body
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import Video
from vtcav_ray.video.sample import spread_clips
from vtcav_ray.why.subjects import cut_example
from vtcav_ray.world import write_world


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world")
    write_world(str(world), videos=8, seed=3)
    return min(world.rglob("*.mp4"))


@pytest.fixture
def server(video: Path) -> Iterator[Answering]:
    with Answering() as served:
        served.answers["/a.mp4"] = body(video.read_bytes())
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


def config(**changes: object) -> Config:
    return parse_config({"videos": {"uri": "none"}, "model": {"checkpoint": "untrained"}, **changes})


@pytest.mark.slow
def test_the_clips_are_those_that_a_class_example_has(video: Path) -> None:
    settings = config(clips={"frames": 8, "interval": 2, "class_views": 3})
    clips = cut_example(settings, str(video), named=True)
    with Video(str(video)) as opened:
        frames = [frame for _, frame in opened.frames()]
    wanted = spread_clips(len(frames), 8, 2, 3)
    assert len(clips) == 3
    for clip, rows in zip(clips, wanted, strict=True):
        np.testing.assert_array_equal(clip, np.stack([frames[row] for row in rows]))


def test_a_limit_of_the_run_refuses_a_video(video: Path) -> None:
    with pytest.raises(InputError, match="pixels") as error:
        cut_example(config(tracks={"max_pixels": 100}), str(video), named=True)
    assert error.value.kind == "too_large"


def test_only_a_url_that_the_user_names_may_lead_to_a_private_address(server: Answering, video: Path) -> None:
    url = server.url("/a.mp4")
    with pytest.raises(InputError, match="private network") as error:
        cut_example(config(), url, named=False)
    assert error.value.kind == "refused"
    assert server.asked == []
    (clip,) = cut_example(config(), url, named=True)
    np.testing.assert_array_equal(clip, cut_example(config(), str(video), named=True)[0])


def test_a_redirect_of_a_named_url_may_not_lead_to_another_private_address(server: Answering) -> None:
    with Answering() as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        server.answers["/a.mp4"] = body(b"", 302, Location=other.url("/secret"))
        with pytest.raises(InputError) as error:
            cut_example(config(), server.url("/a.mp4"), named=True)
        other.shutdown()
        assert error.value.kind == "refused"
        assert other.asked == []
