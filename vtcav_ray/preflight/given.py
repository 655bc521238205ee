"""Check a person's own clips by counts: enough source videos for each concept, and random clips like its own."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.clips.given import FEW, plan_given
from vtcav_ray.config import Config
from vtcav_ray.preflight.checks import Check, listed


def given_checks(given: pa.Table, config: Config) -> list[Check]:
    """Check that own clips can be used.

    Args:
        given: table `given`; that its files can be opened is found when they are decoded.
        config: of the run.
    """
    plan = plan_given(given, (), config.clips, config.seed)
    if not plan.concepts:
        return [
            Check(
                "own clips",
                "stop" if not config.clips.need_tracks else "warn",
                f"No concept of own clips can be used: each needs {FEW} source videos (better "
                f"{config.clips.min_per_concept}, clips.min_per_concept). {' '.join(plan.warnings)}",
            )
        ]
    counts = listed(
        [f"{name}: {count['clips']} clips of {count['videos']} videos" for name, count in plan.counts.items()]
    )
    checks = [Check("own clips", "ok", counts)]
    few = [name for name, count in plan.counts.items() if count["videos"] < config.clips.min_per_concept]
    left_out = {f"{row['concept']}/{row['kind']}" for row in given.to_pylist() if not row["negative"]} - set(
        plan.counts
    )
    if few or left_out:
        weak = f"Few source videos: {listed(sorted(few))}. " if few else ""
        lost = f"Left out: {listed(sorted(left_out))}. " if left_out else ""
        checks.append(
            Check(
                "own clips",
                "warn",
                f"{weak}{lost}A concept needs {config.clips.min_per_concept} source videos (clips.min_per_concept).",
            )
        )
    return checks
