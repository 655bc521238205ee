"""The report: one HTML file that opens from disk. What a terminal shows of the scores is in `report.terminal`."""

from vtcav_ray.report.data import ConceptFacts, ReportData, StageFacts
from vtcav_ray.report.page import build_report

__all__ = ["ConceptFacts", "ReportData", "StageFacts", "build_report"]
