"""The networks. `build` makes one with random weights; `checkpoint_files.load_weights` reads a checkpoint into it."""

from __future__ import annotations

from torch import nn

from suite.networks.cifar_resnet import resnet_for_32
from suite.recipe import Network


def build(network: Network) -> nn.Module:
    """The float network, its weights drawn from torch's current generator."""
    if network.name == "resnet50_imagenet":
        from suite.networks.torchvision_import import torchvision

        model: nn.Module = torchvision.models.resnet50(num_classes=network.classes)
        return model
    return resnet_for_32(network.name, network.shortcut, network.classes)
