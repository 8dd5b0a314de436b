"""A weight that layers hold together is rounded for good as each layer rounded it before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from suite.quantizers.layers import Quantized, bake, quantize, set_widths
from suite.steps import LeastError, Uniform


class OneWeight(nn.Module):
    """Two layers, one behind the other, that hold one weight, for images [n, 4, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.other(self.one(x))
        return result


@pytest.mark.parametrize(("widths", "together"), [((4, 4), True), ((4, 2), False), ((2, 4), False)])
def test_rounding_for_good_changes_no_output(widths: tuple[int, int], together: bool) -> None:
    torch.manual_seed(0)
    weights = Uniform(range=LeastError())
    model = quantize(OneWeight(), (nn.Conv2d,), lambda is_first: None, lambda: weights.quantizer(4))
    set_widths(model, {name: (bits, 32) for name, bits in zip(("one", "other"), widths, strict=True)})
    one, other = model.one, model.other
    assert isinstance(one, Quantized) and isinstance(other, Quantized)
    for held in (one, other):
        assert held.weight is not None and isinstance(held.layer.weight, nn.Parameter)
        held.weight.settled(held.layer.weight.detach())
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        before = model(x)
        assert torch.equal(bake(model)(x), before)
    assert (one.layer.weight is other.layer.weight) == together
