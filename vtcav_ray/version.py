"""The version of this package, for the code, run.json and the wheel."""

__version__ = "0.1.0"
