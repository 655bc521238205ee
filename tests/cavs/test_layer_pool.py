from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.cavs.layer_cavs import train_jobs
from vtcav_ray.cavs.layer_pool import LayerPool
from vtcav_ray.cavs.plan import Pool, plan_cavs
from vtcav_ray.config import CavsConfig

N, D = 120, 16


def layer(most_usable: int = N) -> LayerPool:
    vectors = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    return LayerPool(vectors, [f"v{i}" for i in range(N)], np.arange(most_usable))


def test_a_small_pool_has_one_gram_matrix_of_the_usable_rows_whatever_is_asked() -> None:
    pool = layer(100)
    (piece,) = pool.pieces([np.array([3, 5]), np.array([7])], most=100)
    assert piece.items == slice(0, 2)
    assert piece.gram.num_rows == 100
    (again,) = pool.pieces([np.array([9])], most=100)
    assert again.gram is piece.gram
    assert list(piece.place_N[100:]) == [-1] * 20


def test_items_are_cut_in_their_order_and_no_piece_needs_too_many_rows() -> None:
    rng = np.random.default_rng(1)
    items = [rng.choice(N, size=10, replace=False) for _ in range(40)]
    pieces = list(layer().pieces(items, most=50))
    assert [i for piece in pieces for i in range(40)[piece.items]] == list(range(40))
    assert len(pieces) > 3
    for piece in pieces:
        assert piece.gram.num_rows <= 50
        used = np.unique(np.concatenate(items[piece.items]))
        np.testing.assert_array_equal(np.flatnonzero(piece.place_N >= 0), used)
        np.testing.assert_array_equal(piece.gram.pool_ND, layer().vectors_ND[used])
        assert piece.groups == [f"v{i}" for i in used]


def test_an_item_that_needs_more_than_there_may_be_stands_alone() -> None:
    items = [np.arange(5), np.arange(60), np.arange(5)]
    assert [piece.items for piece in layer().pieces(items, most=50)] == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("relative", [(), ("groups", "pairs")])
def test_cavs_are_the_same_from_one_gram_matrix_and_from_many(
    relative: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("concept", f"{name}/{kind}", kind, f"{name}{i}")
            for name in ("cup", "ball", "box") for kind in ("spatial", "tracked") for i in range(8)]  # fmt: skip
    rows += [("random", f"random/{kind}", kind, f"r{i}") for kind in ("spatial", "tracked") for i in range(40)]
    rows += [("class", "lift", "full", f"c{i}") for i in range(30)]
    pool = Pool(*(list(column) for column in zip(*rows, strict=True)))
    vectors = np.random.default_rng(0).normal(size=(len(rows), D)).astype(np.float32)
    jobs = plan_cavs(pool, 6, relative, seed=0).jobs
    assert pool.learnable().max() < len(rows) - 30

    config = CavsConfig().model_copy(update={"held_out": 0.0})  # the held-out rows depend on the rows' places

    def trained() -> tuple[np.ndarray, np.ndarray]:
        parts = train_jobs(LayerPool(vectors, pool.video_id, pool.learnable()), jobs, config, 0)
        return np.concatenate([p.vectors for p in parts]), np.concatenate([p.train_accuracy for p in parts])

    whole = trained()
    monkeypatch.setattr(LayerPool.pieces, "__defaults__", (40,))
    cut = trained()
    assert len(whole[0]) == len(jobs)
    np.testing.assert_allclose(cut[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(cut[1], whole[1], atol=1e-6)
