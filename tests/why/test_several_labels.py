"""Answers to videos with several true labels: right if the answer is any of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vtcav_ray import tables
from vtcav_ray.why import run_mistakes
from vtcav_ray.why.page import verdict
from vtcav_ray.why.run import Explanation
from vtcav_ray.why.subjects import read_answers

CLASSES = ["drinking", "sitting", "waving"]


def answers(rows: list[tuple[str, str, str, list[float]]]) -> Any:
    """Make a run with the answers to class examples, given as (video, class, labels, logits)."""
    table = pa.Table.from_pylist(
        [
            {"clip_id": f"{video}{i}", "set": "class", "name": name, "video_id": video, "label": label,
             "logits": logits, "gains": [1.0]}
            for i, (video, name, label, logits) in enumerate(rows)
        ],
        schema=tables.ANSWERS.with_metadata({tables.CLASSES: b'["drinking", "sitting", "waving"]'}),
    )  # fmt: skip
    return SimpleNamespace(iter_tables=lambda name: [table], stage=lambda name: None)


def test_the_labels_of_an_example_are_those_of_all_its_clips() -> None:
    rows = [
        ("a", "sitting", "drinking; sitting", [0, 1, 0]),
        ("a", "sitting", "sitting; waving", [0, 3, 0]),
        ("b", "waving", "waving", [0, 0, 1]),
    ]
    found = read_answers(answers(rows))
    assert (found["a"].label, found["a"].labels) == ("sitting", "drinking; sitting; waving")
    assert (found["b"].label, found["b"].labels) == ("waving", "waving")
    assert found["a"].logits.tolist() == [0, 2, 0]


def test_an_answer_that_is_another_true_label_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answers(
        [
            ("other label", "sitting", "drinking; sitting", [3, 2, 1]),
            ("wrong", "sitting", "drinking; sitting", [1, 2, 3]),
            ("own", "sitting", "drinking; sitting", [2, 3, 1]),
            ("one label", "sitting", "sitting", [3, 2, 1]),
        ]
    )
    monkeypatch.setattr(run_mistakes, "read_left_out", lambda stage: ())
    monkeypatch.setattr(run_mistakes, "_classes_with_gradients", lambda run: CLASSES)
    found = run_mistakes.read_examples(run)
    assert dict(zip(found.videos, found.mistaken.tolist(), strict=True)) == {
        "other label": False, "wrong": True, "own": False, "one label": True,
    }  # fmt: skip
    rivals = dict(zip(found.videos, [CLASSES[k] for k in found.rival], strict=True))
    assert rivals == {"other label": "waving", "wrong": "waving", "own": "waving", "one label": "drinking"}
    assert [CLASSES[k] for k in found.truth] == ["sitting"] * 4


def explained(label: str | None, predicted: str) -> str:
    probabilities = {"drinking": 0.5, "sitting": 0.3, "waving": 0.2}
    return verdict(Explanation("v", label, predicted, "waving", probabilities, "logit", "tables", []))


def test_the_verdict_names_every_true_label() -> None:
    assert "which is right. It is also sitting." in explained("drinking; sitting", "drinking")
    wrong = explained("sitting; juggling", "drinking")
    assert "which is wrong. The true classes are juggling, which the model does not have and sitting" in wrong
    assert "(probability 0.300)" in wrong
    assert "which is right. The runner-up" in explained("drinking", "drinking")
    assert np.char.find(explained(None, "drinking"), "not known") > 0
