"""Averages by source video: the same bits as a sum row by row, for any number of rows per video."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtcav_ray.tcav.arrays import MOST_TURNS, video_means


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=200),
    st.integers(1, 5),
    st.sampled_from(["float16", "float32", "float64", "int64"]),
    st.integers(0, 10**6),
)
def test_the_means_have_the_bits_of_a_sum_row_by_row(videos: list[int], d: int, dtype: str, seed: int) -> None:
    rows = (np.random.default_rng(seed).standard_normal((len(videos), d)) * 1000).astype(dtype)
    found = video_means(rows, [f"v{v:02d}" for v in videos])
    for mean, video in zip(found, sorted(set(videos)), strict=True):
        total = np.zeros(d)
        for row, of in zip(rows, videos, strict=True):
            if of == video:
                total = total + row
        assert np.array_equal(mean, total / videos.count(video))


@pytest.mark.parametrize("most", [MOST_TURNS, MOST_TURNS + 1])
def test_a_video_with_many_rows_counts_once(most: int) -> None:
    rows = np.vstack([np.ones((most, 3)), np.full((1, 3), 5.0)])
    assert video_means(rows, ["a"] * most + ["b"]).tolist() == [[1.0] * 3, [5.0] * 3]
