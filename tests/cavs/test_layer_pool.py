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


ROWS = [
    *(("concept", f"{name}/{kind}", kind, f"{name}{i}")
      for name in ("cup", "ball", "box") for kind in ("spatial", "tracked") for i in range(8)),
    *(("random", f"random/{kind}", kind, f"r{i}") for kind in ("spatial", "tracked") for i in range(40)),
    *(("class", "lift", "full", f"c{i}") for i in range(30)),
]  # fmt: skip
VECTORS = np.random.default_rng(0).normal(size=(len(ROWS), D)).astype(np.float32)


def pool_of(order: np.ndarray) -> Pool:
    return Pool(*(list(column) for column in zip(*(ROWS[row] for row in order), strict=True)))


def trained(order: np.ndarray, relative: tuple[str, ...] = ()) -> dict[tuple[str, str], list[np.ndarray]]:
    """Train the CAVs of the rows in this order: vector, accuracies."""
    pool = pool_of(order)
    jobs = plan_cavs(pool, 6, relative, seed=0).jobs
    parts = train_jobs(LayerPool(VECTORS[order], pool.video_id, pool.learnable()), jobs, CavsConfig(), 0)
    columns = [np.concatenate(column) for column in zip(*((p.vectors, p.train_accuracy, p.held_out_accuracy)
                                                          for p in parts), strict=True)]  # fmt: skip
    found = {(job.concept, job.negatives): list(of) for job, *of in zip(jobs, *columns, strict=True)}
    assert len(found) == len(jobs)
    return found


def assert_same(cavs: dict[tuple[str, str], list[np.ndarray]], others: dict[tuple[str, str], list[np.ndarray]]) -> None:
    assert len(cavs) > 40
    assert cavs.keys() == others.keys()
    for name, figures in cavs.items():
        for figure, other, most in zip(figures, others[name], (1e-5, 1e-6, 1e-6), strict=True):
            np.testing.assert_allclose(figure, other, atol=most, err_msg=str(name))


@pytest.mark.parametrize("relative", [(), pytest.param(("groups", "pairs"), marks=pytest.mark.slow)])
def test_cavs_are_the_same_from_one_gram_matrix_and_from_many(
    relative: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool_of(np.arange(len(ROWS))).learnable().max() < len(ROWS) - 30
    whole = trained(np.arange(len(ROWS)), relative)
    monkeypatch.setattr(LayerPool.pieces, "__defaults__", (40,))
    assert_same(trained(np.arange(len(ROWS)), relative), whole)


def test_cavs_depend_neither_on_the_order_of_videos_nor_on_other_videos() -> None:
    """Other shards only change the order of rows, and so no figure."""
    whole = trained(np.arange(len(ROWS)))
    assert_same(trained(np.random.default_rng(1).permutation(len(ROWS))), whole)
    without_classes = [row for row, (role, *_) in enumerate(ROWS) if role != "class"]
    assert_same(trained(np.array(without_classes)), whole)
    without_box = trained(np.array([row for row, (_, name, *_) in enumerate(ROWS) if not name.startswith("box")]))
    assert_same(without_box, {name: whole[name] for name in without_box})
