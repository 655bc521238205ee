"""What the tests that run the whole pipeline have in common."""

from __future__ import annotations

# To load a model's packages takes longer here than to use them. Pools of several actors are tested in tests/engine.
ONE_ACTOR_A_STAGE = [f"resources.{stage}.max_actors=1" for stage in ("detect", "cut", "extract", "statistics")]
