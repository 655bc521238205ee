"""Rows as dataclasses: their schemas, tables made of them, and rows read from tables."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from vtcav_ray import tables
from vtcav_ray.config import ClipsConfig
from vtcav_ray.errors import InputError
from vtcav_ray.rows import Failure, NullRow, ScoreRow, SensitivityRow, read_rows, table_of
from vtcav_ray.videos.listing import Listing
from vtcav_ray.videos.stage import STAGE

NULL = NullRow(class_="lift", layer="late", concept="cup/spatial", against="random", effect_unit=0.5,
               effect_counts=(1, 2), score_counts=())  # fmt: skip


def test_fields_are_the_columns_in_order() -> None:
    assert (
        pa.schema(
            [(name, pa.string()) for name in ("stage", "uri", "video_id", "clip_id", "error_kind", "message")]
            + [("attempts", pa.int32())]
        )
        == tables.FAILURES
    )
    assert (
        pa.schema(
            [(name, pa.string()) for name in ("class", "layer", "concept", "video_id")]
            + [(name, pa.float32()) for name in ("sensitivity", "positive")]
        )
        == tables.SENSITIVITIES
    )
    assert tables.SCORES.names[:3] == ["class", "layer", "concept"]
    types = {name: tables.SCORES.field(name).type for name in ("class", "q", "significant", "R", "n_concept")}
    assert types == {
        "class": pa.string(), "q": pa.float64(), "significant": pa.bool_(), "R": pa.int32(), "n_concept": pa.int32(),
    }  # fmt: skip
    assert tables.NULLS.field("effect_counts").type == pa.list_(pa.int32())


@pytest.mark.parametrize(
    ("row_type", "schema"),
    [(Failure, tables.FAILURES), (ScoreRow, tables.SCORES), (SensitivityRow, tables.SENSITIVITIES),
     (NullRow, tables.NULLS)],
)  # fmt: skip
def test_a_table_without_rows_has_its_schema(row_type: type, schema: pa.Schema) -> None:
    table = table_of([], row_type)
    assert (table.num_rows, table.schema) == (0, schema)


def test_rows_are_the_same_after_a_table() -> None:
    table = table_of([NULL, dataclasses.replace(NULL, effect_unit=math.nan)], NullRow)
    first, second = read_rows(table, NullRow)
    assert first == dataclasses.replace(NULL, effect_counts=[1, 2], score_counts=[])
    assert math.isnan(second.effect_unit)
    assert table["effect_unit"].null_count == 0


def test_none_is_a_null() -> None:
    failure = Failure(video_id="a", error_kind="empty", message="0 bytes")
    table = table_of([failure], Failure)
    assert table.to_pylist() == [
        {"stage": None, "uri": None, "video_id": "a", "clip_id": None, "error_kind": "empty", "message": "0 bytes",
         "attempts": 1}
    ]  # fmt: skip
    assert read_rows(table, Failure) == [failure]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(KeyError, match="against"):
        read_rows(table_of([NULL], NullRow).drop_columns(["against"]), NullRow)


def test_a_failure_names_its_video_or_its_clip() -> None:
    row = {"uri": "s3://b/a.mp4", "video_id": "a.mp4", "clip_id": "full/a.mp4", "label": "lift"}
    error = InputError("decode", "no frame decodes")
    assert Failure.of_video(row, error, attempts=2) == Failure(
        uri="s3://b/a.mp4", video_id="a.mp4", error_kind="decode", message="no frame decodes", attempts=2
    )
    assert Failure.of_clip(row, error).clip_id == "full/a.mp4"
    assert Failure.of_clip({"clip_id": "c", "video_id": "a.mp4"}, error).uri is None


def test_failed_rows_of_a_listing_have_the_digest_that_earlier_runs_have_in_their_keys() -> None:
    failures = [
        Failure(uri="a.mp4", video_id="a", error_kind="missing", message="gone"),
        Failure(video_id="b", error_kind="manifest", message="row 2 has no uri."),
    ]
    memo = {"listing": Listing(tables.VIDEOS.empty_table(), failures, [])}
    context: Any = SimpleNamespace(memo=memo, config=SimpleNamespace(clips=ClipsConfig()))
    assert STAGE.ingredients(context) == {"listing": "0999b684411862407ebcb0626524c899a20bcecbbb046eb4a8e9fae225be0d1c"}
