"""Traces are those of the Hessian where it can be computed, and their standard errors say how far they are off."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from fakes import ROOT
from fakes.mixed import LAYERS, images, tied
from torch import Tensor, nn
from torch.nn import functional as F

from suite.sensitivity.hessian import traces
from suite.sensitivity.offsets import loss_of


def twice_convolved() -> nn.Module:
    """Piecewise linear in each weight and each input, with all that ResNets have between their layers."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU6(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(4, 3)),
    )
    return network.eval().double()


def trace_of(loss: Any, at: Tensor) -> float:
    """Of the whole matrix of second derivatives."""
    whole = torch.autograd.functional.hessian(loss, at.detach())  # type: ignore[no-untyped-call]
    return float(whole.reshape(at.numel(), at.numel()).trace())


@pytest.mark.parametrize("name", ["0", "4", "7"])
def test_the_trace_of_a_weight_is_that_of_the_hessian(name: str) -> None:
    """Which has labels in it, and the estimate none."""
    network, x, labels = twice_convolved(), torch.randn(8, 2, 6, 6).double(), torch.arange(8) % 3
    weight: Any = network.get_submodule(name).weight

    def loss(value: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, {f"{name}.weight": value}, (x,))
        return loss_of(logits, labels) / len(x)

    found = traces(network, (name,), [x], probes=3000)[name, "weight"]
    assert found.trace == pytest.approx(trace_of(loss, weight), rel=0.05) and found.size == weight.numel()


def test_the_trace_of_an_input_is_the_mean_of_those_of_the_images() -> None:
    network, x, labels = twice_convolved(), torch.randn(6, 2, 6, 6).double(), torch.arange(6) % 3
    exact = [
        trace_of(lambda given, n=n: F.cross_entropy(network(given), labels[n : n + 1]), x[n : n + 1])
        for n in range(6)
    ]
    found = traces(network, ("0",), [x], probes=3000)["0", "input"]
    assert found.trace == pytest.approx(sum(exact) / 6, rel=0.05) and found.size == 2 * 6 * 6


def test_no_estimate_is_below_zero_or_below_its_standard_error() -> None:
    """One second derivative for all tensors gave such ones, and every width of a layer with one was free."""
    x, _ = images(24)
    for seed in range(20):
        for found in traces(tied(), LAYERS, [x], probes=1, seed=seed).values():
            assert found.trace >= found.standard_error * (1 - 1e-12) > 0


def test_other_layers_are_not_in_a_trace_and_how_images_come_does_not_matter() -> None:
    network, (x, _) = tied(), images(19)
    alone, all_of_them = (traces(network, names, [x], probes=2) for names in (LAYERS[:1], LAYERS))
    for tensor in ("weight", "input"):
        assert all_of_them["conv", tensor] == alone["conv", tensor]
    assert traces(network, LAYERS, [x[:16], x[16:]], probes=2) == all_of_them
    assert traces(network, LAYERS, [x], probes=2, seed=1) != all_of_them


def test_the_standard_error_is_how_far_draws_of_images_and_signs_are_apart() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    many = [traces(network, ("0",), [torch.randn(67, 3)], probes=2, seed=seed) for seed in range(60)]
    for tensor in ("weight", "input"):
        found = [one["0", tensor] for one in many]
        spread = float(np.std([one.trace for one in found], ddof=1))
        assert spread == pytest.approx(float(np.mean([one.standard_error for one in found])), rel=0.25)


def test_of_one_sample_there_is_no_standard_error_and_a_layer_that_is_not_called_is_left_out() -> None:
    network = tied()
    network.unused = nn.Linear(2, 2)
    found = traces(network, ("conv", "unused"), [images(8)[0]], probes=2)
    assert list(found) == [("conv", "weight"), ("conv", "input")]
    assert all(math.isnan(one.standard_error) for one in found.values())
    assert traces(network, ("unused",), [images(8)[0]], probes=2) == {}


def test_a_strided_convolution_of_few_channels_ends_no_process_on_a_processor_with_avx2_alone() -> None:
    """oneDNN wrote beyond the derivative of its weight; the process was aborted."""
    code = (
        "from fakes.methods import make, quantized\n"
        "from fakes.networks import two_blocks\n"
        "quantized(make('mixed', 4), two_blocks())\n"
    )
    avx2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | avx2 | {"PYTHONPATH": path, "MALLOC_CHECK_": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
