"""Which estimates of the Hessian's trace are those of a few images."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from fakes.mixed import CALIBRATION, chosen, images, mixed, tied

import suite
from suite.methods.mse import Mse
from suite.quantizers.layers import layer_of, stored_parameters
from suite.steps.width_scores import doubtful, traces_of


def test_only_of_a_trace_below_two_standard_errors_is_warned() -> None:
    clear = {("a", "weight"): (2.0, 1.0), ("a", "input"): (0.0, 0.0)}
    assert doubtful(clear) == ""
    for trace, error in ((1.9, 1.0), (3.0, float("nan"))):
        said = doubtful(clear | {("b", "input"): (trace, error)})
        assert said.startswith("the Hessian's trace of 1 of 3 tensors") and "(b input)" in said
    assert traces_of({("b", "input"): (3.0, float("nan"))}, "b") == {
        "hessian": {"input": {"trace": 3.0, "standard_error": None}}
    }


@pytest.mark.parametrize("by", ["noise", "logits", "hessian"])
def test_scores_that_need_no_label_choose_as_they_do_with_labels(by: str) -> None:
    (x, _), method = images(), mixed(Mse(4, 4, feed=CALIBRATION), by)
    with warnings.catch_warnings(action="ignore"):
        model = suite.quantize(tied(), method, x)
        _, kept, _ = chosen(method)
    for layer in kept["layers"]:
        held: Any = model.get_submodule(layer["name"])
        assert stored_parameters(layer_of(held))["weight"].bits == layer["weight_bits"]
        assert held.input.grid.bits == layer["input_bits"]
