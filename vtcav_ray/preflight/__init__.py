"""Checks before a run's GPU hours: model, layers, detector, labels, number of videos, output. See `run.preflight`."""
