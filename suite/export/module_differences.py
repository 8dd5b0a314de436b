"""The first layer whose rounded input differs between a simulation and the network that is read from its file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from suite.formats.exporter_errors import module_of
from suite.integers.levels import levels_of
from suite.quantizers.quantizer import Quantizer


def first_difference(
    model: nn.Module, other: nn.Module | ExportedProgram, x: Tensor
) -> dict[str, Any] | None:
    """Of the quantizers of `model`, in the order in which they compute, the first whose integers differ in `other`,
    whose modules have the same names, or which was exported of such a network: the layer, the share of its integers
    that differ, and by how many levels at most; None where all agree on the images `x`."""
    quantizers = {name: one for name, one in model.named_modules() if isinstance(one, Quantizer)}
    ours = _outputs(model, list(quantizers), x)
    if isinstance(other, ExportedProgram):
        theirs = _of_program(other, x)
    else:
        theirs = {_layer(name): value for name, value in _outputs(other, list(quantizers), x).items()}
    for name, value in ours.items():
        apart = torch.round((theirs[_layer(name)] - value).abs() / levels_of(quantizers[name]).scale)
        if bool(apart.any()):
            share = float((apart > 0).double().mean())
            return {"layer": _layer(name), "share": share, "levels": int(apart.max())}
    return None


def _layer(name: str) -> str:
    """In the graph of a traced network the quantizer of a layer's input has the layer's name."""
    return name.removesuffix(".input")


def _of_program(program: ExportedProgram, x: Tensor) -> dict[str, Tensor]:
    """By the layers of the network that a program was exported of, their rounded inputs."""
    found: dict[str, Tensor] = {}

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if "dequantize_per_tensor" in str(n.target) and (name := module_of(n)):
                found[_layer(name)] = value
            return value

    network = program.module()
    assert isinstance(network, fx.GraphModule)
    with torch.no_grad():
        Watched(network).run(x)
    return found


def _outputs(network: nn.Module, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """What each named module gives when `network` computes the images `x`, in the order of their calls."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def keep(_: nn.Module, __: Any, y: Tensor, name: str = name) -> None:
            found[name] = y

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
