"""Which layers get the same widths beyond those that the graph ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes.mixed import CALIBRATION, chosen, mixed, widths
from torch import nn

from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.recipe.errors import SuiteError


class OneWeight(nn.Module):
    """Two layers, one behind the other, that have one weight together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.one.weight
        self.linear = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.other(self.one(self.conv(x).relu()).relu()).relu()
        result: torch.Tensor = self.linear(x.mean((2, 3)))
        return result


@pytest.mark.parametrize("by", ["noise", "random"])
def test_layers_that_have_one_weight_together_get_the_same_widths(by: Any) -> None:
    """It is rounded once: the narrower of two widths would be that of both, whatever the record says."""
    torch.manual_seed(0)
    model, kept, _ = chosen(mixed(Mse(4, 4, feed=CALIBRATION), by), OneWeight().eval())
    found = widths(kept)
    assert found["one"] == found["other"] and kept["tied"] == [["one", "other"]]
    for name in ("one", "other"):
        held: Any = model.get_submodule(name)
        assert all(len(channel.unique()) <= 2 ** found[name][0] for channel in held.layer.weight.flatten(1))


def test_different_widths_that_are_declared_for_them_are_refused() -> None:
    base = Scheme(4, 4, by_layer=(("one", 4, 4), ("other", 8, 4)), calibration=CALIBRATION)
    with pytest.raises(SuiteError, match="have one weight or are added .* one w4a4, other w8a4 are declared"):
        chosen(mixed(base), OneWeight().eval())
