"""Effects within labels: the decomposition, the test, and what it is for."""

from __future__ import annotations

import itertools

import numpy as np
import plain_statistics as plain
import pytest

from vtcav_ray.tcav import concept_effect, concept_effects, effect_family
from vtcav_ray.tcav.strata import Strata

LABELS_CONCEPT = ["tennis"] * 3 + ["golf"] * 2
LABELS_RANDOM = ["tennis"] * 2 + ["golf"] * 2 + ["chess"]


def labels_of(counts: tuple[int, ...]) -> list[str]:
    return list(itertools.chain.from_iterable([f"label {number}"] * count for number, count in enumerate(counts)))


def binomial_bound(trials: int, rate: float) -> float:
    return rate + 3.8 * float(np.sqrt(rate * (1 - rate) / trials))


def sample(seed: int, n: int = 5, m: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 3)) + 1, rng.normal(size=(n, 3)), rng.normal(size=(m, 3))


def test_the_effect_is_its_two_parts() -> None:
    gradients, concept, random = sample(0)
    got = concept_effect(gradients, concept, random, strata=LABELS_CONCEPT + LABELS_RANDOM, bootstrap=2)
    x, y = concept @ gradients.mean(0), random @ gradients.mean(0)
    means = {"tennis": (x[:3].mean(), y[:2].mean()), "golf": (x[3:].mean(), y[2:4].mean()), "chess": (0, y[4])}
    shares = {"tennis": (0.6, 0.4), "golf": (0.4, 0.4), "chess": (0.0, 0.2)}
    within = sum(shares[label][0] * (means[label][0] - means[label][1]) for label in ("tennis", "golf"))
    between = sum((shares[label][0] - shares[label][1]) * means[label][1] for label in means)
    assert got.effect_within == pytest.approx(within)
    assert got.effect == pytest.approx(within + between)
    assert got.no_contrast == ()  # chess has no concept videos: there is nothing to tell apart


@pytest.mark.parametrize("seed", range(5))
def test_p_within_is_exact(seed: int) -> None:
    gradients, concept, random = sample(seed)
    got = concept_effect(gradients, concept, random, strata=LABELS_CONCEPT + LABELS_RANDOM, bootstrap=2)
    x, y = (concept @ gradients.mean(0)).tolist(), (random @ gradients.mean(0)).tolist()
    every = plain.every_within([(x[3:], y[2:4]), (x[:3], y[:2])])
    assert len(every) == 60
    assert got.p_within == pytest.approx(plain.tail_p(every, 0, "equal"))


def test_labels_with_one_video_on_each_side_use_the_spread_of_all() -> None:
    x, y = [1.0, 2.5, 4.0, 9.0], [0.5, 1.5, 3.0, 7.0]
    labels = ["a", "a", "a", "b"]
    got = concept_effect(np.ones((2, 1)), np.array(x)[:, None], np.array(y)[:, None], strata=labels * 2, bootstrap=2)
    every = []
    for left, right in plain.arrangements(3, 3):
        for sign in (1, -1):
            both = np.array(x[:3] + y[:3])
            a, b = both[left], both[right]
            pooled = (a.var() * 3 + b.var() * 3) / 4
            gap = 0.75 * (a.mean() - b.mean()) + 0.25 * sign * 2.0
            every.append(gap / np.sqrt(pooled * (0.75**2 * 2 / 3 + 0.25**2 * 2)))
    assert got.p_within == pytest.approx(plain.tail_p(every, 0, "equal"))
    lone = concept_effect(np.ones((2, 1)), np.array(x)[:, None], np.array(y)[:, None], strata=list("abcd") * 2)
    assert lone.p_within == pytest.approx(2 / 16)  # all four differences have one sign
    assert lone.effect_within == pytest.approx(1.125)


@pytest.mark.parametrize(("n", "m", "permutations"), [(5, 6, 1000), (20, 30, 500), (15, 15, 500)])
def test_a_single_label_is_the_plain_test(n: int, m: int, permutations: int) -> None:
    gradients, concept, random = sample(1, n, m)
    got = concept_effect(
        gradients, concept, random, strata=["same"] * (n + m), tails="equal", permutations=permutations, bootstrap=2
    )
    assert got.effect_within == pytest.approx(got.effect)
    assert got.p_within == got.p
    assert abs(got.between_share) < 1e-9 or np.isnan(got.between_share)
    family = effect_family(
        concept @ gradients.mean(0)[:, None], random @ gradients.mean(0)[:, None], strata=["same"] * (n + m)
    )
    assert family.p_within == family.p


def test_a_label_without_random_videos_is_named() -> None:
    gradients, concept, random = sample(2)
    got = concept_effect(
        gradients, concept, random, strata=["tennis"] * 3 + ["golf"] * 2 + ["golf"] * 3 + ["chess"] * 2, bootstrap=2
    )
    x, y = concept @ gradients.mean(0), random @ gradients.mean(0)
    assert got.no_contrast == ("tennis",)
    assert got.effect_within == pytest.approx(x[3:].mean() - y[:3].mean())
    assert got.p_within == pytest.approx(plain.tail_p(plain.every_welch([*x[3:], *y[:3]], 2), 0, "equal"))
    none = concept_effect(gradients, concept, random, strata=["tennis"] * 5 + ["golf"] * 5, bootstrap=2)
    assert none.no_contrast == ("tennis",)
    assert np.isnan([none.effect_within, none.p_within, none.between_share]).all()
    assert none.p > 0
    family = effect_family(concept, random, strata=["tennis"] * 5 + ["golf"] * 5)
    assert family.no_contrast == ("tennis",)
    assert np.isnan([family.effect_within, family.p_within, family.p_within_adjusted, family.between_share]).all()


@pytest.mark.slow
def test_the_share_of_an_effect_of_about_nothing_is_not_given() -> None:
    labels = labels_of((8, 2)) + labels_of((5, 5))
    rng = np.random.default_rng(3)
    noise = rng.normal(size=20)
    level = np.array([0 if label == "label 0" else -5 for label in labels])
    shift = np.repeat([1.0, 0.0], 10)
    got = effect_family(*np.split(np.stack((level + 0.1 * noise, shift + 0.1 * noise, noise), 1), 2), strata=labels)
    assert got.between_share[0] == pytest.approx(1, abs=0.1)
    assert got.between_share[1] == pytest.approx(0, abs=0.1)
    assert np.abs(got.effect[2]) < got.null_unit[2]
    assert np.isnan(got.between_share[2])


def test_a_cell_without_spread_within_labels_has_no_p_within() -> None:
    level = np.array([0.0, 0, 0, 1, 1, 0, 0, 1, 1, 1])[:, None]
    labels = ["a" if value == 0 else "b" for value in level[:, 0]]
    got = concept_effect(np.ones((2, 1)), level[:5], level[5:], strata=labels, bootstrap=2)
    assert got.p > 0
    assert np.isnan(got.p_within)
    assert got.effect_within == pytest.approx(0)
    assert np.isnan(effect_family(level[:5], level[5:], strata=labels).p_within[0])


def simulated(composition: tuple[int, ...], shift: float, simulations: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of simulations in which the plain and the within test reject at 5 %.

    Labels differ by several spreads, as classes do. `shift` is in standard errors of the difference within labels.
    """
    rng = np.random.default_rng(4)
    label_C, label_R = np.repeat(np.arange(4), composition), np.repeat(np.arange(4), 5)
    level = np.array([6.0, 0.0, -3.0, -3.0])
    concept = rng.normal(size=(20, simulations)) + level[label_C][:, None]
    random = rng.normal(size=(20, simulations)) + level[label_R][:, None]
    weights = np.array(composition) / 20
    error = np.sqrt((weights**2 * (1 / np.array(composition) + 1 / 5)).sum())
    strata = [str(label) for label in (*label_C, *label_R)]
    got = effect_family(concept + shift * error, random, strata=strata, permutations=999)
    return got.p <= 0.05, got.p_within <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("composition", [(16, 2, 1, 1), (5, 5, 5, 5)])
def test_within_holds_its_level_where_the_plain_test_answers_another_question(composition: tuple[int, ...]) -> None:
    plain_rejects, within_rejects = simulated(composition, shift=0.0)
    assert 0.03 < within_rejects.mean() <= binomial_bound(len(within_rejects), 0.05)
    if composition[0] == 16:
        assert plain_rejects.mean() > 0.9  # only because the concept has more videos of a label
    else:
        assert plain_rejects.mean() < 0.005  # the spread between labels drowns everything


@pytest.mark.slow
@pytest.mark.parametrize("composition", [(16, 2, 1, 1), (5, 5, 5, 5)])
def test_within_finds_a_shift_within_labels(composition: tuple[int, ...]) -> None:
    plain_rejects, within_rejects = simulated(composition, shift=3.0)
    assert within_rejects.mean() > 0.75
    if composition[0] == 5:
        assert plain_rejects.mean() < 0.25


def test_rows_of_one_video_are_averaged_within_their_label() -> None:
    gradients, concept, random = sample(5, 6, 6)
    groups = ["a", "a", "b", "c", "d", "e", "r", "s", "s", "t", "u", "v"]
    strata = ["x", "x", "x", "x", "y", "y", "x", "x", "x", "y", "y", "y"]
    got = concept_effect(gradients, concept, random, groups=groups, strata=strata, bootstrap=2)
    averaged = np.stack((concept[:2].mean(0), *concept[2:])), np.stack((random[0], random[1:3].mean(0), *random[3:]))
    direct = concept_effect(
        gradients, *averaged, strata=["x", "x", "x", "y", "y", "x", "x", "y", "y", "y"], bootstrap=2
    )
    family = effect_family(
        concept @ gradients.mean(0)[:, None], random @ gradients.mean(0)[:, None], groups=groups, strata=strata
    )
    for name in ("effect", "effect_within", "p_within", "between_share"):
        assert getattr(got, name) == pytest.approx(getattr(direct, name), rel=1e-6, nan_ok=True)
        assert getattr(family, name)[0] == pytest.approx(getattr(direct, name), rel=1e-6, nan_ok=True)


def test_a_batch_with_strata_is_its_cells() -> None:
    rng = np.random.default_rng(6)
    pool, labels = rng.normal(size=(60, 5)), rng.choice(list("abc"), 60)
    classes = [rng.normal(size=(4, 5)) for _ in range(3)]
    rows = [np.arange(12), np.arange(12, 20)], [np.arange(20, 45), np.arange(45, 60)]
    batch = concept_effects(classes, pool, *rows, permutations=500, bootstrap=2, strata=labels)
    for k in range(3):
        for j in range(2):
            a, b = rows[0][j], rows[1][j]
            strata = np.concatenate((labels[a], labels[b]))
            one = concept_effect(classes[k], pool[a], pool[b], permutations=500, bootstrap=2, strata=strata)
            cell = batch.cell(k, j)
            assert (cell.p, cell.p_within, cell.no_contrast) == (one.p, one.p_within, one.no_contrast)
            assert cell.effect_within == pytest.approx(one.effect_within)
            assert cell.between_share == pytest.approx(one.between_share, nan_ok=True)


def test_without_strata_nothing_is_split() -> None:
    got = concept_effect(*sample(7), bootstrap=2)
    assert np.isnan([got.effect_within, got.p_within, got.between_share]).all()
    assert got.no_contrast == ()


def test_counts_and_weights() -> None:
    split = Strata.of(["b", "a", "b", "z", "b"], ["a", "b", "c", "a"])
    assert (split.labels, split.counts, split.no_contrast) == (("a", "b"), ((1, 2), (3, 1)), ("z",))
    assert split.weights == pytest.approx([0.25, 0.75])
    assert split.order.tolist() == [1, 5, 8, 0, 2, 4, 6]


@pytest.mark.parametrize(
    ("strata", "groups", "what"),
    [
        (["a"] * 9, None, r"strata must give one label per row: shape \(10,\), not \(9,\); give the labels"),
        (["a"] * 9 + [None], None, "strata has no label for row 9: label the row, or leave it out"),
        ([1.0] * 4 + [np.nan] + [2.0] * 5, None, "strata has no label for row 4"),
        (
            ["a", "b"] * 5,
            [0, 0, *range(1, 9)],
            "two labels, 'a' and 'b', to rows 0 and 1 of one source video: give all",
        ),
    ],
)
def test_bad_strata(strata: list[object], groups: list[int] | None, what: str) -> None:
    gradients, concept, random = sample(8)
    with pytest.raises(ValueError, match=what):
        concept_effect(gradients, concept, random, strata=strata, groups=groups)
    with pytest.raises(ValueError, match=what):
        effect_family(concept, random, strata=strata, groups=groups)
