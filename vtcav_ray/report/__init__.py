"""The report: one HTML file that opens from disk, and the table of scores that a terminal shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.report.data import ConceptFacts, ReportData, StageFacts
    from vtcav_ray.report.html import build_report
    from vtcav_ray.report.terminal import score_table_text

__all__ = ["ConceptFacts", "ReportData", "StageFacts", "build_report", "score_table_text"]

__getattr__ = lazy_names(
    __name__,
    {
        "data": ["ConceptFacts", "ReportData", "StageFacts"],
        "html": ["build_report"],
        "terminal": ["score_table_text"],
    },
)
