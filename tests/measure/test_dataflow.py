"""One layer's way through integers, of every kind of layer."""

from __future__ import annotations

import pytest
from fakes.exported import Finished
from torch.nn import functional as F

from suite.arithmetic.integer import Accumulators, bits_needed
from suite.cli.main import main
from suite.export import agreement
from suite.formats.rebuild import rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.integers.integer_network import IntegerNetwork
from suite.measure.dataflow import Example, dataflow
from suite.methods.mse import Mse
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError

EIGHT = Mse(8, 8, feed=Calibration(images=128, batch=64))


def test_dataflow_carries_one_value_through_a_layer(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finished.recipe(EIGHT)
    runs = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    assert main(["dataflow", recipe.key, "conv1", *runs]) == 0
    shown = capsys.readouterr().out
    assert "accumulators of 32 bits: 0 of 4,096 sums overflow" in shown  # 32 images, 8 channels, 4 x 4
    assert "accumulators of 16 bits: " in shown
    for step in (
        "input, rounded",
        "weight",
        "product",
        "sum of 36 products",
        "bias",
        "ReLU: clamp at 0",
        "multiplied, shifted",
        "output, clamped",
    ):
        assert step in shown, shown
    rows = {row.step: row for row in dataflow(recipe, "conv1", finished.folders).rows}
    moved, clamped = rows["multiplied, shifted"], rows["output, clamped"]
    assert clamped.example == min(max(moved.example, 0), 255) and moved.high >= clamped.high
    assert moved.bits == bits_needed(int(moved.high))
    assert main(["dataflow", recipe.key, "pool", *runs]) == 2
    assert "'pool' is no quantized layer; the layers are stem, conv1" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("layer", "products", "last"),
    [
        ("stem", 27, "output, clamped"),
        ("conv1", 36, "output, clamped"),
        ("conv2", 72, "output, clamped"),  # into an addition
        ("short", 4, "output, clamped"),  # a bias of its own
        ("linear", 8, "times s_x*s_w"),  # the logits
    ],
)
def test_every_kind_of_layer_has_a_dataflow(finished: Finished, layer: str, products: int, last: str) -> None:
    steps = [row.step for row in dataflow(finished.recipe(EIGHT), layer, finished.folders).rows]
    assert f"sum of {products} products" in steps and "bias" in steps and steps[-1] == last


def test_sums_that_leave_16_bits_are_counted_as_the_network_in_integers_counts_them(
    finished: Finished,
) -> None:
    source = rebuilt(finished.recipe(EIGHT), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    narrow = IntegerNetwork(network, Accumulators(16))
    narrow(next(agreement.batches(source.images("test"), 32)))
    flow = dataflow(finished.recipe(EIGHT), "stem", finished.folders)  # nothing wraps before it
    assert flow.overflows == {32: 0, 16: narrow.sums.overflows["stem"]}
    assert flow.sums == narrow.sums.values["stem"] == 32 * 4 * 8 * 8


def test_the_example_is_the_one_that_was_asked_for(finished: Finished) -> None:
    """Its products and its sum are those of the convolution there, by hand."""
    source = rebuilt(finished.recipe(EIGHT), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    integers = IntegerNetwork(network)
    x = next(agreement.batches(source.images("test"), 32))
    flow = dataflow(finished.recipe(EIGHT), "stem", finished.folders, Example(5, 3, 2, (0, 7)))
    rows = {row.step: row for row in flow.rows}
    codes = integers.on_grid(x, "stem.input")
    weight = integers.weights["stem"]
    padded = F.pad(codes.centred, (1, 1, 1, 1))[5, :, 0:3, 7:10]
    assert rows["input"].example == float(x[5, 2, 0, 7])
    assert rows["weight"].example == int(weight.q[3, 2, 1, 1])
    assert rows["product"].example == int(padded[2, 1, 1]) * int(weight.q[3, 2, 1, 1])
    assert rows["sum of 27 products"].example == int((padded * weight.q[3]).sum())
    assert "of channel 3" in rows["multiplied, shifted"].scale


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (Example(image=32), "has images 0 to 31, got 32"),
        (Example(output=8), "has output channels 0 to 7, got 8"),
        (Example(input=-1), "has input channels 0 to 3, got -1"),
        (Example(place=(4, 0)), r"is 4x4; \(4, 0\) is no place in it"),
    ],
)
def test_an_example_that_is_not_there_is_refused(finished: Finished, example: Example, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        dataflow(finished.recipe(EIGHT), "conv1", finished.folders, example)
