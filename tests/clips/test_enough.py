"""The rule of `videos.enough`: which videos come next, and when every set is full."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtcav_ray.clips.enough import (
    CLASS,
    CONCEPT,
    MOST,
    RANDOM,
    Asked,
    Look,
    Order,
    SetCount,
    all_full,
    count_sets,
    in_turns,
    is_clumped,
    needs,
    reserved,
    richer_labels,
    with_margin,
)

corpora = st.dictionaries(st.integers(0, 500).map(lambda i: f"v{i}"), st.sampled_from(["", "a", "b", "c"]), min_size=1)
wishes = st.lists(
    st.dictionaries(st.sampled_from(["", "a", "b", "c", "not there"]), st.none() | st.integers(0, 20)), max_size=4
)


@pytest.mark.slow
@given(
    corpora, st.lists(st.tuples(st.integers(1, 60), wishes, st.booleans()), min_size=1, max_size=8), st.integers(0, 9)
)
def test_every_video_is_drawn_once_and_rounds_are_whole(labels: dict[str, str], rounds: list, seed: int) -> None:
    order, drawn = Order.of(labels, seed), list[str]()
    for size, wanted, explore in rounds:
        left = len(order)
        found = order.draw_round(size, wanted, explore=explore)
        assert len(found) == min(size, left)
        assert len(order) == left - len(found)
        drawn += [one.video_id for one in found]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(labels)
    assert order.taken == Counter(labels[video] for video in drawn)
    assert order.counts_left() == {label: n - order.taken[label] for label, n in Counter(labels.values()).items()}


@pytest.mark.slow
@given(corpora, st.integers(1, 100), st.integers(0, 9))
def test_labels_take_turns(labels: dict[str, str], size: int, seed: int) -> None:
    order = Order.of(labels, seed)
    taken = Counter(labels[one.video_id] for one in order.draw_round(size))
    left = order.counts_left()
    for label, n in left.items():
        assert n == 0 or taken[label] >= max(taken.values()) - 1


@pytest.mark.slow
@given(corpora, st.integers(1, 40), st.integers(0, 9), st.randoms())
def test_the_order_of_the_list_plays_no_part(labels: dict[str, str], size: int, seed: int, chance: object) -> None:
    shuffled = list(labels.items())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Order.of(labels, seed), Order.of(dict(shuffled), seed)
    for _ in range(3):
        assert one.draw_round(size, [{"a": None}]) == other.draw_round(size, [{"a": None}])


def test_another_seed_gives_another_order() -> None:
    labels = {f"v{i}": "a" for i in range(50)}
    assert Order.of(labels, 0).draw_round(10) != Order.of(labels, 1).draw_round(10)


def test_half_of_a_round_goes_to_the_labels_of_unfilled_sets() -> None:
    labels = {f"{label}{i}": label for label in "abcdefgh" for i in range(100)}
    drawn = Order.of(labels, 0).draw_round(64, [{"a": None, "b": None}])
    by_label = Counter(one.video_id[0] for one in drawn)
    assert sum(one.in_turn for one in drawn) == 32
    assert by_label["a"] == by_label["b"] == 4 + 16
    assert all(by_label[label] == 4 for label in "cdefgh")


def test_videos_drawn_for_a_set_are_no_turns() -> None:
    order = Order.of({f"{label}{i}": label for label in "abcd" for i in range(100)}, 0)
    in_turn = Counter(one.video_id[0] for _ in range(4) for one in order.draw_round(32, [{"a": None}]) if one.in_turn)
    assert in_turn == dict.fromkeys("abcd", 16)
    assert order.taken == {"a": 16 + 64, "b": 16, "c": 16, "d": 16}


def test_a_class_takes_no_more_than_it_lacks() -> None:
    labels = {f"{label}{i}": label for label in "ab" for i in range(100)}
    drawn = Order.of(labels, 0).draw_round(60, [{"a": 5}], explore=False)
    assert sum(not one.in_turn for one in drawn) == 5
    assert sum(one.in_turn for one in drawn) == 55  # the round is whole


def test_a_reserve_is_half_of_the_videos_whatever_they_show() -> None:
    assert 400 < sum(reserved(3, f"v{i}") for i in range(1000)) < 600
    assert reserved(3, "v1") == reserved(3, "v1")


def test_richer_labels_show_a_concept_more_often_than_the_corpus() -> None:
    looks = [Look("rich", frozenset({"cup"}))] * 5 + [Look("rich")] * 5
    looks += [Look("poor", frozenset({"cup"}))] + [Look("poor")] * 19 + [Look("none")] * 10
    looks += [Look("richest", frozenset({"cup"}))]
    assert richer_labels(looks, "cup") == ["richest", "rich"]
    assert richer_labels(looks, "ball") == []


ASKED = Asked({"lift": 2}, ("cup",), 20, per_concept=3, random=4)


def looks_of(cups: int, reserve: int, *, label: str = "lift") -> dict[str, Look]:
    found = {f"c{i}": Look(label, frozenset({"cup"}), True) for i in range(cups)}
    return found | {f"r{i}": Look(label, frozenset({"cup"}), True, reserved=True) for i in range(reserve)}


def test_sets_are_full_when_each_has_its_margin() -> None:
    looks = looks_of(cups=5, reserve=7)
    counts = count_sets(looks, {"lift": ["r0", "c4"]}, {"lift": 9}, ASKED)
    assert counts == [
        SetCount(CLASS, "lift", 2, 2, True),
        SetCount(CONCEPT, "cup", 4, 4, True),  # c4 is a class example, and the reserve is not for concepts
        SetCount(RANDOM, "", 5, 6, True),
    ]
    assert all_full(counts)
    assert needs(looks, counts, {"lift": 9}, 1) == []


@pytest.mark.parametrize(
    ("cups", "reserve", "examples", "unfilled"),
    [
        (4, 7, ["r0", "c3"], {CONCEPT}),
        (5, 5, ["r0", "c4"], {RANDOM}),
        (5, 7, ["c4"], {CLASS}),
        (3, 3, [], {CLASS, CONCEPT, RANDOM}),
    ],
)
def test_a_set_that_lacks_one_video_is_not_full(
    cups: int, reserve: int, examples: list[str], unfilled: set[str]
) -> None:
    counts = count_sets(looks_of(cups, reserve), {"lift": examples}, {"lift": 1}, ASKED)
    assert {count.kind for count in counts if not count.full} == unfilled


def test_a_class_whose_videos_are_all_known_needs_no_more() -> None:
    (lift, *_) = count_sets(looks_of(1, 1), {"lift": ["c0"]}, {"lift": 0, "other": 50}, ASKED)
    assert lift == SetCount(CLASS, "lift", 2, 1, True)


def test_proposed_concepts_fill_up_to_their_number() -> None:
    auto = Asked({}, None, 2, per_concept=3, random=4)
    looks = {f"c{i}": Look("", frozenset({"cup up"}), True) for i in range(9)}
    looks |= {f"r{i}": Look("", frozenset({"rare"}), True, reserved=True) for i in range(9)}
    one, other, _ = count_sets(looks, {}, {}, auto)
    assert (one.name, one.full) == ("cup up", True)
    assert (other.found, other.full) == (0, False)  # the reserve gives no concepts


def test_unusable_videos_fill_nothing() -> None:
    looks = {
        video: Look("lift", look.concepts, look.moving, look.reserved, usable=False)
        for video, look in looks_of(9, 9).items()
    }
    assert not any(count.full for count in count_sets(looks, {}, {"lift": 1}, ASKED))


@pytest.mark.slow
@given(
    st.dictionaries(
        st.integers(0, 300).map(lambda i: f"v{i}"),
        st.builds(
            Look, st.sampled_from("ab"), st.frozensets(st.sampled_from(["x", "y"])), st.booleans(), st.booleans()
        ),
        max_size=80,
    ),
    st.integers(1, 6),
    st.integers(1, 12),
    st.sets(st.sampled_from(["x", "y"])),
)
@settings(max_examples=200)
def test_more_videos_never_empty_a_set(looks: dict[str, Look], per_concept: int, random: int, shown: set[str]) -> None:
    asked, left = Asked({}, ("x", "y"), 2, per_concept, random, labels=3), {"a": 1, "b": 1, "c": 1}
    full = all_full(count_sets(looks, {}, left, asked))
    more = looks | {"new": Look("a", frozenset(shown), False, False)}
    assert not full or all_full(count_sets(more, {}, left, asked))


def test_the_margin_is_a_tenth_and_at_least_one() -> None:
    assert [with_margin(n) for n in (1, 10, 30, 300)] == [2, 11, 33, 330]


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9)), st.integers(1, 40))
def test_labels_give_clips_in_turn(by_label: dict[str, int], clips: int) -> None:
    left, taken = Counter(by_label), Counter[str]()
    while left.total() and taken.total() < clips:
        label = min((label for label in left if left[label]), key=lambda label: taken[label])
        left[label] -= 1
        taken[label] += 1
    assert sorted(n for n in in_turns(by_label, clips) if n) == sorted(taken.values())


def of_labels(counts: list[int]) -> dict[str, int]:
    return {f"l{i}": count for i, count in enumerate(counts)}


def test_chance_decides_what_is_clumped() -> None:
    asked = Asked({}, ("cup",), 1, per_concept=20, random=100, labels=20)
    assert not is_clumped(of_labels([1] * 20), asked)
    assert is_clumped({"l0": 20}, asked)
    # (1/20 + 1/100) * 19/20 = 0.057. The squared distances from 1/20 are 42/400 - 1/20 = 0.055, and 44/400 - 1/20.
    assert not is_clumped(of_labels([3, *[2] * 8, 1]), asked)
    assert is_clumped(of_labels([3, 3, *[2] * 6, 1, 1]), asked)
    assert not is_clumped({"": 20}, Asked({}, ("cup",), 1, 20, 100, labels=1))  # without labels nothing is


def test_two_sets_drawn_by_chance_are_as_far_apart_as_the_bound() -> None:
    rng, n, m, labels = np.random.default_rng(0), 20, 100, 20
    one, other = (rng.multinomial(k, np.full(labels, 1 / labels), 20_000) / k for k in (n, m))
    distance = np.square(one - other).sum(1)
    assert abs(distance.mean() / ((1 / n + 1 / m) * (1 - 1 / labels)) - 1) < 0.01


def counted(by_label: dict[str, int], left: dict[str, int]) -> SetCount:
    looks = {f"{label}{i}": Look(label, frozenset({"cup"}), True) for label, n in by_label.items() for i in range(n)}
    count, _ = count_sets(looks, {}, left, Asked({}, ("cup",), 1, per_concept=8, random=40, labels=8))
    return count


def test_a_concept_of_few_labels_needs_more_videos() -> None:
    left = dict.fromkeys("abcdefgh", 50)
    assert counted(dict.fromkeys("abcdefgh", 2), left).full
    assert not counted({"a": 9}, left).full
    assert not counted({"a": 9 * MOST - 1}, left).full
    assert counted({"a": 9 * MOST}, left).full  # no more than that: it may belong to one label
    assert counted({"a": 9}, left | {"a": 0}).full  # no label that shows it has videos left


def test_a_label_that_should_have_shown_a_concept_lacks_it() -> None:
    left, asked = {"a": 50, "b": 50}, Asked({}, ("cup",), 1, per_concept=8, random=40, labels=2)
    looks = {f"a{i}": Look("a", frozenset({"cup"} if i < 9 else ())) for i in range(40)}
    more = {f"b{i}": Look("b") for i in range(27)}  # 9 of 67 videos show it: of 22 others, 3 would
    counts = count_sets(looks | more, {}, left, asked)
    assert (counts[0].full, counts[0].possible) == (True, ())
    few = dict(list(more.items())[:10])
    counts = count_sets(looks | few, {}, left, asked)
    assert (counts[0].full, counts[0].possible) == (False, ("b",))
    shown = more | {"b0": Look("b", frozenset({"cup"}))}
    assert count_sets(looks | shown, {}, left, asked)[0].possible == ("b",)


def test_labels_that_gave_less_than_their_share_come_first() -> None:
    looks = {f"a{i}": Look("a", frozenset({"cup"})) for i in range(3)} | {"b0": Look("b", frozenset({"cup"}))}
    looks |= {f"{label}{i}": Look(label) for label in "abcd" for i in range(4, 8)}
    left = dict.fromkeys("abcd", 50)

    def wanted(labels: int) -> list[dict[str, int | None]]:
        counts = count_sets(looks, {}, left, Asked({}, ("cup",), 1, per_concept=7, random=1, labels=labels))
        return needs(looks, counts, left, labels)

    assert wanted(1) == [{"a": None}]  # the share is 8: `a` is the only label richer than the corpus
    looks |= {"b1": Look("b", frozenset({"cup"}))}
    assert wanted(1) == [{"a": None, "b": None}]
    assert wanted(3) == [{"b": None}]  # the share is 3, which `a` has given


def test_labels_that_a_clumped_concept_lacks_share_its_part_of_a_round() -> None:
    looks = {f"a{i}": Look("a", frozenset({"cup"})) for i in range(12)} | {"b0": Look("b", frozenset({"cup"}))}
    looks |= {f"{label}{i}": Look(label) for label in "bcd" for i in range(1, 8)}
    left = dict.fromkeys("abcd", 50)
    asked = Asked({}, ("cup",), 1, per_concept=8, random=40, labels=4)
    counts = count_sets(looks, {}, left, asked)
    assert counts[0].found > counts[0].wanted
    assert not counts[0].full
    # `b` shows it, and `c` and `d` may; `a` can give no further clip.
    assert needs(looks, counts, left, 4) == [{"b": None}, {"b": None, "c": None, "d": None}]
    left |= {"b": 0}
    assert needs(looks, count_sets(looks, {}, left, asked), left, 4) == [{"a": None}, {"c": None, "d": None}]
