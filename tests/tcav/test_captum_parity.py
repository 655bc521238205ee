"""On the same activations and gradients, sign counts equal Captum's within the sampling error of the runs."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "captum_parity.py"


@pytest.mark.slow
def test_sign_counts_agree_with_captum(monkeypatch):
    pytest.importorskip("captum")
    spec = importlib.util.spec_from_file_location("captum_parity", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look up their module
    spec.loader.exec_module(module)
    parity = module.compare(runs=12)
    assert len(parity.rows) == 6
    for row in parity.rows:
        assert row.sgd == pytest.approx(row.captum, abs=4 * row.sgd_error + 0.02), row
        # Another loss gives a slightly different direction, so the tolerance is wider.
        assert row.logistic == pytest.approx(row.captum, abs=4 * row.logistic_error + 0.1), row
        assert row.given_cavs == pytest.approx(0.0, abs=1e-6), row
    planted = {(row.target, row.concept): row for row in parity.rows}
    assert planted[0, "towards class 0"].captum > 0.9
    assert planted[0, "away from class 0"].captum < 0.3
