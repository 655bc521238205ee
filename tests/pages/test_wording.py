from __future__ import annotations

import math

import pytest

from vtcav_ray.pages import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.414, "+0.41"),
        (-0.7, "−0.70"),
        (0.0951, "+0.10"),
        (0.09, "+0.090"),
        (-0.0012, "−0.0012"),
        (0.00012, "+0.00012"),
        (0.0, "0.00"),
        (-1e-9, "−1.0e−9"),
        (1.26e-6, "+1.3e−6"),
        (9.97e-6, "+1.0e−5"),
        (-12345.6, "−12,346"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_signed(value: float, text: str) -> None:
    assert wording.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "< 0.001"), (0.003, "0.003"), (0.0999, "0.100"), (0.45, "0.45"), (math.nan, "–")]
)
def test_probability(value: float, text: str) -> None:
    assert wording.probability(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.42, "0.4 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_duration(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(12, "12 B"), (1_500, "1.5 kB"), (88_000_000, "88 MB"), (3e12, "3 TB")])
def test_size(number: float, text: str) -> None:
    assert wording.size(number) == text
