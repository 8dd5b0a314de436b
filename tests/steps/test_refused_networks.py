"""A step that would change nothing, or learn a layer twice, is refused, and no equalization changes the function."""

from __future__ import annotations

import pytest
import torch
from fakes.reconstructing import Recording, short
from fakes.residual import CALIBRATION, images, prepared
from fakes.zoo import inverted
from torch import Tensor, nn

from suite.methods.adaround import Adaround
from suite.methods.bias_correction import BiasCorrection
from suite.methods.dfq import Dfq
from suite.methods.equalized import Equalized
from suite.quantizers.equalize import equalize
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError
from suite.run.pipeline import quantized
from suite.steps import CorrectBias, Equalize


class Repeated(nn.Module):
    """One convolution, called twice: between two others or, `inside`, within a residual block."""

    def __init__(self, inside: bool = False) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.linear, self.inside = nn.Linear(4, 10), inside

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.again(torch.relu(self.again(x)))
        return self.linear((x + y if self.inside else y).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_layer_of_two_units_is_refused_before_anything_runs_and_one_within_a_block_is_not() -> None:
    message = "layer 'again' is called more than once, in again and again in again, .* use unit='network'"
    with pytest.raises(SuiteError, match=message):
        short().check_network(Repeated(), images())
    with pytest.raises(SuiteError, match=message):
        short().apply(prepared(Repeated()), Recording(Repeated(), images()))
    for step, network in ((short(), Repeated(inside=True)), (short(unit="network"), Repeated())):
        step.check_network(network, images())
        feed = Recording(network.eval(), images())
        step.apply(prepared(network), feed)
        (unit,) = [one for one in feed.kept["reconstruction-both.json"]["units"] if "again" in one["layers"]]
        assert unit["error"] <= unit["error_nearest"]


def test_fewer_calibration_images_than_a_batch_are_refused_when_the_method_is_made() -> None:
    with pytest.raises(SuiteError, match="batches of 32 images, but the calibration has only 8"):
        Adaround(4, 4, feed=Calibration(8, 8))
    assert Adaround(4, 4, feed=Calibration(8, 8), views=4).views == 4, "32 crops"


def test_equalization_leaves_a_network_with_relu6_as_it_is_and_says_that_it_has_nothing_to_do() -> None:
    """Every channel of a MobileNetV2 passes ReLU6. As in the paper, with ReLU in its place, outputs change."""
    network, x = inverted(), 20 * images()
    with pytest.raises(
        SuiteError, match="nothing can be equalized: .* but through ReLU6, which relu6='replaced'"
    ):
        Equalize().check_network(network, x)
    with pytest.raises(SuiteError, match="nothing can be equalized"):
        quantized(Equalized(4, 4, feed=CALIBRATION).steps(), Recording(network, x))
    with torch.no_grad():
        before = network(x)
        assert len(equalize(network, "replaced")) == 7
        assert float((network(x) - before).abs().max()) > 1e-2


def test_a_link_through_relu6_is_left_out_and_the_others_are_equalized() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()]
    network, x = nn.Sequential(*layers, nn.Linear(400, 10)).eval(), 20 * images()
    with torch.no_grad():
        before = network(x)
        assert equalize(network) == (("2", "4"),) and isinstance(network[1], nn.ReLU6)
        torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-5)


def test_a_network_without_batchnorm_has_no_analytic_correction_and_that_is_an_error() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(576, 10)
    network, x = nn.Sequential(*layers).eval(), images()
    for method in (Dfq(4, 4, feed=CALIBRATION), BiasCorrection(4, 4, feed=CALIBRATION, how="analytic")):
        with pytest.raises(
            SuiteError, match="gets its input from a BatchNorm.*use CorrectBias\\('empirical'\\)"
        ):
            quantized(method.steps(), Recording(network, x))
    with pytest.raises(SuiteError, match="biases cannot be corrected analytically"):
        CorrectBias("analytic").check_network(network, x)
    feed = Recording(network, x)
    quantized(BiasCorrection(4, 4, feed=CALIBRATION).steps(), feed)
    assert len(feed.kept["bias_correction.json"]["layers"]) == 3, "what images show needs no BatchNorm"


def test_a_network_of_which_no_two_layers_are_in_a_chain_is_not_equalized() -> None:
    with pytest.raises(SuiteError, match="nothing can be equalized: no layer .* such as ReLU; take a method"):
        Equalize().check_network(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), images())
