"""A network with channels last learns with the gradients that the order channel after channel gives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fakes import ROOT

GRADIENTS = """
import sys, torch
from torch import nn
from suite.networks.channels_last import channels_last
from suite.networks.own_forward import computed

channels, stride, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
layer = nn.Conv2d(channels, 8, 1, stride)
x = torch.randn(8, channels, 4 * stride, 4 * stride)

def gradient(layer, result):
    layer.zero_grad()
    result.square().sum().backward()
    return layer.weight.grad.clone()

wanted = gradient(layer, layer(x))
x, layer = x.contiguous(memory_format=torch.channels_last), channels_last(channels_last(layer))
for _ in range(3):
    for result in (layer(x), computed(layer, x, layer.weight)):
        torch.testing.assert_close(gradient(layer, result), wanted, rtol=1e-4, atol=1e-3)
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("channels, stride", [(1, 2), (4, 2), (4, 3)])
def test_a_strided_convolution_of_few_channels_gets_right_gradients_of_avx2_too(
    channels: int, stride: int, threads: int
) -> None:
    # A setting of oneDNN, read when it loads: any CPU with AVX2 computes by the kernels of one that has no more.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", GRADIENTS, str(channels), str(stride), str(threads)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
