"""The report: one HTML file that opens from disk. `report.terminal` prints the scores in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.report.data import ConceptFacts, ReportData, StageSummary
    from vtcav_ray.report.page import build_report

__all__ = ["ConceptFacts", "ReportData", "StageSummary", "build_report"]

__getattr__ = lazy_names(
    __name__,
    {"data": ["ConceptFacts", "ReportData", "StageSummary"], "page": ["build_report"]},
)
