"""Small networks with statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from fakes import tiny
from suite import networks
from suite.recipe import Network


def lived_in() -> nn.Module:
    """A small ResNet-20 with random weights and lived-in BatchNorm statistics, evaluating."""
    return _copied(_resnet20, 32)


def two_blocks() -> nn.Module:
    """The smallest network with residual blocks, in the same state: 7 layers of 4 and 8 channels."""
    return _copied(tiny.network, 16)


def _resnet20() -> nn.Module:
    return networks.build(Network("resnet20"))


def _copied(make: Callable[[], nn.Module], size: int) -> nn.Module:
    """Of the network that `_made` makes once; torch's generator is as after that."""
    model, state = _made(make, size)
    torch.set_rng_state(state)
    return copy.deepcopy(model)


@cache
def _made(make: Callable[[], nn.Module], size: int) -> tuple[nn.Module, Tensor]:
    """The network after three batches of images `size` pixels wide, and the state of torch's generator."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, size, size))
    return model.eval(), torch.get_rng_state()


class Branching(nn.Module):
    """A forward that depends on values, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.linear(x) if x.sum() > 0 else self.linear(-x)  # type: ignore[no-any-return]


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state_dict with a prefix before all names."""
    return {prefix + name: value for name, value in state.items()}
