"""In the planted world `shortcut`, the backdrop is the first concept behind the mistakes.

The recogniser learns the backdrop, because the training labels follow it. It is then asked for the motion, which is
independent of the backdrop: about half of the answers are wrong, and the backdrop is the reason for each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtcav_ray.activations import Extractor
from vtcav_ray.why.mistakes import Margins, MistakeTests, direction_p, mistake_tests, pushes_to_rival
from vtcav_ray.why.pushes import ConceptClips, direction

pytestmark = [pytest.mark.slow, pytest.mark.full]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLIPS_A_CONCEPT, RANDOM_CLIPS = 24, 120


def mistakes_of(trained_on: str) -> tuple[list[tuple[str, str]], MistakeTests]:
    """Train on one factor, ask for the motion, and test the mistakes: the cells (concept, layer), and their tests."""
    from worlds.clips import FACTORS, render
    from worlds.recogniser import LAYERS, train

    train_pool, classes, examples = render(11, 500), render(12, 120), render(13, 400)
    held_out = classes.clips, classes.levels[trained_on]
    # 120 steps reach 0.9 on some processors only.
    trained = train(0, train_pool.clips, train_pool.levels[trained_on], held_out, steps=160)
    assert trained.accuracy > 0.9, "the recogniser has learnt the factor"

    concepts: dict[str, np.ndarray] = {}
    left = list(np.random.default_rng(0).permutation(len(examples.clips)))
    for factor, levels in FACTORS.items():
        for level, name in enumerate(levels):
            concepts[name] = np.array([row for row in left if examples.levels[factor][row] == level][:CLIPS_A_CONCEPT])
            left = [row for row in left if row not in set(concepts[name])]
    random = np.array(left[:RANDOM_CLIPS])

    extractor = Extractor(trained.recogniser, LAYERS, "mean", batch_size=32, threads=1)
    pool = extractor.extract(list(examples.clips))
    seen = extractor.extract(list(classes.clips), [(0, 1)] * len(classes.clips))
    truth = classes.levels["motion"]
    mistaken = seen.predicted != truth
    cells, pushes, p_direction = [], [], []
    for layer in LAYERS:
        z, gain = seen.activations[layer], seen.gains[layer][0]
        gradients = np.stack([gain * seen.gradients[layer][seen.gradient_classes == k].mean(axis=0) for k in (0, 1)])
        margins = Margins.of(z, gradients, truth, 1 - truth, mistaken)
        vectors, videos = pool.activations[layer], np.arange(len(examples.clips))
        for name, rows in concepts.items():
            v = direction(vectors, videos, ConceptClips(name, rows, random, ()))
            pushes.append(pushes_to_rival(z, v, vectors[random].mean(axis=0), gradients, truth, 1 - truth))
            p_direction.append(direction_p(margins, vectors[rows], vectors[random], permutations=5000))
            cells.append((name, layer))
    return cells, mistake_tests(np.stack(pushes, axis=1), mistaken, truth, p_direction, permutations=5000)


def test_the_backdrop_comes_first_and_nothing_else_is_significant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    cells, found = mistakes_of("backdrop")
    assert 0.3 < found.num_mistakes / (found.num_mistakes + found.num_correct) < 0.7
    order = [cells[c] for c in found.ranking()]
    assert {name for name, _ in order[:6]} == {"stripes", "checks"}, order  # both, at all three layers
    first = found.ranking()[0]
    assert found.q[first] < 0.05
    assert found.difference[first] > 0
    for c, (name, _) in enumerate(cells):
        if name not in ("stripes", "checks"):
            assert found.q[c] > 0.05, (cells[c], found.q[c])
