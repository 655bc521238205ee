"""Settings of property-based tests. `--hypothesis-profile=quick` divides the number of their examples by four."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings


def examples(most: int, **options: Any) -> settings:
    """Return settings with `most` examples, or fewer in a quicker profile, and without a deadline."""
    return settings(max_examples=max(5, most * settings().max_examples // 100), deadline=None, **options)


def examples_in_one_folder(most: int) -> settings:
    """Return settings for a test whose examples share one temporary folder."""
    return examples(most, suppress_health_check=[HealthCheck.function_scoped_fixture])
