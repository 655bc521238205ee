"""The reference set: which videos it has, and what the stage differentiates there."""

from __future__ import annotations

from collections import Counter

import pytest

from vtcav_ray.activations.reference import reference_videos


def examples(**sizes: int) -> dict[str, str]:
    return {f"{name}-{i}": name for name, size in sizes.items() for i in range(size)}


def per_class(class_of: dict[str, str], size: int, seed: int = 0) -> Counter[str]:
    return Counter(class_of[video] for video in reference_videos(class_of, size, seed))


def test_every_class_has_the_same_number_of_videos() -> None:
    assert per_class(examples(a=10, b=40, c=20), 12) == {"a": 4, "b": 4, "c": 4}


def test_a_remainder_is_spread_over_different_classes() -> None:
    assert sorted(per_class(examples(a=10, b=10, c=10), 11).values()) == [3, 4, 4]


def test_a_class_with_few_videos_gives_them_all_and_others_fill_up() -> None:
    assert per_class(examples(a=2, b=10, c=10), 12) == {"a": 2, "b": 5, "c": 5}


def test_with_more_classes_than_videos_each_has_one_at_most() -> None:
    counts = per_class({f"{k}-{i}": str(k) for k in range(400) for i in range(5)}, 50)
    assert len(counts) == 50
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_the_size_is_the_asked_one_or_all(size: int) -> None:
    class_of = examples(a=5, b=15)
    assert len(reference_videos(class_of, size, 0)) == min(size, len(class_of))


def test_it_depends_on_the_seed_and_not_on_the_order() -> None:
    class_of = examples(a=30, b=30)
    turned = dict(reversed(class_of.items()))
    assert reference_videos(class_of, 10, 3) == reference_videos(turned, 10, 3)
    assert reference_videos(class_of, 10, 3) != reference_videos(class_of, 10, 4)


def test_more_videos_change_few_places() -> None:
    before = reference_videos(examples(a=50, b=50), 20, 0)
    after = reference_videos(examples(a=55, b=55), 20, 0)
    assert len(before & after) >= 16
