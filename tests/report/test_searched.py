"""What the report shows of a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.helpers.report_factory import report_data
from vtcav_ray.report.page import build_report
from vtcav_ray.report.searched import searched


def one(name: str, looked: int, of: int, found: int = 33, wanted: int = 33) -> dict[str, Any]:
    return {"set": name, "found": found, "wanted": wanted, "full": found >= wanted, "looked_at": looked, "of": of}


ENOUGH = {
    "looked_at": 1024,
    "of": 240_000,
    "source_videos": 240_000,
    "rounds": 2,
    "ended": "full",
    "shard_videos": 16,
    "sets": [
        one("class/lift", 30, 600, 30, 30),
        one("class/drop", 30, 600, 30, 30),
        one("class/rare", 7, 7, 7, 7),
        one("concept/cup/blue", 1024, 240_000),
        one("random", 512, 240_000, 330, 330),
    ],
}


def test_it_says_how_many_of_how_many_by_set() -> None:
    found = searched(ENOUGH)
    assert "The sampling was adaptive: 1,024 of 240,000 videos were looked at" in found.sentence
    assert "in 2 rounds, until every set was full" in found.sentence
    assert list(found.rows) == [
        ("2 classes, each", "30", "30", "30", "600"),
        ("class rare", "7", "7", "7", "7"),
        ("concept cup blue", "33", "33", "1,024", "240,000"),
        ("random", "330", "330", "512", "240,000"),
    ]


def test_the_page_shows_it_only_after_a_search() -> None:
    data = report_data()
    assert "Adaptive sampling" not in build_report(data)
    page = build_report(replace(data, enough=ENOUGH))
    assert "Adaptive sampling" in page
    assert "1,024 of 240,000" in page
