"""The table of mistakes of a run whose tables are written by hand: `drop-2`, rich in the cup, is taken for `lift`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.compared_runs import LAYER, write_run
from vtcav_ray import tables
from vtcav_ray.why.run_mistakes import mistakes_of_run, read_examples

WEIGHT = 2.0  # of the cup for `lift`; that for `drop` is -1


def test_the_examples_have_a_rival_and_a_mistake_is_one_of_them(tmp_path: Path) -> None:
    found = read_examples(write_run(tmp_path, WEIGHT))
    assert found.classes == ["drop", "lift"]
    assert found.videos == [f"v/{name}-{i}" for name in ("drop", "lift") for i in range(3)]
    assert found.truth.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.rival.tolist() == [1, 1, 1, 0, 0, 0]
    assert found.mistaken.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(("taken_at", "factor"), [("reference", 1.0), ("own", 4 / 3)])
def test_the_push_is_that_of_the_amount_in_the_video(tmp_path: Path, taken_at: str, factor: float) -> None:
    """Outside of the reference set (one of three examples of a class), gradients are doubled."""
    run = write_run(tmp_path, WEIGHT, gain=8.0, references=2, scores={"gradients_at": taken_at})
    table = mistakes_of_run(run)
    assert table.schema == tables.MISTAKES
    (row,) = table.to_pylist()
    assert (row["rank"], row["concept"], row["layer"]) == (1, "cup/spatial", LAYER)
    assert (row["n_mistakes"], row["n_correct"]) == (1, 5)
    slope = factor * (WEIGHT + 1)  # of the margin of `lift` over `drop`, along axis 0
    assert row["push"] == pytest.approx(slope * (5 - 1), abs=1e-4)  # random clips are at 1
    assert row["push_correct"] == pytest.approx(slope * (3 * 1 - 2 * 1) / 5, abs=1e-4)
    assert row["difference"] == pytest.approx(slope * (4 + 1), abs=1e-4)  # within `drop`, whose others are at 0
    assert row["presence"] == 1
    assert row["presence_correct"] == pytest.approx(1 / 8)


def test_both_tests_have_to_reject(tmp_path: Path) -> None:
    (row,) = mistakes_of_run(write_run(tmp_path, WEIGHT)).to_pylist()
    assert row["p_examples"] == pytest.approx(2 / 3, abs=0.1)  # three videos of `drop`: any of them may be the mistake
    assert row["p_direction"] < 0.05  # all cups are beyond all random clips
    assert row["p"] == row["p_examples"]
    assert row["q"] == 1
    assert not row["significant"]


def test_without_a_mistake_there_are_no_rows(tmp_path: Path) -> None:
    table = mistakes_of_run(write_run(tmp_path, WEIGHT, left_out=["drop-2"]))
    assert table.num_rows == 0
    assert table.schema == tables.MISTAKES
