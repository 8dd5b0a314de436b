"""Which estimates of the Hessian's trace say something."""

from __future__ import annotations

import math

import pytest

from suite.sensitivity.hessian import Trace
from suite.steps.width_scores import above_its_error, doubtful, traces_of


@pytest.mark.parametrize(
    ("trace", "error", "counts"),
    [(3.0, 1.0, 3.0), (0.5, 1.0, 1.0), (-3.0, 1.0, 1.0), (3.0, math.nan, 3.0), (-3.0, math.nan, 0.0)],
)
def test_a_trace_below_its_standard_error_counts_as_that(trace: float, error: float, counts: float) -> None:
    """A negative estimate, which is chance, made every width of the tensor free."""
    assert above_its_error(Trace(trace, error, 9)) == Trace(counts, error, 9)


def test_only_a_trace_above_two_standard_errors_is_no_chance() -> None:
    clear = {("a", "weight"): (2.0, 1.0), ("a", "input"): (0.0, 0.0)}
    assert doubtful(clear) == ""
    for trace, error in ((1.9, 1.0), (-5.0, 1.0), (3.0, float("nan"))):
        said = doubtful(clear | {("b", "input"): (trace, error)})
        assert said.startswith("the Hessian's trace of 1 of 3 tensors") and "(b input)" in said
    assert traces_of({("b", "input"): (3.0, float("nan"))}, "b") == {
        "hessian": {"input": {"trace": 3.0, "standard_error": None}}
    }
