"""Exports: figures and tables for a paper, and figures for an experiment tracker."""

from vtcav_ray.exports.paper import FIGURE_FORMATS, export

__all__ = ["FIGURE_FORMATS", "export"]
