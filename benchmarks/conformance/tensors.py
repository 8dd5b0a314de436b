"""The tensors: float32 [channels, values of each], small made ones and those of a real ResNet-20."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.conformance.settings import SETTINGS, Setting
from suite import networks
from suite.networks import checkpoint_files
from suite.quantizers.layers import LAYERS
from suite.recipe import Network


def made(seed: int = 0) -> dict[str, Tensor]:
    """One for each case in which toolkits may differ; random ones from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(8, 96, generator=generator)
    outliers = random.clone()
    outliers[::2, 0], outliers[1::2, 1] = 40.0, -55.0
    a_dead_channel = random.clone()
    a_dead_channel[3] = 0
    halves = torch.arange(-254, 255) / 2
    return {
        "random": random,
        "random of other sizes": random * torch.logspace(-3, 3, 8)[:, None],
        "zeros": torch.zeros(4, 16),
        "a channel of zeros": a_dead_channel,
        "ties, step 2^-4": (halves * 2**-4).repeat(2, 1),
        "ties, step 0.1": (halves * 0.1).repeat(2, 1),
        "ties, step 1/3": (halves / 3).repeat(2, 1),
        "ties with a zero point": ((torch.arange(0, 511) / 2 - 101) * 2**-3).repeat(2, 1),
        "outliers": outliers,
        "one-sided, from 0": random.relu(),
        "one-sided, far from 0": random.abs() + 5,
        "negative": -random.abs() - 0.5,
        "one value": torch.full((2, 8), 0.7),
        "tiny": random * 1e-9,
    }


def settings_of(tensor: str) -> list[Setting]:
    """Made tensors are quantized in every way, weights about zero, inputs with a zero point."""
    kind = tensor.rsplit(" ", 1)[-1]
    about_zero = {"weight": (True,), "input": (False,)}.get(kind, (True, False))
    return [setting for setting in SETTINGS.values() if setting.symmetric in about_zero]


def resnet20() -> tuple[dict[str, Tensor], str]:
    """(weights [out, rest] and inputs [channels, rest] of all its layers, where the weights are from).

    The public checkpoint, where SUITE_TEST_RESNET20 names it; else random weights. The inputs are those of an image
    of noise, of the mean and deviation of normalized ones.
    """
    file = os.environ.get("SUITE_TEST_RESNET20")
    torch.manual_seed(0)
    network = Network("resnet20", "A")
    model = checkpoint_files.load_weights(network, Path(file)) if file else networks.build(network)
    model.eval()
    found: dict[str, Tensor] = {}
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYERS)]
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: found.update(
                {f"{name} input": inputs[0].transpose(0, 1).flatten(1).clone()}
            )
        )
        for name, module in layers
    ]
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    found |= {f"{name} weight": module.get_parameter("weight").detach().flatten(1) for name, module in layers}
    return found, "the public ResNet-20 checkpoint" if file else "a ResNet-20 with random weights"
