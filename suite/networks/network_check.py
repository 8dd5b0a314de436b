"""Whether a network takes a data set's images, gives a value a class and can be trained, tried on two images before
anything runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks import build
from suite.networks.channels_last import channels_last
from suite.recipe import Dataset, Network, Stage, plan, user_files
from suite.recipe.errors import SuiteError, first_line
from suite.recipe.planning import float_stage_of
from suite.recipe.settings import NETWORKS
from suite.recipe.words import counted


def check_networks(stages: Iterable[Stage]) -> None:
    """Raise SuiteError for the first float network of the stages that does not fit its data set.

    The suite's own networks take its own data sets, and are not tried.
    """
    ranks: dict[tuple[Network, Dataset], int] = {}
    for stage in plan(stages):
        start = float_stage_of(stage)
        pair = start.network, start.dataset
        ranks[pair] = max(ranks.get(pair, 0), stage.world_size if stage.trains_by else 0)
    for (network, dataset), most in ranks.items():
        if network.name not in NETWORKS or dataset.name not in Dataset.IMAGES:
            check_fits(network, dataset, trains=most > 0, shared=most > 1)


def check_fits(network: Network, dataset: Dataset, trains: bool, shared: bool = False) -> None:
    """Raise SuiteError unless the network takes two images of zeros, also in training mode where it `trains`, and
    gives [2, classes], and [3, classes] for three; unless every network that is made so gives the same with the same
    weights; and, where it `trains`, unless it can be, `shared` between ranks or not. torch's generator is left as it
    was."""
    with torch.random.fork_rng(devices=[]):
        model = _as_in_runs(network)
        for count, mode in ((2, False), (3, False), (2, True))[: 2 + trains]:
            _check_shapes(network, model.train(mode), dataset, count)
        if trains:
            _check_learns(network, model, dataset, shared)
        _check_repeats(network, model.eval(), dataset)


def check_takes_one(network: Network, dataset: Dataset, words: str) -> None:
    """Raise SuiteError unless the network can be trained on one image, which `words` says when it is."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            _as_in_runs(network).train()(_zeros(dataset, 1))
        except Exception as error:
            raise SuiteError(
                f"{network.name} cannot be trained on a single image, {words}: {_reason(network, error)}; choose "
                f"another batch"
            ) from error


def _as_in_runs(network: Network) -> nn.Module:
    return channels_last(build(network))


def _zeros(dataset: Dataset, count: int) -> Tensor:
    images = torch.zeros(count, dataset.channels, dataset.size, dataset.size)
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _check_shapes(network: Network, model: nn.Module, dataset: Dataset, count: int) -> None:
    images = _zeros(dataset, count)
    try:
        out = model(images)
    except Exception as error:
        raise SuiteError(
            f"{network.name} does not take {counted(count, 'image')} of {dataset.name}, float32 {list(images.shape)}: "
            f"{_reason(network, error)}; its forward must take these alone: give Dataset another size or number of "
            f"channels, or change or wrap the network"
        ) from error
    if not isinstance(out, Tensor) or tuple(out.shape) != (count, network.classes):
        got = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise SuiteError(
            f"{network.name} gives {got} for {counted(count, 'image')}, not [{count}, {network.classes}], a value a "
            f"class; let what makes it take `classes`, the number that the data set has, and its forward return these "
            f"alone"
        )


@torch.enable_grad()
def _check_learns(network: Network, model: nn.Module, dataset: Dataset, shared: bool) -> None:
    """Raise SuiteError unless a step can be made; every parameter needs a gradient where ranks share the training."""
    try:
        values = model.train()(_zeros(dataset, 2)).float()
        torch.autograd.backward(F.cross_entropy(values, torch.tensor([0, 1])))
    except Exception as error:
        raise SuiteError(f"{network.name} cannot be trained: {_reason(network, error)}") from error
    if values.detach().min() >= 0 and _alike(values.detach().sum(1), torch.ones(2)):
        raise SuiteError(
            f"{network.name} gives probabilities, and a training takes their softmax again; leave softmax out of it"
        )
    unused = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    model.zero_grad(set_to_none=True)
    if shared and unused:
        raise SuiteError(
            f"{network.name}: {unused[0]} takes no part in what it gives, and ranks that share a training need a "
            f"gradient of every parameter; remove it, or set its requires_grad to False"
        )


@torch.no_grad()
def _check_repeats(network: Network, model: nn.Module, dataset: Dataset) -> None:
    """Raise SuiteError where something at random decides what the network gives, beside its weights: a recipe makes
    the network anew and loads these."""
    shape = (2, dataset.channels, dataset.size, dataset.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first, again = model(images), model(images)
    if not _alike(first, again):
        raise SuiteError(
            f"{network.name} gives other values for the same images in evaluation mode, so that its accuracy would be "
            f"one of chance; let what draws, such as F.dropout, do so where self.training alone"
        )
    other = _as_in_runs(network)
    try:
        other.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise SuiteError(
            f"{network.name} made two networks of which one does not take the other's weights: "
            f"{_reason(network, error)}; make the same each time"
        ) from error
    kept, buffers = model.state_dict().keys(), dict(other.named_buffers())
    hidden = {name: value for name, value in model.named_buffers() if name not in kept}
    differ = [name for name, value in hidden.items() if not _alike(value, buffers[name])]
    if differ or not _alike(first, other.eval()(images)):
        what = f"the buffer {differ[0]}" if differ else "something"
        raise SuiteError(
            f"{network.name} has {what} that is drawn at random and is not in its state_dict, so that a network made "
            f"anew with the same weights is another; keep it with register_buffer(name, value), or draw it by a seed"
        )


def _alike(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape
    return same and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-5, equal_nan=True)


def _reason(network: Network, error: Exception) -> str:
    """The error's first line, with the line of the user's file where it is of one."""
    own = user_files.broken(user_files.file_of(network.sha256), error) if network.sha256 else error
    text = first_line(own)
    if "view size is not compatible" in text:
        text += (
            " Images and weights are channels last in memory here: write x.flatten(1) for x.view(len(x), -1)."
        )
    return text
