"""One layer's way through integers, of every kind of layer."""

from __future__ import annotations

import pytest
from fakes.exported import Finished

from suite.arithmetic.integer import bits_needed
from suite.cli.main import main
from suite.measure.dataflow import dataflow
from suite.methods.mse import Mse
from suite.recipe import Calibration

EIGHT = Mse(8, 8, feed=Calibration(images=128, batch=64))


def test_dataflow_carries_one_value_through_a_layer(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finished.recipe(EIGHT)
    runs = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    assert main(["dataflow", recipe.key, "conv1", *runs]) == 0
    shown = capsys.readouterr().out
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
    rows = {row.step: row for row in dataflow(recipe, "conv1", finished.folders)}
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
    steps = [row.step for row in dataflow(finished.recipe(EIGHT), layer, finished.folders)]
    assert f"sum of {products} products" in steps and "bias" in steps and steps[-1] == last
