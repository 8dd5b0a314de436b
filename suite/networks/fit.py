"""Whether a network takes a data set's images and gives a value a class, tried on two images before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from suite.networks import build
from suite.recipe import Dataset, Network, Pretrained, Stage, Training, plan, user_files
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
    gives [2, classes], and [3, classes] for three. torch's generator is left as it was."""
    shape = (dataset.channels, dataset.size, dataset.size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build(network)
        for count, mode in ((2, False), (3, False), (2, True))[: 2 + trains]:
            try:
                out = model.train(mode)(torch.zeros(count, *shape))
            except Exception as error:
                raise SuiteError(
                    f"{network.name} does not take {count} images of {dataset.name}, float32 "
                    f"{[count, *shape]}: {_reason(network, error)}; its forward must take these alone: give Dataset "
                    f"another size or number of channels, or change or wrap the network"
                ) from error
            if not isinstance(out, Tensor) or tuple(out.shape) != (count, network.classes):
                got = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
                raise SuiteError(
                    f"{network.name} gives {got} for {count} images, not [{count}, {network.classes}], a value a "
                    f"class; let what makes it take `classes`, the number that the data set has, and its forward "
                    f"return these values alone"
                )


def _reason(network: Network, error: Exception) -> str:
    """The error's first line, with the line of the user's file where it is of one."""
    if network.sha256:
        return str(user_files.broken(user_files.file_of(network.sha256), error)).splitlines()[0]
    return (str(error).strip() or type(error).__name__).splitlines()[0]
