"""Concepts: detection, tracking, motion words, and the plan and the cutting of clips."""
