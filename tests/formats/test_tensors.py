"""A file of tensors stands alone: what a reader needs beside the network's code is in it."""

from __future__ import annotations

import pytest
import torch
from fakes.exported import Finished

from suite.export import agreement
from suite.formats.rebuild import rebuilt
from suite.formats.tensors import read_into, tensors_of
from suite.integers.everywhere import integer_everywhere
from suite.methods.mse import Mse
from suite.quantizers.quantizer import Quantizer
from suite.recipe import Calibration

NARROW = Mse(4, 3, feed=Calibration(images=128, batch=64))


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_network_is_made_of_the_file_alone(finished: Finished, everywhere: bool) -> None:
    """All values of the network that lends its form are destroyed first, grids included."""
    source = rebuilt(finished.recipe(NARROW), finished.folders)
    model = integer_everywhere(source.model, source.calibration())[0] if everywhere else source.model
    test = source.images("test")
    expected = agreement.simulated(model, test, 100)
    tensors = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    grids = {name for name in tensors if name.endswith(("_bits", "_quant_min", "_quant_max"))}
    assert {
        f"conv1.{one}" for one in ("weight_bits", "input_bits", "input_quant_min", "input_quant_max")
    } <= grids
    assert int(tensors["conv1.weight_bits"]) == 4 and int(tensors["conv1.input_bits"]) == 3
    ends = tensors["conv1.input_quant_min"], tensors["conv1.input_quant_max"]
    assert int(ends[1] - ends[0]) <= 7
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(3)
        for module in model.modules():
            if isinstance(module, Quantizer):
                module.grid = None  # type: ignore[assignment]
    assert torch.equal(agreement.simulated(read_into(model, tensors), test, 100), expected)
    del tensors["linear.bias"]
    assert agreement.simulated(read_into(model, tensors), test, 5).isnan().all(), "nothing of its own is left"
