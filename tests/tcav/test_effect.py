import itertools

import numpy as np
import pytest

from vtcav_ray.tcav import concept_effect, concept_effects, paired_concept_effect, paired_concept_effects
from vtcav_ray.tcav import effect_arithmetic as cells
from vtcav_ray.tcav.effect_cells import NO_SPREAD, ONE_CLASS_VIDEO, ONE_SIDE_VIDEO
from vtcav_ray.tcav.null_histograms import EFFECT_BINS, EFFECT_REACH
from vtcav_ray.tcav.scores import ZERO_GRADIENTS

FIELDS = ("effect", "null_sd", "z", "p", "ci_low", "ci_high")


def sample(seed, n=8, m=9, d=6, classes=10):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(classes, d)) + 1.0, rng.normal(size=(n, d)) + 3.0, rng.normal(size=(m, d)) + 3.0


def welch(left, right):
    n, m = len(left), len(right)
    return (left.mean() - right.mean()) ** 2 / (left.var(ddof=1) / n + right.var(ddof=1) / m)


def test_effect_and_null_sd_by_hand():
    gradients, concept, random = sample(0)
    got = concept_effect(gradients, concept, random, permutations=100)
    mean = gradients.mean(0)
    assert got.effect == pytest.approx(mean @ (concept.mean(0) - random.mean(0)), rel=1e-9)
    assert got.null_sd == pytest.approx((random @ mean).std(ddof=1) * np.sqrt(1 / 8 + 1 / 9), rel=1e-9)
    assert got.z == pytest.approx(got.effect / got.null_sd)
    assert got.ci_low < got.effect < got.ci_high
    assert (got.n_concept, got.n_random, got.reason) == (8, 9, "")


def test_p_is_exact_where_all_arrangements_are_gone_through():
    gradients, concept, random = sample(1, n=4, m=5)
    got = concept_effect(gradients, concept + 0.7, random, permutations=200, tails="symmetric")
    s = np.concatenate((concept + 0.7, random)) @ gradients.mean(0)
    observed = welch(s[:4], s[4:])
    every = [welch(s[list(chosen)], np.delete(s, list(chosen))) for chosen in itertools.combinations(range(9), 4)]
    assert len(every) == 126
    assert got.p == pytest.approx(np.mean(np.array(every) >= observed - 1e-9))


def test_drawn_arrangements_approach_the_exact_p():
    gradients, concept, random = sample(2, n=6, m=6)
    exact = concept_effect(gradients, concept + 0.4, random, permutations=1000).p  # all 924 arrangements
    drawn = concept_effect(gradients, concept + 0.4, random, permutations=900)
    assert drawn.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 900))
    assert drawn.p != exact


def test_a_large_effect_has_the_smallest_p_and_a_known_sign():
    gradients, concept, random = sample(3, n=30, m=30)
    up = concept_effect(gradients, concept + 5, random, permutations=999)
    assert up.p == pytest.approx(2 / 1000)  # twice the smaller tail
    assert up.effect > 0
    assert up.ci_low > 0
    down = concept_effect(gradients, concept - 5, random, permutations=999)
    assert down.effect < 0
    assert down.ci_high < 0


@pytest.mark.slow
def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(0)
    values = [
        concept_effect(
            rng.normal(size=(5, 4)) + 1,
            rng.gamma(1.0, size=(7, 4)),
            rng.gamma(1.0, size=(12, 4)),
            permutations=99,
            bootstrap=2,
            seed=seed,
        ).p
        for seed in range(150)
    ]
    assert np.mean(np.array(values) <= 0.05) < 0.1
    assert np.mean(values) == pytest.approx(0.5, abs=0.07)


def test_rows_of_one_video_are_averaged_and_move_together():
    gradients, concept, random = sample(4, n=9, m=8)
    groups = np.array(["a", "a", "a", "b", "c", "d", "e", "f", "f"] + ["r"] * 4 + ["s", "t", "u", "v"])
    got = concept_effect(gradients, concept, random, groups=groups)
    averaged_concept = np.stack([concept[:3].mean(0), *concept[3:7], concept[7:].mean(0)])
    averaged_random = np.stack([random[:4].mean(0), *random[4:]])
    direct = concept_effect(gradients, averaged_concept, averaged_random)
    for name in FIELDS:
        assert getattr(got, name) == pytest.approx(getattr(direct, name), rel=1e-6)
    assert (got.n_concept, got.n_random) == (6, 5)


def test_class_videos_count_once():
    gradients, concept, random = sample(5)
    labels = [0] * 7 + [1, 2, 3]
    averaged = np.concatenate((gradients[:7].mean(0, keepdims=True), gradients[7:]))
    got = concept_effect(gradients, concept, random, class_groups=labels)
    direct = concept_effect(averaged, concept, random)
    assert got.effect == pytest.approx(direct.effect)
    assert got.ci_low == pytest.approx(direct.ci_low)


def test_the_interval_widens_with_what_each_level_leaves_unknown():
    gradients, concept, random = sample(6, n=20, m=20, classes=20)
    steady = np.repeat(gradients.mean(0, keepdims=True), 20, axis=0)
    without = concept_effect(steady, concept, random)
    with_class = concept_effect(gradients.mean(0) + 3 * (gradients - gradients.mean(0)), concept, random)
    assert with_class.effect == pytest.approx(without.effect, abs=1e-9)
    assert with_class.ci_high - with_class.ci_low > without.ci_high - without.ci_low
    s = np.concatenate((concept, random)) @ steady[0]
    error = np.sqrt(s[:20].var(ddof=1) / 20 + s[20:].var(ddof=1) / 20)
    assert without.ci_high - without.ci_low == pytest.approx(2 * 2.03 * error, rel=0.08)  # t with about 37 degrees


def test_paired_by_hand_and_exact():
    gradients, concept, _ = sample(7, n=7)
    twin = concept - 0.3 + np.random.default_rng(1).normal(size=concept.shape) * 0.4
    got = paired_concept_effect(gradients, concept, twin)
    differences = (concept - twin) @ gradients.mean(0)
    assert got.effect == pytest.approx(differences.mean())
    assert got.null_sd == pytest.approx(differences.std(ddof=1) / np.sqrt(7))
    every = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=7)]
    assert got.p == pytest.approx(np.mean(np.array(every) >= abs(differences.sum()) - 1e-9))
    assert got.ci_low < got.effect < got.ci_high


def test_pairs_of_one_video_flip_together():
    gradients, concept, _ = sample(8, n=6)
    twin = concept + np.random.default_rng(2).normal(size=concept.shape)
    got = paired_concept_effect(gradients, concept, twin, groups=[0, 0, 1, 2, 2, 3])
    left, right = (np.stack([x[:2].mean(0), x[2], x[3:5].mean(0), x[5]]) for x in (concept, twin))
    direct = paired_concept_effect(gradients, left, right)
    for name in FIELDS:
        assert getattr(got, name) == pytest.approx(getattr(direct, name), rel=1e-6)
    assert got.p >= 2 / 16


def test_pairs_find_what_unpaired_clips_can_not():
    rng = np.random.default_rng(3)
    gradients = np.ones((5, 3))
    concept = rng.normal(size=(20, 3)) * 10
    twin = concept - 0.2 + rng.normal(size=(20, 3)) * 0.1
    assert paired_concept_effect(gradients, concept, twin).p < 0.001
    assert concept_effect(gradients, concept, twin).p > 0.5


@pytest.mark.parametrize("block", [300, 1 << 26])
def test_a_batch_is_its_cells(monkeypatch, block):
    monkeypatch.setattr(cells, "_BLOCK_INNER", block)
    monkeypatch.setattr(cells, "_BLOCK_NUMBERS", max(block // 10, 5))
    rng = np.random.default_rng(4)
    pool = rng.normal(size=(60, 7)) + 10
    classes = [rng.normal(size=(v, 7)) + 0.5 for v in (5, 9, 5, 2)]
    groups = np.arange(60) // 2
    concepts, randoms = [np.arange(0, 12), np.arange(4, 10)], [np.arange(20, 40), np.arange(40, 60)]
    batch = concept_effects(classes, pool, concepts, randoms, groups=groups, permutations=50, bootstrap=50)
    for k, own in enumerate(classes):
        for j in range(2):
            rows = np.concatenate((concepts[j], randoms[j]))
            one = concept_effect(
                own, pool[concepts[j]], pool[randoms[j]], groups=groups[rows], permutations=50, bootstrap=50
            )
            for name in FIELDS:
                assert getattr(batch.cell(k, j), name) == pytest.approx(getattr(one, name), rel=1e-4), name


def test_a_paired_batch_is_its_cells():
    rng = np.random.default_rng(5)
    pool = rng.normal(size=(40, 7))
    classes = [rng.normal(size=(v, 7)) for v in (4, 6)]
    concepts, twins = np.arange(10)[None], np.arange(10, 20)[None]
    batch = paired_concept_effects(classes, pool, concepts, twins, groups=np.arange(40) % 10)
    one = paired_concept_effect(classes[1], pool[:10], pool[10:20])
    for name in FIELDS:
        assert getattr(batch.cell(1, 0), name) == pytest.approx(getattr(one, name), rel=1e-5)


def test_float32_products_agree_with_float64(monkeypatch):
    gradients, concept, random = sample(9, n=30, m=30)
    exact = concept_effect(gradients, concept + 100, random + 100, permutations=500)
    monkeypatch.setattr(cells, "_DOUBLE_UP_TO", 0)
    single = concept_effect(gradients, concept + 100, random + 100, permutations=500)
    for name in FIELDS:
        assert getattr(single, name) == pytest.approx(getattr(exact, name), rel=1e-3)


def test_marked_cells():
    gradients, concept, random = sample(10)
    flat = concept_effect(gradients, np.full((5, 6), 2.5), np.full((5, 6), 2.5))
    assert (flat.reason, flat.effect) == (NO_SPREAD, pytest.approx(0.0, abs=1e-9))
    assert np.isnan([flat.p, flat.z, flat.null_sd, flat.ci_low]).all()
    dead = concept_effect(np.zeros((4, 6)), concept, random)
    assert dead.reason == ZERO_GRADIENTS
    assert np.isnan(dead.p)
    single = concept_effect(gradients, concept[:1], random)
    assert single.reason == ONE_SIDE_VIDEO
    assert np.isnan(single.ci_low)
    assert single.p >= 1 / 10
    one_video = concept_effect(gradients, concept, random, class_groups=[0] * 10)
    assert one_video.reason == ONE_CLASS_VIDEO
    assert np.isnan(one_video.ci_high)
    assert 0 < one_video.p <= 1


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"concept": np.zeros((0, 6))}, "concept is empty"),
        ({"random": np.zeros((0, 6))}, "random is empty"),
        ({"gradients": np.zeros((0, 6))}, "class has no clips"),
        ({"gradients": np.full((3, 6), np.inf)}, "gradients has NaN or infinite"),
        ({"random": np.zeros((4, 5))}, "random has d = 5, and concept has d = 6"),
        ({"gradients": np.zeros((4, 5))}, "gradients has d = 5"),
        ({"groups": np.zeros(3)}, "groups must give one source video per row"),
        ({"groups": np.arange(17) % 10}, r"source video\(s\) are in both concepts\[0\] and randoms\[0\]"),
        ({"permutations": 0}, "permutations must be at least 1"),
        ({"bootstrap": 1}, "bootstrap must be at least 2"),
        ({"confidence": 1.0}, "confidence must be in"),
    ],
)
def test_bad_input(changed, what):
    gradients, concept, random = sample(11)
    arguments = {"gradients": gradients, "concept": concept, "random": random} | changed
    with pytest.raises(ValueError, match=what):
        concept_effect(arguments.pop("gradients"), arguments.pop("concept"), arguments.pop("random"), **arguments)


def test_bad_pairs():
    gradients, concept, random = sample(12)
    with pytest.raises(ValueError, match="must pair row by row"):
        paired_concept_effect(gradients, concept, random)
    with pytest.raises(ValueError, match="pair one to one"):
        paired_concept_effects([gradients], random, [[0, 1]], [[2, 3, 4]])
    with pytest.raises(ValueError, match="no classes"):
        concept_effects([], random, [[0]], [[1]])


def test_the_null_is_kept_in_the_units_of_its_test():
    gradients, concept, random = sample(1, n=4, m=5)
    got = concept_effect(gradients, concept + 0.7, random, permutations=200)
    s = np.concatenate((concept + 0.7, random)) @ gradients.mean(0)
    unit = np.sqrt(s[:4].var(ddof=1) / 4 + s[4:].var(ddof=1) / 5)
    assert got.null_unit == pytest.approx(unit, rel=1e-5)
    assert got.effect / got.null_unit == pytest.approx(np.sqrt(welch(s[:4], s[4:])) * np.sign(got.effect), rel=1e-5)
    every = []
    for chosen in itertools.combinations(range(9), 4):
        left, right = s[list(chosen)], np.delete(s, list(chosen))
        every.append(np.sqrt(welch(left, right)) * np.sign(left.mean() - right.mean()))
    expected = np.histogram(np.clip(every, -EFFECT_REACH, EFFECT_REACH), EFFECT_BINS, (-EFFECT_REACH, EFFECT_REACH))[0]
    assert got.null_counts == tuple(expected)


def test_the_null_of_pairs_is_that_of_flipped_signs():
    gradients, concept, random = sample(4, n=7, m=7)
    got = paired_concept_effect(gradients, concept, random, permutations=200)
    d = (concept - random) @ gradients.mean(0)
    every = [np.mean(d * signs) for signs in itertools.product((1, -1), repeat=7)]
    assert got.null_unit == pytest.approx(np.std(every), rel=1e-5)
    expected = np.histogram(np.array(every) / np.std(every), EFFECT_BINS, (-EFFECT_REACH, EFFECT_REACH))[0]
    assert got.null_counts == tuple(expected)


def test_without_permutations_only_the_test_is_missing():
    gradients, concept, random = sample(6)
    pool, sides = np.concatenate((concept, random)), (np.arange(8)[None], np.arange(8, 17)[None])
    for compute, rows in ((concept_effects, sides), (paired_concept_effects, (sides[0], sides[0] + 8))):
        tested = compute([gradients], pool, *rows, permutations=200).cell(0, 0)
        untested = compute([gradients], pool, *rows, permutations=None).cell(0, 0)
        for name in ("effect", "null_sd", "z", "ci_low", "ci_high"):
            assert getattr(untested, name) == getattr(tested, name)
        assert np.isfinite(tested.p)
        assert np.isnan(untested.p)
        assert sum(untested.null_counts) == 0


def test_no_test_no_null():
    gradients, concept, _ = sample(5)
    got = concept_effect(gradients, np.ones_like(concept), np.ones_like(concept), permutations=99)
    assert got.reason == NO_SPREAD
    assert np.isnan(got.null_unit)
    assert sum(got.null_counts) == 0
