"""The networks. `build` makes one with random weights; `checkpoint_files.load_weights` reads a checkpoint into it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from suite.networks import zoo
from suite.networks.cifar_resnet import resnet_for_32
from suite.networks.nin import NetworkInNetwork
from suite.networks.own_forward import by_its_modules
from suite.recipe import Network
from suite.recipe.user_files import is_reference


def build(network: Network) -> nn.Module:
    """The float network, its weights drawn from torch's current generator.

    Raises SuiteError where torchvision or timm has no such network, timm is not installed, or the user's file fails.
    """
    return by_its_modules(_built(replace(network, classes=outputs(network))))


def outputs(network: Network) -> int:
    """How many values the network gives for an image: its classes; 10 where no data set has said how many."""
    return network.classes or 10


def _built(network: Network) -> nn.Module:
    if is_reference(network.name):
        return zoo.of_user_file(network)
    if network.name == "resnet50_imagenet":
        return zoo.of_torchvision("resnet50", network.classes)
    if "/" in network.name:
        kind, _, name = network.name.partition("/")
        return (zoo.of_torchvision if kind == "torchvision" else zoo.of_timm)(name, network.classes)
    if network.name == "nin":
        return NetworkInNetwork(network.classes)
    return resnet_for_32(network.name, network.shortcut, network.classes)
