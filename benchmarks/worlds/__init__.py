"""Worlds with a planted answer, for `benchmarks/truth.py`: clips, recognisers trained on them, and the recipes."""
