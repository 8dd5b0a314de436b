"""What the benchmark of deployment says of exactness, answers and speed, on a small network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes.exported import Finished
from fakes.missing import missing

from benchmarks import deployment
from suite.export import agreement, runtimes
from suite.formats.rebuild import Rebuilt, rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.integers.integer_network import IntegerNetwork
from suite.methods.mse import Mse
from suite.recipe import Calibration


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.fx.GraphModule, Rebuilt]:
    if reason := runtimes.why_not("onnxruntime"):
        missing(reason)
    finished = Finished(tmp_path_factory.mktemp("deployment"))
    method = Mse(deployment.weight_bits(), 8, feed=Calibration(images=128, batch=64))
    source = rebuilt(finished.recipe(method), finished.folders)
    return integer_everywhere(source.model, source.calibration())[0], source


@pytest.mark.parametrize("layer", ["stem", "short", "linear"])
def test_sums_are_exact_and_one_that_is_off_by_one_is_not(
    small: tuple[torch.fx.GraphModule, Rebuilt], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    """Of linear layers as well, which were not compared."""
    network, source = small
    x = next(agreement.batches(source.images("test"), 20))
    assert deployment.is_exact(network, x)
    known = IntegerNetwork.products

    def wrong(self: IntegerNetwork, given: Any, name: str, held: Any) -> Any:
        total, scale = known(self, given, name, held)
        return total + (name == layer), scale

    monkeypatch.setattr(IntegerNetwork, "products", wrong)
    assert not deployment.is_exact(network, x)


def test_flips_are_counted_over_all_test_images(small: tuple[torch.fx.GraphModule, Rebuilt]) -> None:
    flipped, images = deployment.flips(*small)
    assert images == 599 and 0 <= flipped <= 1


def test_the_ratio_is_the_least_over_the_batches_of_one_runtime() -> None:
    times = {
        ("onnxruntime", 1): (6.0, 3.0),
        ("onnxruntime", 128): (900.0, 600.0),
        ("openvino", 1): (8.0, 1.0),
    }
    rows = [
        {"runtime": runtime, "batch": batch, "precision": precision, "processor_ms": time}
        for (runtime, batch), pair in times.items()
        for precision, time in zip(("float32", "int8"), pair, strict=True)
    ]
    assert deployment.ratio(rows, "onnxruntime") == 1.5 and deployment.ratio(rows, "openvino") == 8.0
