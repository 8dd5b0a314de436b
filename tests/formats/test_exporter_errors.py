"""A layer that torch cannot export is named in one line, with the reason and what to do."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, fx, nn

from suite.export.runtimes import why_not
from suite.formats import exporter_errors, onnx_graph, pt2e
from suite.recipe.errors import SuiteError

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if float(x.sum()) > 0 else x


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)  # type: ignore[no-any-return]


class TwoImages(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4, 10, 10)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("\x1b[96mno\x1b[0m\nmore")


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), layer)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.block(self.stem(x)).mean((2, 3)))
        return logits


REASONS = {
    Decides: r"layer block\.1 \(line \d+ of test_exporter_errors\.py: return x \+ 1 if .* else x\) "
    r"cannot be exported: its way depends on the values of a tensor, and an exported graph has one way",
    TwoImages: r"layer block\.1 \(line .*: return x\.reshape\(2, 4, 10, 10\)\) cannot be exported: "
    r"it takes batches of 2 images alone",
    Fails: r"layer block\.1 \(line .*: raise ValueError.*\) cannot be exported: ValueError: no",
    Bessel: r"layer block\.1 \(prims\.bessel_j0\.default\) cannot be exported: "
    r"torch's exporter has no ONNX form of this operator",
}


CASES = [(layer, to) for layer in REASONS for to in ("onnx", "pt2e") if (layer, to) != (Bessel, "pt2e")]
"""PT2E has the operator of Bessel."""


@pytest.mark.parametrize(("layer", "to"), CASES)
def test_the_layer_is_named_with_the_reason_and_nothing_is_printed(
    layer: type[nn.Module], to: str, needs_onnx: None, capfd: pytest.CaptureFixture[str]
) -> None:
    if to == "pt2e" and "torchao" in (reason := why_not("inductor")):
        pytest.skip(reason)
    write = onnx_graph.onnx_model if to == "onnx" else pt2e.program
    with pytest.raises(SuiteError) as raised:
        write(Net(layer()).eval(), X)
    said = str(raised.value)
    assert re.fullmatch(REASONS[layer] + "; write it with other operators, or use --to safetensors", said)
    assert capfd.readouterr() == ("", "")


def test_functions_between_the_layers_of_a_traced_network_are_its_own_forward(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """torch.fx prints its generated code, and cuts off where an error came from."""
    said = exporter_errors.fixed_batch(fx.symbolic_trace(Net(TwoImages())), X)
    assert said.startswith(
        "the network's own forward cannot be exported: it takes batches of 2 images alone; "
    )
    assert capfd.readouterr() == ("", "")
