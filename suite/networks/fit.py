"""Whether a network takes a data set's images and gives a value a class, tried on two images before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from suite.networks import build
from suite.recipe import Dataset, Network, Pretrained, Stage, Training, plan
from suite.recipe.errors import SuiteError
from suite.recipe.settings import NETWORKS


def check_networks(stages: Iterable[Stage]) -> None:
    """Raise SuiteError for the first float network of the stages that does not fit its data set.

    The suite's own networks take its own data sets, and are not tried.
    """
    floats = [stage for stage in plan(stages) if isinstance(stage, (Training, Pretrained))]
    trained = {(stage.network, stage.dataset): bool(stage.trains_by) for stage in floats}
    for (network, dataset), trains in trained.items():
        if network.name not in NETWORKS or dataset.name not in Dataset.IMAGES:
            check_fits(network, dataset, trains)


def check_fits(network: Network, dataset: Dataset, trains: bool) -> None:
    """Raise SuiteError unless the network takes two images of zeros, also in training mode where it `trains`, and
    gives [2, classes]. torch's generator is left as it was."""
    shape = (dataset.channels, dataset.size, dataset.size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build(network)
        for mode in (False, True)[: 1 + trains]:
            try:
                out = model.train(mode)(torch.zeros(2, *shape))
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise SuiteError(
                    f"{network.name} does not take the images of {dataset.name}, {list(shape)} each: {reason}; give "
                    f"Dataset another size, or choose another network"
                ) from error
            if not isinstance(out, Tensor) or tuple(out.shape) != (2, network.classes):
                got = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
                raise SuiteError(
                    f"{network.name} gives {got} for two images, not [2, {network.classes}], a value a class; give "
                    f"Network its number of classes, and let it return these values alone"
                )
