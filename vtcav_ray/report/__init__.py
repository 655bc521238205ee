"""The report: one HTML file that opens from disk, and the table of scores that a terminal shows."""

from vtcav_ray.report.data import ConceptFacts, ReportData, StageFacts
from vtcav_ray.report.html import build_report
from vtcav_ray.report.terminal import score_table_text

__all__ = ["ConceptFacts", "ReportData", "StageFacts", "build_report", "score_table_text"]
