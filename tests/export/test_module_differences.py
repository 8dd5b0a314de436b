"""The first layer that differs is named for files that are read as modules too."""

from __future__ import annotations

import pytest
from fakes.exported import Finished
from torch import nn

from suite.export.agreement import Simulation
from suite.export.module_differences import first_difference
from suite.export.runtimes import why_not
from suite.formats import pt2e
from suite.formats.rebuild import rebuilt
from suite.formats.tensors import read_into, tensors_of
from suite.integers.everywhere import integer_everywhere
from suite.methods.mse import Mse
from suite.recipe import Calibration


@pytest.fixture(scope="module", params=[False, True])
def simulation(request: pytest.FixtureRequest, finished: Finished) -> Simulation:
    source = rebuilt(finished.recipe(Mse(7, 8, feed=Calibration(images=128, batch=64))), finished.folders)
    model: nn.Module = source.model
    if request.param:
        model, _ = integer_everywhere(model, source.calibration())
    return Simulation.of(model, source.images("test"), 100)


def test_of_a_file_of_tensors(simulation: Simulation) -> None:
    """A wrong scale of conv1's weight changes no integer before conv2."""
    x, tensors = next(simulation.batches()), tensors_of(simulation.model)
    assert first_difference(simulation.model, read_into(simulation.model, tensors), x) is None
    tensors["conv1.weight_scale"] = tensors["conv1.weight_scale"] * 1.5
    found = first_difference(simulation.model, read_into(simulation.model, tensors), x)
    assert found is not None and found["layer"] == "conv2"
    assert 0.1 < found["share"] < 1 and found["levels"] > 10


def test_of_a_program(simulation: Simulation) -> None:
    if reason := why_not("inductor"):
        pytest.skip(reason)
    x = next(simulation.batches())
    made = pt2e.program(simulation.model, simulation.example)
    assert first_difference(simulation.model, made, x) is None
    made.state_dict["conv1.scale"] *= 1.5
    found = first_difference(simulation.model, made, x)
    assert found is not None and found["layer"] == "conv2" and found["levels"] > 10
