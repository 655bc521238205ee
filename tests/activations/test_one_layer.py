"""Reading one layer takes memory for that layer only, measured in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "one_layer.py"


@pytest.mark.full
def test_one_layer_takes_memory_for_that_layer_only() -> None:
    command = [sys.executable, str(BENCHMARK), "--clips", "60000", "--shard", "500", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    ways = result["ways"]
    assert result["bytes_of_all_layers"] > 2.5 * result["layer_bytes"]
    assert {row["rows"] for way, row in ways.items() if way != "nothing"} == {60_000}
    # Room for the layer, one shard that is being added, and the names; not for other layers or a second copy.
    assert 0.9 < ways["one layer"]["over_layer"] < 1.7
    assert ways["one layer, as the CAV stage has it"]["over_layer"] < 1.7
    assert ways["one layer, shard by shard"]["over_layer"] < 0.5
